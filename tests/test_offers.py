"""Optional hooks: asked for by name, refused in words, offered once they are written."""

import pytest

from gfnem.offers import NotOffered, Offering, optional


class Base(Offering):
    @optional
    def hook(self):
        """A hook."""

    def required(self):
        return 1


class Offers(Base):
    def hook(self):
        return 2


class Wrapper(Base):
    def __init__(self, inner):
        self.inner = inner

    def offers(self, hook):
        return super().offers(hook) and self.inner.offers(hook)

    def hook(self):
        return self.inner.hook()


def test_a_hook_is_offered_where_it_is_written():
    assert not Base().offers("hook") and Offers().offers("hook") and Offers().hook() == 2
    with pytest.raises(NotOffered, match="Base offers no hook"):
        Base().hook()


def test_a_wrapper_offers_what_it_wraps():
    assert Wrapper(Offers()).offers("hook") and not Wrapper(Base()).offers("hook")
    with pytest.raises(NotOffered):
        Wrapper(Base()).hook()


def test_what_nobody_declares_is_not_offered():
    assert not Offers().offers("nothing") and Offers().offers("required")


def test_a_declared_hook_keeps_its_docstring():
    assert Base.hook.__doc__ == "A hook."

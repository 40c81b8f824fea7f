"""Optional hooks: declared on a base class, asked for by name before they are used."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeVar, cast

Hook = TypeVar("Hook", bound=Callable[..., Any])


class NotOffered(NotImplementedError):
    """A hook that this component does not offer; `offers` says so beforehand."""


def optional(hook: Hook) -> Hook:
    """Declares a method of a base class as a hook that subclasses may offer or not.

    The method's body is never run: until a subclass overrides it, it raises `NotOffered`.
    """

    @functools.wraps(hook)
    def not_offered(self, *args, **kwargs):
        raise NotOffered(f"{type(self).__name__} offers no {hook.__name__}")

    vars(not_offered)["is_optional"] = True
    return cast(Hook, not_offered)


class Offering:
    """Base of what has optional hooks."""

    def called(self) -> str:
        """What it is called in errors."""
        return type(self).__name__

    def offers(self, hook: str) -> bool:
        """Whether the hook of this name may be called.

        A wrapper, and a class that offers a hook only with some settings, overrides this. False
        for a name that nothing declares.
        """
        method = getattr(type(self), hook, None)
        return method is not None and not getattr(method, "is_optional", False)

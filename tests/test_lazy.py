"""Public names come from their modules when they are asked for, and not before."""

import sys

import pytest

from gfnem.lazy import public_names


@pytest.fixture
def package(tmp_path, monkeypatch):
    folder = tmp_path / "lazy_package"
    folder.mkdir()
    (folder / "__init__.py").write_text("VERSION = 1\n")
    (folder / "heavy.py").write_text("class Thing:\n    pass\n")
    monkeypatch.syspath_prepend(tmp_path)
    yield "lazy_package"
    for name in [name for name in sys.modules if name.split(".")[0] == "lazy_package"]:
        del sys.modules[name]


def test_a_name_is_imported_when_it_is_asked_for(package):
    attribute, listed, names = public_names(package, {"heavy": ("Thing",)})
    assert names == ["Thing"] and {"Thing", "VERSION"} <= set(listed())
    assert f"{package}.heavy" not in sys.modules
    assert attribute("Thing").__module__ == f"{package}.heavy"


def test_another_name_is_an_attribute_error(package):
    attribute, _, _ = public_names(package, {"heavy": ("Thing",)})
    with pytest.raises(AttributeError, match=f"module '{package}' has no attribute 'Thin'"):
        attribute("Thin")

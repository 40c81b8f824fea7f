"""Packages whose public names are imported when they are first asked for."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any


def public_names(
    package: str, homes: Mapping[str, Sequence[str]]
) -> tuple[Callable[[str], Any], Callable[[], list[str]], list[str]]:
    """The `__getattr__`, `__dir__` and `__all__` of a package that imports nothing by itself.

    Args:
        package: its name.
        homes: the public names in each of its modules.
    """
    home = {name: module for module, names in homes.items() for name in names}
    names = sorted(home)

    def attribute(name: str) -> Any:
        if name not in home:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return getattr(importlib.import_module(f"{package}.{home[name]}"), name)

    def listed() -> list[str]:
        module = importlib.import_module(package)
        return sorted({*vars(module), *names})

    return attribute, listed, names

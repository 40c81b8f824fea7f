"""Settings files: what is in them, and which ones come with gfnem."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import yaml

from gfnem.errors import UserError
from gfnem.files import read_text


def read_settings(path: str | Path) -> dict[str, Any]:
    """The settings in a YAML file.

    Raises:
        UserError: naming the line where it can, if this is not a file of `name: value` settings.
    """
    try:
        content = yaml.safe_load(read_text(path))
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{path}, line {mark.line + 1}" if mark else str(path)
        raise UserError(
            f"{where}: not YAML ({getattr(error, 'problem', None) or error})"
        ) from error
    except (ValueError, OverflowError, RecursionError) as error:  # a date with a 13th month, say
        raise UserError(f"{path}: not YAML ({error})") from error
    if not isinstance(content, dict):
        raise UserError(f"{path}: no settings in it (a YAML file of `name: value` is wanted)")
    return content


def shipped(name: str) -> Path | None:
    """The settings file that comes with gfnem under a name; None if there is none."""
    return _all_shipped().get(name)


def find_settings(name: str) -> str:
    """A settings file's path: the file of this name, or the shipped one.

    Raises:
        UserError: if it looks like the name of a shipped one, and there is none.
    """
    if os.path.exists(name) or Path(name).name != name or Path(name).suffix:
        return name
    if (file := shipped(name)) is None:
        known = ", ".join(sorted(_all_shipped())) or "none"
        raise UserError(f"--config {name}: no such file; the configurations shipped are: {known}")
    return str(file)


def _all_shipped() -> dict[str, Path]:
    package = Path(__file__).parent
    # in an installed package, and in a source checkout
    folders = (package.parent / "experiments", package / "configs")
    return {file.stem: file for folder in folders for file in folder.glob("*.yaml")}

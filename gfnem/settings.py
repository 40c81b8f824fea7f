"""Settings files."""

from __future__ import annotations

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

"""Datasets of the public hub, and those saved on this machine."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from gfnem.errors import UserError

if TYPE_CHECKING:  # it takes a second to import, which `--help` should not
    from datasets import Dataset, IterableDataset


def parse_dataset_name(source: str, split: str | None = None) -> tuple[str, str | None, str, str]:
    """Takes `hf:[OWNER/]NAME[/CONFIG]:COLUMN[@SPLIT]` apart.

    A configuration can only be named together with an owner: `hf:a/b:text` is owner a, name b. A
    path on this machine (absolute, or beginning with `.` or `~`) is taken whole as the name.

    Args:
        source: the text to take apart.
        split: the split if `source` names none; "train" if None.

    Returns:
        `(name, config or None, column, split)`, the name with its owner.

    Raises:
        UserError: if the text has another form.
    """
    # A split may hold a colon, as in `train[:1000]`; names never hold an @.
    rest, at, named = source.removeprefix("hf:").partition("@")
    path, _, column = rest.rpartition(":")
    local = os.path.isabs(path) or path.startswith((".", "~"))
    parts = [path] if local else path.split("/")
    colon = ":" in path and not local
    if not (all(parts) and len(parts) <= 3 and column and not colon and (named or not at)):
        raise UserError(
            f"{source}: a public dataset is written hf:OWNER/NAME:COLUMN, hf:NAME:COLUMN or "
            "hf:OWNER/NAME/CONFIG:COLUMN, with @SPLIT after it if wanted"
        )
    config = parts[2] if len(parts) == 3 else None
    return "/".join(parts[:2]), config, column, named or split or "train"


def load_public(
    source: str, name: str, config: str | None, split: str, streaming: bool = False
) -> Dataset | IterableDataset:
    """`datasets.load_dataset` without progress bars and with one-line errors."""
    import datasets

    more = {"streaming": True} if streaming else {}
    with _quietly():
        try:
            return datasets.load_dataset(name, config, split=split, **more)
        except Exception as error:  # the library and its downloaders raise all sorts
            kinds = " ".join(kind.__name__ for kind in type(error).__mro__)
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            if re.search("Connect|Offline|Timeout|Network", kinds):
                reason = f"no connection to the dataset hub, and no copy on this machine ({reason})"
            raise UserError(f"{source}: cannot load split {split!r}: {reason}") from error


def load_saved(folder: Path, split: str | None) -> Dataset:
    """A dataset that `save_to_disk` has written; of several splits the one asked for, or "train".

    Raises:
        UserError: if it cannot be read, or has no such split.
    """
    import datasets

    with _quietly():
        try:
            data = datasets.load_from_disk(str(folder))
        except Exception as error:
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise UserError(f"{folder}: cannot be read as a saved dataset ({reason})") from error
    if not isinstance(data, dict):
        return data
    if (split or "train") not in data:
        raise UserError(
            f"{folder}: no split {split or 'train'!r} in it; name one of {' '.join(data)}, as in "
            f"{folder}:COLUMN@{next(iter(data), 'SPLIT')}"
        )
    return data[split or "train"]


@contextmanager
def _quietly() -> Iterator[None]:
    import datasets

    # The downloader logs every retry; what matters of it is in the error.
    hub = logging.getLogger("huggingface_hub")
    level = hub.level
    hub.setLevel(logging.ERROR)
    bars = datasets.utils.logging.is_progress_bar_enabled()
    datasets.disable_progress_bars()
    try:
        yield
    finally:
        hub.setLevel(level)
        if bars:
            datasets.enable_progress_bars()

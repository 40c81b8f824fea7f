"""Files of tensors and plain data, read without running code in them and with their checksums."""

from __future__ import annotations

import errno
import os
import zipfile
from typing import Any

import torch


def load_plain(path: str | os.PathLike, mmap: bool = False) -> Any:
    """What `torch.save` wrote, if it is plain data.

    torch writes a checksum of each tensor and does not look at it: a flipped bit would be another
    weight. A gigabyte takes a second to check.

    Args:
        path: the file.
        mmap: whether tensors are read from the file when they are first used; those of formats
            older than zip archives are read at once.

    Raises:
        OSError: if the file cannot be read.
        Exception: of any kind, if it is damaged or holds more than plain data.
    """
    archived = zipfile.is_zipfile(path)
    if archived:
        try:
            with zipfile.ZipFile(path) as archive:
                if (name := archive.testzip()) is not None:
                    raise zipfile.BadZipFile(f"the checksum of {name} does not match")
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
            raise zipfile.BadZipFile("it points before its own beginning") from error
    return torch.load(path, map_location="cpu", weights_only=True, mmap=mmap and archived)

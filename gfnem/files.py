"""Text files in and out: strict about what is read, atomic about what is written."""

from __future__ import annotations

import json
import math
import os
import secrets
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from gfnem.errors import UserError

_BOM = b"\xef\xbb\xbf"


def write_atomically(path: str | os.PathLike, content: str | bytes) -> None:
    """Writes a whole file, or leaves the old one as it was.

    The content goes to a temporary file in the same folder, is flushed to the disk and then takes
    the name over, so that a reader never meets half a file. Missing parent folders are made; text
    is written as UTF-8 with the line ends it has; a symbolic link is followed.

    Raises:
        UserError: if the file cannot be written there.
    """
    data = content.encode("utf-8") if isinstance(content, str) else content
    target = Path(os.path.realpath(path))
    temporary = target.with_name(f".{target.name[:100]}.{secrets.token_hex(6)}.tmp")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        # "x" rather than `tempfile`: the file gets the permissions the user's umask asks for.
        with open(temporary, "xb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(temporary, target)
    except OSError as error:
        raise UserError(f"{path}: cannot write ({error.strerror or error})") from error
    finally:
        try:
            temporary.unlink(missing_ok=True)
        except OSError:
            pass  # the folder itself is the trouble, and has been reported


def as_json(record: Any) -> str:
    """A record as one line of JSON, which has neither NaN nor infinities: null in their place."""

    def plain(value: Any) -> Any:
        if isinstance(value, float):
            return value if math.isfinite(value) else None
        if isinstance(value, Mapping):
            return {key: plain(entry) for key, entry in value.items()}
        return [plain(entry) for entry in value] if isinstance(value, (list, tuple)) else value

    return json.dumps(plain(record), ensure_ascii=False, allow_nan=False)


def write(text: str) -> None:
    """Writes text to standard output, at once.

    Raises:
        OSError: if it cannot be written.
    """
    sys.stdout.write(text)
    sys.stdout.flush()


def absolute(path: str, folders: bool = False) -> str:
    """The path in full where there is such a file (or folder), else as it is: a public name."""
    if os.path.isfile(path) or (folders and os.path.isdir(path)):
        return os.path.realpath(path)
    return path


def read_text(path: str | os.PathLike) -> str:
    r"""A UTF-8 text file as one string; a byte-order mark is dropped and `\r\n` becomes `\n`.

    Raises:
        UserError: if the file is missing, a folder, unreadable, empty, or not UTF-8 text (a byte
            that does not decode, or a NUL byte); the last two name the line.
    """
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise _unreadable(path, error) from error
    data = data.removeprefix(_BOM)
    if not data:
        raise UserError(f"{path}: the file is empty")
    return decode(data, str(path)).replace("\r\n", "\n")


def read_lines(path: str | os.PathLike) -> Iterator[str]:
    r"""The lines of a UTF-8 text file without their ends (`\n` or `\r\n`), read as needed.

    Raises:
        UserError: as `read_text`, when the line in question is reached.
    """
    try:
        stream = open(path, "rb")
    except OSError as error:
        raise _unreadable(path, error) from error
    with stream:
        empty = True
        for line in decode_lines(stream, str(path)):
            empty = False
            yield line
    if empty:
        raise UserError(f"{path}: the file is empty")


def decode_lines(stream: Iterable[bytes | str], name: str) -> Iterator[str]:
    """The lines of an open stream, binary or text, without their ends.

    Args:
        stream: anything that yields lines, such as `sys.stdin.buffer`.
        name: what to call it in an error.

    Raises:
        UserError: at a line that is not UTF-8 text, or that cannot be read.
    """
    lines = iter(stream)
    number = 0
    while True:
        number += 1
        try:
            line = next(lines)
        except StopIteration:
            return
        except UnicodeDecodeError as error:  # a text stream decodes by itself
            raise UserError(f"{name}, line {number}: not UTF-8 text ({error.reason})") from error
        except OSError as error:
            raise _unreadable(name, error) from error
        if isinstance(line, bytes):
            line = decode(line.removeprefix(_BOM) if number == 1 else line, name, number)
        elif number == 1:
            line = line.removeprefix("\ufeff")
        if not line:
            continue  # there was nothing but a byte-order mark
        yield line.removesuffix("\n").removesuffix("\r")


def decode(data: bytes, name: str, line: int = 1) -> str:
    """Bytes as strict UTF-8 text; `line` is the number of the first line in `data`.

    Raises:
        UserError: naming the line of the first byte that is not text.
    """
    nul = data.find(b"\0")
    if nul >= 0:
        line += data.count(b"\n", 0, nul)
        raise UserError(f"{name}, line {line}: a NUL byte (is this a binary file?)")
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        line += data.count(b"\n", 0, error.start)
        byte = data[error.start]
        raise UserError(f"{name}, line {line}: not UTF-8 text (byte 0x{byte:02x})") from error


def _unreadable(path, error: OSError) -> UserError:
    if isinstance(error, FileNotFoundError):
        return UserError(f"{path}: no such file")
    if isinstance(error, IsADirectoryError) or os.path.isdir(path):
        return UserError(f"{path}: a folder, where a file is wanted")
    return UserError(f"{path}: cannot read ({error.strerror or error})")

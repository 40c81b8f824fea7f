"""Text files in and out: strict about what is read, atomic about what is written."""

from __future__ import annotations

import codecs
import gzip
import json
import math
import os
import secrets
import sys
import zlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO, cast

from gfnem.errors import UserError

_BOM = b"\xef\xbb\xbf"
_GZIP = b"\x1f\x8b"
#: what goes wrong when a file is read that is there: the disk, or a damaged archive
READ_ERRORS = (OSError, EOFError, zlib.error)


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
    """The path in full where there is such a file (or folder), else as it is: a public name.

    A column named after the path (`table.csv:text`) stays there.
    """

    def there(path: str) -> bool:
        return os.path.isfile(path) or (folders and os.path.isdir(path))

    if there(path):
        return os.path.realpath(path)
    file, colon, column = path.rpartition(":")
    return os.path.realpath(file) + colon + column if file and there(file) else path


def open_bytes(path: str | os.PathLike) -> BinaryIO:
    """A file to be read, a compressed one (gzip, told by its first bytes) as what is in it.

    Raises:
        UserError: if the file is missing, a folder or unreadable.
    """
    try:
        stream = open(path, "rb")
        # nothing may be waited for in a pipe before it is asked for
        if stream.seekable() and stream.peek(2)[:2] == _GZIP:
            stream.close()
            return cast(BinaryIO, gzip.open(path, "rb"))
    except OSError as error:
        raise unreadable(path, error) from error
    return stream


def read_bytes(path: str | os.PathLike) -> bytes:
    """All of a file, decompressed if need be.

    Raises:
        UserError: as `open_bytes`, and if the file is a damaged archive.
    """
    try:
        data = Path(path).read_bytes()
        return gzip.decompress(data) if data[:2] == _GZIP else data
    except READ_ERRORS as error:
        raise unreadable(path, error) from error


def read_text(path: str | os.PathLike, encoding: str = "utf-8", hint: str = "") -> str:
    r"""A text file as one string; a byte-order mark is dropped and `\r\n` becomes `\n`.

    Args:
        path: the file; a gzip file is decompressed.
        encoding: of the text.
        hint: what to say after an error that lies in the encoding.

    Raises:
        UserError: if the file is missing, a folder, unreadable, empty, or not such text (a byte
            that does not decode, or a NUL byte); the last two name the line.
    """
    data = read_bytes(path).removeprefix(_BOM)
    if not data:
        raise UserError(f"{path}: the file is empty")
    text = decode(data, str(path), encoding=encoding, hint=hint)
    return text.removeprefix("\ufeff").replace("\r\n", "\n")


def read_lines(path: str | os.PathLike, hint: str = "") -> Iterator[str]:
    r"""The lines of a UTF-8 text file without their ends (`\n` or `\r\n`), read as needed.

    Raises:
        UserError: as `read_text`, when the line in question is reached.
    """
    with open_bytes(path) as stream:
        empty = True
        for line in decode_lines(stream, str(path), hint):
            empty = False
            yield line
    if empty:
        raise UserError(f"{path}: the file is empty")


def decode_lines(stream: Iterable[bytes | str], name: str, hint: str = "") -> Iterator[str]:
    """The lines of an open stream, binary or text, without their ends.

    Args:
        stream: anything that yields lines, such as `sys.stdin.buffer`.
        name: what to call it in an error.
        hint: what to say after an error that lies in the encoding.

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
            raise UserError(
                f"{name}, line {number}: not UTF-8 text ({error.reason}){hint}"
            ) from error
        except READ_ERRORS as error:
            raise unreadable(name, error) from error
        if isinstance(line, bytes):
            line = decode(line.removeprefix(_BOM) if number == 1 else line, name, number, hint=hint)
        elif number == 1:
            line = line.removeprefix("\ufeff")
        if not line:
            continue  # there was nothing but a byte-order mark
        yield line.removesuffix("\n").removesuffix("\r")


def decode(data: bytes, name: str, line: int = 1, encoding: str = "utf-8", hint: str = "") -> str:
    """Bytes as text of an encoding, nothing tolerated.

    Args:
        data: the bytes.
        name: what to call them in an error.
        line: the number of the first line in `data`.
        encoding: of the text.
        hint: what to say after an error.

    Raises:
        UserError: naming the line of the first byte that is not text.
    """
    known = encoding_name(encoding)
    if known == "utf-8":
        if line == 1 and data[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE):
            raise UserError(f"{name}, line 1: UTF-16 text, not UTF-8 text{hint}")
        if (nul := data.find(b"\0")) >= 0:
            line += data.count(b"\n", 0, nul)
            raise UserError(f"{name}, line {line}: a NUL byte (is this a binary file?){hint}")
    try:
        text = data.decode(encoding)
    except UnicodeError as error:
        line += lines_before(error, encoding)
        what = "UTF-8" if known == "utf-8" else encoding
        placed = isinstance(error, UnicodeDecodeError)
        why = f"byte 0x{data[error.start]:02x}" if placed else str(error)
        raise UserError(f"{name}, line {line}: not {what} text ({why}){hint}") from error
    if known != "utf-8" and (wrong := no_text(text)):
        what, place = wrong
        line += text.count("\n", 0, place)
        raise UserError(f"{name}, line {line}: {what}: not {encoding} text{hint}")
    return text


def no_text(text: str) -> tuple[str, int] | None:
    """What in a string no text holds, and where: a NUL character or half a surrogate pair."""
    if (place := text.find("\0")) >= 0:
        return "a NUL character", place
    try:
        if not text.isascii():
            text.encode("utf-8")
    except UnicodeEncodeError as error:
        return f"half a character (U+{ord(text[error.start]):04X})", error.start
    return None


def shown(name: str) -> str:
    """A file's name as text, whatever bytes the file system has in it."""
    return name.encode("utf-8", "backslashreplace").decode("utf-8")


def lines_before(error: UnicodeError, encoding: str) -> int:
    """How many lines end before the byte that an error of decoding is about."""
    if not isinstance(error, UnicodeDecodeError):
        return 0  # the whole is at fault, as where a byte-order mark is missing
    return error.object[: error.start].decode(encoding, "ignore").count("\n")


def encoding_name(encoding: str) -> str:
    """The name that Python has for an encoding.

    Raises:
        UserError: if it knows none of this name, or it is no encoding of text.
    """
    try:
        known = codecs.lookup(encoding)
        "".encode(encoding)  # refuses what turns bytes into bytes
        if known.name in ("idna", "punycode"):  # of names, not of text
            raise LookupError(encoding)
    except (LookupError, ValueError, TypeError) as error:
        raise UserError(
            f"encoding {encoding!r}: unknown; there are utf-8, latin-1, cp1252, utf-16, gb18030 "
            "and the others of Python"
        ) from error
    return known.name


def unreadable(path: str | os.PathLike, error: Exception) -> UserError:
    """The one line that an error of the file system, or of a damaged archive, comes to."""
    if isinstance(error, FileNotFoundError):
        return UserError(f"{path}: no such file")
    if isinstance(error, IsADirectoryError) or os.path.isdir(path):
        return UserError(f"{path}: a folder, where a file is wanted")
    if isinstance(error, (gzip.BadGzipFile, EOFError, zlib.error)):
        return UserError(f"{path}: a damaged gzip file ({error})")
    return UserError(f"{path}: cannot read ({getattr(error, 'strerror', None) or error})")


def read_array(path: str | os.PathLike) -> Any:
    """The array in an `.npy` file, read without running any code in it.

    Raises:
        UserError: if the file is missing or not such a file.
    """
    import numpy as np

    try:
        with open(path, "rb") as stream:
            if not stream.read(6).startswith((b"\x93NUMPY", b"PK")):  # else numpy speaks of pickles
                raise ValueError("it does not begin as one")
        return np.load(path, allow_pickle=False)
    except FileNotFoundError as error:
        raise UserError(f"{path}: no such file") from error
    except Exception as error:  # there is no end to what damaged bytes can raise
        why = str(error) or type(error).__name__
        raise UserError(f"{path}: not an .npy file of numbers ({why})") from error

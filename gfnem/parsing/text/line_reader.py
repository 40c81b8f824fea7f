"""Text of any encoding and size, read in pieces of whole lines."""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from gfnem.errors import UserError
from gfnem.files import (
    READ_ERRORS,
    decode,
    encoding_name,
    lines_before,
    no_text,
    open_bytes,
    unreadable,
)

ENCODING_HINT = (
    "; convert it to UTF-8 or, to train on it, name its encoding: --dataset.encoding latin-1 "
    "or utf-16 or another (encoding='latin-1' in Python)"
)
#: bytes, or characters, that are read at once
BLOCK = 2 << 20


def whole_lines(stream: Any, file: Path, encoding: str) -> Iterator[bytes | str]:
    """The content of a stream in pieces that end where a line does, without a byte-order mark."""
    plain = encoding_name(encoding) == "utf-8"
    decoder = None if plain else codecs.getincrementaldecoder(encoding)()
    newline, mark = (b"\n", b"\xef\xbb\xbf") if plain else ("\n", "\ufeff")
    rest, first, lines = newline[:0], True, 1
    while True:
        try:
            data = raw = stream.read(BLOCK)
            if decoder is not None:
                data = decoder.decode(raw, final=not raw)
        except UnicodeError as error:
            line = lines + rest.count("\n") + lines_before(error, encoding)
            why = getattr(error, "reason", error)
            raise UserError(
                f"{file}, line {line} or later: not {encoding} text ({why}){ENCODING_HINT}"
            ) from error
        except READ_ERRORS as error:
            raise unreadable(file, error) from error
        if not (data or raw):
            break
        if first:
            data, first = data.removeprefix(mark), False
        if not plain and (wrong := no_text(data)):
            what, place = wrong
            line = lines + (rest + data).count("\n", 0, len(rest) + place)
            raise UserError(f"{file}, line {line}: {what}{ENCODING_HINT}")
        cut = data.rfind(newline) + 1
        if cut:
            whole = rest + data[:cut]
            lines += whole.count(newline)
            yield whole
            rest = data[cut:]
        else:
            rest += data
    if rest:
        yield rest


def text_lines(file: Path, encoding: str) -> Iterator[str]:
    """Lines with their ends, of any encoding."""
    with open_bytes(file) as stream:
        line, empty = 1, True
        for text in whole_lines(stream, file, encoding):
            empty = False
            if isinstance(text, bytes):
                text = decode(text, str(file), line, hint=ENCODING_HINT)
            line += text.count("\n")
            yield from re.findall(r"[^\n]*\n|[^\n]+", text)
    if empty:
        raise UserError(f"{file}: the file is empty")

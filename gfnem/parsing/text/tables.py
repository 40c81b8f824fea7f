"""Columns of tables in files: CSV, TSV, JSON, JSON lines, Parquet."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from gfnem.errors import UserError
from gfnem.files import read_bytes, read_text
from gfnem.parsing.text.line_reader import ENCODING_HINT, text_lines

TABLES = (".csv", ".tsv", ".jsonl", ".json", ".parquet")
#: rows of a Parquet file that are read at once
ROWS = 20_000


def rows_of(file: Path, column: str, encoding: str) -> Iterator[tuple[int, Any]]:
    """The values of a table's column, each with its row, from 1."""
    kind = Path(file.name.lower().removesuffix(".gz")).suffix
    read = {".csv": partial(_separated, ","), ".tsv": partial(_separated, "\t")}.get(
        kind, {".jsonl": _json_lines, ".json": _json, ".parquet": _parquet}.get(kind)
    )
    return read(file, column, encoding)


def columns(file: Path, encoding: str) -> list[str]:
    """The names of a table's columns."""
    try:
        next(rows_of(file, "", encoding), None)
    except _NoColumn as error:
        return error.columns
    return []


class _NoColumn(UserError):
    def __init__(self, file: Path, column: str, columns: Iterable[str]):
        self.columns = [str(name) for name in columns]
        super().__init__(f"{file}: no column {column!r} (there are: {' '.join(self.columns)})")


def _separated(separator: str, file: Path, column: str, encoding: str):
    limit = csv.field_size_limit(2**31 - 1)
    reader = csv.reader(text_lines(file, encoding), delimiter=separator, strict=True)
    try:
        header = next(reader, None)
        if header is None:
            raise UserError(f"{file}: the file is empty")
        if column not in header:
            raise _NoColumn(file, column, header)
        place = header.index(column)
        for number, row in enumerate(filter(None, reader), start=1):
            if place >= len(row):
                raise UserError(
                    f"{file}, line {reader.line_num}: {len(row)} fields, where the first line has "
                    f"{len(header)}"
                )
            yield number, row[place]
    except csv.Error as error:
        raise UserError(f"{file}, line {reader.line_num}: {error}") from error
    finally:
        csv.field_size_limit(limit)


def _json_lines(file: Path, column: str, encoding: str):
    number = 0
    for line, text in enumerate(text_lines(file, encoding), start=1):
        if not text.strip():
            continue
        number += 1
        yield number, _field(_parsed_json(text, f"{file}, line {line}"), file, column, line)


def _json(file: Path, column: str, encoding: str):
    text = read_text(file, encoding, ENCODING_HINT)
    try:
        content = json.loads(text)
    except (ValueError, RecursionError):
        yield from _json_lines(file, column, encoding)  # which the name does not rule out
        return
    if (
        isinstance(content, dict)
        and content
        and all(isinstance(value, list) for value in content.values())
    ):
        if column not in content:
            raise _NoColumn(file, column, content)
        yield from enumerate(content[column], start=1)
        return
    if not isinstance(content, list):
        raise UserError(
            f'{file}: a list of objects is wanted, as [{{"text": ...}}, ...], or one object a line'
        )
    for number, entry in enumerate(content, start=1):
        yield number, _field(entry, file, column, number)


def _parsed_json(text: str, where: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{where}: not JSON ({error})") from error


def _field(entry: Any, file: Path, column: str, line: int) -> Any:
    if not isinstance(entry, dict):
        raise UserError(f"{file}, entry {line}: not an object with columns: {str(entry)[:30]!r}")
    if column not in entry:
        raise _NoColumn(file, column, entry)
    return entry[column]


def _parquet(file: Path, column: str, encoding: str):
    import pyarrow as pa
    from pyarrow import parquet

    try:
        place = io.BytesIO(read_bytes(file)) if file.name.lower().endswith(".gz") else file
        table = parquet.ParquetFile(place)
        names = table.schema_arrow.names
        if column not in names:
            raise _NoColumn(file, column, names)
        number = 0
        for batch in table.iter_batches(ROWS, columns=[column]):
            for value in batch.column(0).to_pylist():
                number += 1
                yield number, value
    except (pa.ArrowException, OSError) as error:
        raise UserError(f"{file}: not a Parquet table ({str(error).splitlines()[0]})") from error

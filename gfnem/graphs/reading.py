"""Tables from files: named columns of numbers or of categories, refused in words where unfit."""

from __future__ import annotations

import csv
import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gfnem.errors import UserError
from gfnem.files import read_lines
from gfnem.graphs.dags import MOST

#: most different values of a column that counts as discrete by itself
_CODES = 8


@dataclass
class Table:
    """One table.

    Attributes:
        source: where it is from, in words.
        names: of the columns.
        values: `(rows, columns)` float64; codes where discrete.
        hand: `(rows, columns)` bool; cells that an experimenter set.
        levels: what the codes stand for, for each column; None where continuous.
    """

    source: str
    names: list[str]
    values: Tensor
    hand: Tensor
    levels: list[list[str]] | None = None

    @classmethod
    def of(cls, rows: Any, names: Sequence[str]) -> Table:
        """A table from an array `(rows, columns)` in memory.

        Raises:
            UserError: if it is not one of numbers with so many columns.
        """
        try:
            values = torch.as_tensor(rows, dtype=torch.float64)
        except (TypeError, ValueError, RuntimeError) as error:
            raise UserError(f"these rows: not an array of numbers ({error})") from error
        if values.dim() != 2 or values.shape[1] != len(names) or len(values) < 2:
            raise UserError(
                f"these rows: shape {tuple(values.shape)}, where two rows or more of {len(names)} "
                f"numbers are wanted ({', '.join(names)})"
            )
        if not torch.isfinite(values).all():
            raise UserError("these rows: a number is missing or not finite")
        return cls("these rows", list(names), values, torch.zeros_like(values).bool())

    def ordered(self, names: Sequence[str], levels: list[list[str]] | None) -> Table:
        """The same with its columns in the order of `names`, its codes those of `levels`.

        Raises:
            UserError: if a column or a value is not there.
        """
        if missing := [name for name in names if name not in self.names]:
            raise UserError(f"{self.source}: no column {missing[0]!r}; there are {self.names}")
        if (levels is None) != (self.levels is None):
            raise UserError(f"{self.source}: numbers where categories are wanted, or the reverse")
        place = [self.names.index(name) for name in names]
        values, hand = self.values[:, place], self.hand[:, place]
        if levels is not None and self.levels is not None:
            values = values.clone()
            for column, (at, known) in enumerate(zip(place, levels, strict=True)):
                own = self.levels[at]
                if new := [level for level in own if level not in known]:
                    raise UserError(
                        f"{self.source}: column {names[column]!r} has {new[0]!r}, which the table "
                        "that was trained on has not"
                    )
                code = torch.tensor([known.index(level) for level in own], dtype=values.dtype)
                values[:, column] = code[values[:, column].long()]
        return Table(self.source, list(names), values, hand, levels)


def read_table(
    path: str | os.PathLike,
    kind: str = "auto",
    interventions: str | None = None,
    drop: Sequence[str] = (),
    rows: int | None = None,
    keep: Sequence[str] | None = None,
) -> Table:
    """A table from a `.csv`, `.tsv`, `.txt` or `.parquet` file with a first line of names.

    Args:
        path: the file. Fields are separated by tabs where the first line has one, else by commas,
            else by white space.
        kind: "continuous", "discrete", or "auto": discrete where every column has few values.
        interventions: the column that names, in each row, the variables that were set, separated by
            `;`; empty where none was.
        drop: columns to leave out.
        rows: how many to read; all if None.
        keep: the columns to read, in this order; all that are left if None.

    Raises:
        UserError: naming file, line and column, if it cannot be read or is not such a table, or if
            a column is constant or there are too many.
    """
    names, cells, lines = _parquet(path) if str(path).endswith(".parquet") else _text(path)
    cells, lines = cells[:rows], lines[:rows]
    for name in [*drop, *(keep or ()), *([interventions] if interventions else [])]:
        if name not in names:
            raise UserError(f"{path}: no column {name!r}; there are {', '.join(names)}")
    if keep is None:
        keep = [name for name in names if name not in drop and name != interventions]
    kept = [names.index(name) for name in keep]
    if len(kept) < 2:
        apart = "" if drop else " (fields are separated by tabs, commas or white space)"
        raise UserError(f"{path}: {len(kept)} column; a graph takes two or more{apart}")
    if len(kept) > MOST:
        raise UserError(
            f"{path}: {len(kept)} columns, where at most {MOST} can be the nodes of a graph; leave "
            "some out with --dataset.drop"
        )
    if len(cells) < 2:
        raise UserError(f"{path}: {len(cells)} row(s); two or more are wanted")
    columns = [names[at] for at in kept]
    values, levels = _values(
        path, columns, [[row[at] for at in kept] for row in cells], lines, kind
    )
    for at, name in enumerate(columns):
        if (values[:, at] == values[0, at]).all():
            raise UserError(
                f"{path}: column {name!r} has one value in all rows; leave it out with "
                f"--dataset.drop '[\"{name}\"]'"
            )
    hand = torch.zeros(values.shape, dtype=torch.bool)
    if interventions:
        at = names.index(interventions)
        for row, (cell, line) in enumerate(zip(cells, lines, strict=True)):
            for name in filter(None, (part.strip() for part in str(cell[at] or "").split(";"))):
                if name not in columns:
                    raise UserError(f"{path}, {line}: {interventions} names no column: {name!r}")
                hand[row, columns.index(name)] = True
    return Table(str(path), columns, values, hand, levels)


def _text(path: str | os.PathLike) -> tuple[list[str], list[list[str]], list[str]]:
    """Names, cells and what to call each line of a text file."""
    lines = list(read_lines(path))
    first = next((line for line in lines if line.strip()), "")
    comma = "," in first or first.startswith('"')
    separator = "\t" if "\t" in first else "," if comma else None
    if separator is None:
        found = [(number, line.split()) for number, line in enumerate(lines, 1)]
    else:
        found = list(_separated(path, lines, separator))
    parts = [(number, row) for number, row in found if len(row) > 1 or any(row)]
    if not parts:
        raise UserError(f"{path}: the file is empty")
    line, names = parts[0]
    if twice := [name for at, name in enumerate(names) if not name or name in names[:at]]:
        raise UserError(
            f"{path}, line {line}: names of columns are wanted, all different, and "
            f"{twice[0]!r} is {'there twice' if twice[0] else 'none'}"
        )
    if all(_number(name) is not None for name in names):
        raise UserError(f"{path}, line {line}: numbers where names of columns are wanted")
    for number, row in parts[1:]:
        if len(row) != len(names):
            raise UserError(
                f"{path}, line {number}: {len(row)} fields, where the first line has {len(names)}"
            )
    return names, [row for _, row in parts[1:]], [f"line {number}" for number, _ in parts[1:]]


def _separated(path: Any, lines: list[str], separator: str) -> Iterator[tuple[int, list[str]]]:
    """Rows with the numbers of the lines they start in: a cell in quotes may hold line breaks."""
    reader = csv.reader((f"{line}\n" for line in lines), delimiter=separator, strict=True)
    start = 1
    try:
        for row in reader:
            yield start, [cell.strip() for cell in row]
            start = reader.line_num + 1
    except csv.Error as error:
        raise UserError(f"{path}, line {start}: {error}; are its quotes in pairs?") from error


def _parquet(path: str | os.PathLike) -> tuple[list[str], list[list[Any]], list[str]]:
    """Names, cells and what to call each row of a Parquet file."""
    import pyarrow as pa
    from pyarrow import parquet

    if not Path(path).exists():
        raise UserError(f"{path}: no such file")
    try:
        table = parquet.read_table(path)
    except (pa.ArrowException, OSError) as error:
        raise UserError(f"{path}: not a Parquet table ({str(error).splitlines()[0]})") from error
    names = [str(name) for name in table.column_names]
    columns = [column.to_pylist() for column in table.columns]
    cells = [list(row) for row in zip(*columns, strict=True)]
    return names, cells, [f"row {number}" for number in range(1, len(cells) + 1)]


def _values(
    path: Any, names: list[str], cells: list[list[Any]], lines: list[str], kind: str
) -> tuple[Tensor, list[list[str]] | None]:
    """`(rows, columns)` numbers, and the levels of their codes where they are discrete."""
    if kind not in ("auto", "continuous", "discrete"):
        raise UserError(f"kind is auto, continuous or discrete, not {kind!r}")
    for row, line in zip(cells, lines, strict=True):
        for name, cell in zip(names, row, strict=True):
            if cell is None or str(cell).strip().lower() in ("", "na", "nan", "null"):
                raise UserError(f"{path}, {line}: column {name!r} is empty; leave the row out")
    columns = list(zip(*cells, strict=True))
    if kind == "auto":
        few = all(len(set(map(str, column))) <= _CODES for column in columns)
        kind = "discrete" if few else "continuous"
    if kind == "discrete":
        levels = [sorted(set(map(str, column)), key=_order) for column in columns]
        codes = [
            [known.index(str(cell)) for cell in column]
            for column, known in zip(columns, levels, strict=True)
        ]
        return torch.tensor(codes, dtype=torch.float64).mT.contiguous(), levels
    numbers = []
    for row, line in zip(cells, lines, strict=True):
        numbers.append([_number(cell) for cell in row])
        for name, cell, number in zip(names, row, numbers[-1], strict=True):
            if number is None:
                raise UserError(
                    f"{path}, {line}: column {name!r}: {cell!r} is not a number below 1e15; leave "
                    "the row out, or the column with --dataset.drop"
                )
    return torch.tensor(numbers, dtype=torch.float64), None


def _number(cell: Any) -> float | None:
    try:
        number = float(cell)
    except (TypeError, ValueError):
        return None
    return number if math.isfinite(number) and abs(number) < 1e15 else None


def _order(level: str) -> tuple[int, float, str]:
    number = _number(level)
    return (1, 0.0, level) if number is None else (0, number, level)


def read_graph(path: str | os.PathLike, names: Sequence[str]) -> Tensor:
    """`(n, n)` bool: a graph over named columns, from a file with an edge `A --> B` a line.

    Lines may be numbered (`1. A --> B`); `A -> B`, `A,B` and `A B` are read too. Lines with one
    word or none, and titles that end with a colon, are passed over.

    Raises:
        UserError: naming file and line, if a name is no column or there is no edge at all.
    """
    adjacency = torch.zeros(len(names), len(names), dtype=torch.bool)
    for number, line in enumerate(read_lines(path), 1):
        words = line.replace("-->", " ").replace("->", " ").replace(",", " ").split()
        if words and words[0].rstrip(".").isdigit():
            words = words[1:]
        if len(words) < 2 or line.strip().endswith(":"):
            continue
        for word in words:
            if word not in names:
                raise UserError(f"{path}, line {number}: {word!r} is no column of the table")
        if len(words) != 2:
            raise UserError(f"{path}, line {number}: an edge joins two columns")
        adjacency[names.index(words[0]), names.index(words[1])] = True
    if not adjacency.any():
        raise UserError(f"{path}: no edge in it; one a line is wanted, as A --> B")
    return adjacency

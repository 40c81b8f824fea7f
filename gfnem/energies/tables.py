"""Tables in files: what is read of points, spins and rows of discrete values."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gfnem.errors import UserError
from gfnem.files import read_array, read_lines

#: what stands for a missing entry, beside nothing at all
MISSING = frozenset({"", "?", "na", "nan", "null", "none"})


def read_cells(path: Any) -> Iterator[tuple[int, list[str]]]:
    """The lines of a `.csv` or text file with their numbers, as cells; empty ones are left out.

    Raises:
        UserError: naming file and line, if the file cannot be read or lines differ in length.
    """
    width = None
    for number, line in enumerate(read_lines(path), 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        if Path(path).suffix == ".csv" or "," in line:
            cells = [cell.strip() for cell in next(csv.reader([line]))]
        else:
            cells = line.split()
        if width is not None and len(cells) != width:
            raise UserError(
                f"{path}, line {number}: {len(cells)} columns, where others have {width}"
            )
        width = len(cells)
        yield number, cells


def as_number(cell: str) -> float | None:
    """A cell's number, NaN where it is missing; None for a text."""
    if cell.lower() in MISSING:
        return math.nan
    try:
        number = float(cell)
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def read_numbers(source: Any, what: str) -> Tensor:
    """`(rows, columns)` doubles of a file (`.npy`, `.csv`, text) or an array; NaN where missing.

    A first line of names is passed over.

    Args:
        source: the path or the array.
        what: what a row is, for messages.

    Raises:
        UserError: naming file, line and cause.
    """
    if isinstance(source, (str, Path)) and Path(source).suffix != ".npy":
        rows = []
        for number, cells in read_cells(source):
            values = [as_number(cell) for cell in cells]
            if any(value is None for value in values):
                if not rows and all(value is None for value in values):
                    continue  # the names of the columns
                text = next(
                    cell for cell, value in zip(cells, values, strict=True) if value is None
                )
                raise UserError(f"{source}, line {number}: {text!r} is not a finite number")
            rows.append(values)
        array = np.array(rows)
        name = str(source)
    else:
        path = isinstance(source, (str, Path))
        array, name = (read_array(source), str(source)) if path else (source, f"these {what}s")
    try:
        table = torch.as_tensor(np.asarray(array, dtype=np.float64))
    except (TypeError, ValueError) as error:
        raise UserError(f"{name}: not an array of numbers ({error})") from error
    if table.dim() != 2 or not table.numel():
        shown = "nothing in it" if not table.numel() else f"shape {tuple(table.shape)}"
        raise UserError(f"{name}: {shown}, where rows of numbers are wanted, a {what} each")
    if table.isinf().any():
        raise UserError(f"{name}: row {int(table.isinf().any(1).nonzero()[0]) + 1} is not finite")
    return table


def read_points(source: Any) -> Tensor:
    """`(points, 2)` doubles; NaN for a missing coordinate.

    Raises:
        UserError: if there are not two columns.
    """
    points = read_numbers(source, "point")
    if points.shape[1] != 2:
        name = source if isinstance(source, (str, Path)) else "these points"
        raise UserError(f"{name}: {points.shape[1]} columns, where points in the plane have two")
    return points


def read_levels(source: Any) -> tuple[list[str] | None, list[tuple[int, list[str]]]]:
    """Names of the columns and rows of texts, with their line numbers, of a `.csv` file or a list.

    A file's first line names the columns. From Python, a list of rows has no names.

    Raises:
        UserError: naming file and line, if the file cannot be read or lines differ in length.
    """
    if not isinstance(source, (str, Path)):
        rows = [["" if v is None else str(v) for v in row] for row in source]
        return None, list(enumerate(rows, 1))
    lines = list(read_cells(source))
    if not lines:
        raise UserError(f"{source}: nothing in it")
    return lines[0][1], lines[1:]

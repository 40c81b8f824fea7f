"""How plain data become rows of small whole numbers, and rows plain data again."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gfnem.component import Component
from gfnem.energies.codes import Grid
from gfnem.errors import UserError
from gfnem.ranges import Count, Finite


class Coding(Component, ABC):
    """Rows `(rows, visible)` int64 of one kind of data; -1 is a missing entry.

    Attributes:
        visible: entries of a row.
        values: values of each.
        counts: how many of the values each entry can take; None where all can take all.
    """

    visible: int
    values: int
    counts: list[int] | None = None

    @abstractmethod
    def read(self, source: Any) -> Tensor:
        """`(rows, visible)` of a path or of plain data.

        Raises:
            UserError: naming file, line and cause.
        """

    @abstractmethod
    def shown(self, rows: Tensor) -> list[Any]:
        """Plain data of rows `(rows, visible)`."""


class PointCoding(Coding):
    """Points in a rectangle, as the interleaved bits of their coordinates' Gray codes.

    Args:
        bits: of a coordinate.
        low: the rectangle's lower corner.
        high: its upper corner.
    """

    def __init__(self, bits: Count, low: Sequence[Finite], high: Sequence[Finite]):
        self.bits, self.visible, self.values = bits, 2 * bits, 2
        corners = (torch.tensor(corner, dtype=torch.double) for corner in (low, high))
        self.grid = Grid(bits, *corners)

    def read(self, source: Any) -> Tensor:
        """Points of a file or of an array."""
        from gfnem.energies.tables import read_points

        points = read_points(source)
        missing = points.isnan().repeat_interleave(self.bits, 1)
        rows = self.grid.encode(points.nan_to_num())
        return rows.masked_fill(missing.unflatten(1, (2, self.bits)).mT.flatten(1), -1)

    def shown(self, rows: Tensor) -> list[Any]:
        """`[x, y]`, the middle of the cell; null for a coordinate that is missing."""
        places = self.grid.decode(rows.clamp(min=0).cpu())
        missing = (rows.cpu() < 0).unflatten(-1, (self.bits, 2)).any(-2)
        return [
            [None if gone else value for value, gone in zip(*pair, strict=True)]
            for pair in zip(places.tolist(), missing.tolist(), strict=True)
        ]


class PixelCoding(Coding):
    """Images of black and white pixels, row after row.

    Args:
        height, width: of an image.
    """

    def __init__(self, height: Count, width: Count):
        self.height, self.width = height, width
        self.visible, self.values = height * width, 2

    def read(self, source: Any) -> Tensor:
        """Images of an `.npy` or `.npz` file (the test images, where it has some), or an array."""
        from gfnem.energies.images import read_images

        images = read_images(source)
        found = images[0] if images[1] is None else images[1]
        if tuple(found.shape[1:]) != (self.height, self.width):
            height, width = found.shape[1:]
            raise UserError(
                f"{source if isinstance(source, (str, Path)) else 'these'}: images of "
                f"{height}x{width}, where the run knows {self.height}x{self.width}"
            )
        return found.flatten(1)

    def shown(self, rows: Tensor) -> list[Any]:
        """Rows of 0 and 1; null for a pixel that is missing."""
        return _nulls(rows.unflatten(1, (self.height, self.width)).tolist())


class LevelCoding(Coding):
    """Rows of a table whose columns have a few levels each.

    Args:
        names: of the columns.
        levels: the values that occur in each column, as texts, in order.
    """

    def __init__(self, names: Sequence[str], levels: Sequence[Sequence[str]]):
        self.names, self.levels = list(names), [list(each) for each in levels]
        counts = [len(each) for each in self.levels]
        self.visible, self.values = len(counts), max(2, *counts)
        self.counts = counts if min(counts) < self.values else None

    def read(self, source: Any) -> Tensor:
        """Rows of a `.csv` file with the run's columns, or a list of them."""
        from gfnem.energies.tables import MISSING, read_levels

        name = source if isinstance(source, (str, Path)) else "these rows"
        names, rows = read_levels(source)
        if names is not None and names != self.names:
            raise UserError(f"{name}: columns {', '.join(names)}; the run's are "
                            f"{', '.join(self.names)}")  # fmt: skip
        place = [{level: code for code, level in enumerate(each)} for each in self.levels]
        coded = []
        for number, cells in rows:
            if len(cells) != self.visible:
                raise UserError(f"{name}, line {number}: {len(cells)} columns, not {self.visible}")
            for cell, known, column in zip(cells, place, self.names, strict=True):
                if cell not in known and cell.lower() not in MISSING:
                    raise UserError(
                        f"{name}, line {number}: {cell!r} is no value of {column} in the run's "
                        f"data ({', '.join(known)})"
                    )
            coded.append([known.get(cell, -1) for cell, known in zip(cells, place, strict=True)])
        if not coded:
            raise UserError(f"{name}: no rows in it")
        return torch.tensor(coded)

    def shown(self, rows: Tensor) -> list[Any]:
        """A mapping of column to level for each row; null for what is missing."""
        return [
            {
                name: None if code < 0 else levels[code]
                for name, levels, code in zip(self.names, self.levels, row, strict=True)
            }
            for row in rows.tolist()
        ]


class SpinCoding(Coding):
    """Configurations of spins, or of sites with a few states.

    Args:
        visible: how many there are.
        states: the numbers that stand for the values, in order, such as -1 and 1.
    """

    def __init__(self, visible: Count, states: Sequence[Finite]):
        self.visible, self.states, self.values = visible, list(states), len(states)

    def read(self, source: Any) -> Tensor:
        """A file of one configuration a row, or an array."""
        from gfnem.energies.tables import read_numbers

        name = source if isinstance(source, (str, Path)) else "these configurations"
        table = read_numbers(source, "configuration")
        if table.shape[1] != self.visible:
            raise UserError(f"{name}: {table.shape[1]} spins, where the run knows {self.visible}")
        return coded(table, self.states, str(name))

    def shown(self, rows: Tensor) -> list[Any]:
        """The states; null for what is missing."""
        return [[None if v < 0 else self.states[v] for v in row] for row in rows.tolist()]


def coded(table: Tensor, states: Sequence[float], name: str) -> Tensor:
    """`(rows, columns)` int64 places of numbers among `states`; -1 for NaN.

    Raises:
        UserError: naming the row of a number that is none of them.
    """
    same = table.unsqueeze(-1) == torch.tensor(states, dtype=table.dtype)
    known = same.any(-1) | table.isnan()
    if not known.all():
        row, column = (~known).nonzero()[0].tolist()
        wanted = ", ".join(f"{state:g}" for state in states)
        raise UserError(f"{name}: {table[row, column]:g} in row {row + 1} is none of {wanted}")
    return torch.where(table.isnan(), -1, same.int().argmax(-1))


def _nulls(value: Any) -> Any:
    if isinstance(value, list):
        return [_nulls(entry) for entry in value]
    return None if value < 0 else value

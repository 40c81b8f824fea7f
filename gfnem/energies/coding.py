"""How plain data become rows of small whole numbers, and rows plain data again."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from gfnem.component import Component
from gfnem.energies.codes import Grid
from gfnem.ranges import Count, Finite


class Coding(Component, ABC):
    """Rows `(rows, visible)` int64 of one kind of data; -1 is a missing entry.

    Attributes:
        visible: entries of a row.
        values: values of each.
    """

    visible: int
    values: int

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

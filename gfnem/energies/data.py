"""Data whose observations are rows of small whole numbers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

import torch
from torch import Tensor

from gfnem.data import DataModule, digest
from gfnem.energies.coding import Coding, PointCoding
from gfnem.energies.point_sets import REACH, SETS, Mixture
from gfnem.errors import UserError
from gfnem.ranges import Count, Range, Seed


class Rows(DataModule):
    """Rows of values of a few kinds; a subclass reads them.

    Attributes:
        coding: how plain data become rows.
        rows: `(rows, visible)` to train on.
        held_out: likewise, to measure with.
    """

    world = "energies"
    coding: Coding
    rows: Tensor
    held_out: Tensor
    source: str

    def __init__(
        self, block: Count, order: str, batch_size: Count, interval: Count, seed: Seed | None
    ):
        super().__init__(batch_size, interval, seed)
        self.block, self.order = block, order

    def facts(self) -> dict[str, Any]:
        """Variables of a row, values of each, and how they are to be written."""
        return {
            "visible": self.coding.visible,
            "values": self.coding.values,
            "block": self.block,
            "order": self.order,
        }

    def metadata(self) -> dict[str, Any]:
        """How new data become rows."""
        return {"coding": self.coding.spec()}

    def fingerprint(self) -> dict[str, str]:
        """Digests of the rows."""
        return {"training": digest(self.rows), "held_out": digest(self.held_out)}

    def sizes(self) -> Sequence[int]:
        """All rows are alike."""
        return [1] * len(self.rows)

    def batch(self, indices: Sequence[int]) -> Tensor:
        """`(batch, visible)` int64."""
        return self.rows[torch.as_tensor(list(indices))].long()

    def validation_batches(self) -> list[Tensor]:
        """The rows held out."""
        return [part.long() for part in self.held_out.split(2000)]

    def summary(self) -> str:
        """How many rows there are, and of what."""
        return (
            f"{len(self.rows):,} rows ({self.source}), {len(self.held_out):,} held out; "
            f"{self.coding.visible} variables of {self.coding.values} values"
        )


class Points(Rows):
    """Points in the plane as rows of bits.

    Args:
        path: the name of a set that is generated (2spirals, 8gaussians, circles, two_moons,
            pinwheel, swissroll, checkerboard), or a file of two columns (`.npy`, `.csv`, or text).
        bits: of each coordinate.
        points: how many to generate.
        held_out: points held out: so many new ones of a generated set, or a tenth of a file's at
            most.
        block: bits that the sampler writes at a time.
        order: "fixed", from coarse to fine, or "any".
        batch_size: points in a batch.
        interval: updates between two validations.
        seed: of the points and their order; that of the run if None.
    """

    def __init__(
        self,
        path: str | None = None,
        bits: Annotated[int, Range(1, 30)] = 8,
        points: Count = 500_000,
        held_out: Count = 10_000,
        block: Count = 4,
        order: str = "fixed",
        batch_size: Count = 128,
        interval: Count = 500,
        seed: Seed | None = None,
    ):
        super().__init__(block, order, batch_size, interval, seed)
        self.source = path or "two_moons"
        self.density: Mixture | None = None
        generator = torch.Generator().manual_seed(self.seed)
        if self.source in SETS:
            self.density = SETS[self.source]()
            self.coding = PointCoding(bits, [-REACH, -REACH], [REACH, REACH])
            rows = [
                self.coding.grid.encode(self.density.sample(count, generator)).to(torch.int8)
                for count in (points, held_out)
            ]
            self.rows, self.held_out = rows
        else:
            raise UserError(f"{path}: not the name of a set ({', '.join(SETS)})")

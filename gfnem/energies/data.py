"""Data whose observations are rows of small whole numbers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import torch
from torch import Tensor

from gfnem.data import DataModule, digest
from gfnem.energies.coding import (
    Coding,
    LevelCoding,
    PixelCoding,
    PointCoding,
    SpinCoding,
    coded,
)
from gfnem.energies.images import bars_and_stripes, load_digits, read_images
from gfnem.energies.lattices import simulate
from gfnem.energies.point_sets import REACH, SETS, Mixture
from gfnem.energies.tables import MISSING, as_number, read_levels, read_numbers, read_points
from gfnem.errors import UserError
from gfnem.ranges import Count, Finite, Range, Seed


class Rows(DataModule[Tensor]):
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
    #: rows with missing entries, which training leaves out, and variables that never change
    left_out: int = 0
    constant: int = 0

    def __init__(
        self, block: Count, order: str, batch_size: Count, interval: Count, seed: Seed | None
    ):
        super().__init__(batch_size, interval, seed)
        self.block, self.order = block, order

    def _split(self, rows: Tensor, held_out: int) -> None:
        """Keeps complete rows, a part of them to measure with."""
        complete = rows[(rows >= 0).all(1)]
        if len(complete) < 2:
            raise UserError(
                f"{self.source}: {len(complete)} rows without missing entries, where two at least "
                "are needed"
            )
        order = torch.randperm(len(complete), generator=torch.Generator().manual_seed(self.seed))
        count = min(held_out, max(len(complete) // 10, 1))
        self._keep(complete[order[count:]], complete[order[:count]])
        self.left_out = len(rows) - len(complete)

    def _keep(self, rows: Tensor, held_out: Tensor) -> None:
        if (fixed := (rows == rows[0]).all(0)).all():
            raise UserError(f"{self.source}: all {len(rows)} rows are the same: nothing to learn")
        self.constant = int(fixed.sum())
        self.rows, self.held_out = rows.to(torch.int8), held_out.to(torch.int8)

    def facts(self) -> dict[str, Any]:
        """Variables of a row, values of all and of each, and how they are to be written."""
        return {
            "visible": self.coding.visible,
            "values": self.coding.values,
            "counts": self.coding.counts,
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
        text = (
            f"{len(self.rows):,} rows ({self.source}), {len(self.held_out):,} held out; "
            f"{self.coding.visible} variables of {self.coding.values} values"
        )
        if self.left_out:
            text += f"; {self.left_out:,} rows with missing entries are left out (infer fills them)"
        if self.constant:
            text += f"; {self.constant} variables never change"
        return text


class Points(Rows):
    """Points in the plane as rows of bits.

    Args:
        path: the name of a set that is generated (2spirals, 8gaussians, circles, two_moons,
            pinwheel, swissroll, checkerboard), or a file of two columns (`.npy`, `.csv`, or text).
        bits: of each coordinate.
        points: how many to generate.
        held_out: points held out: so many new ones of a generated set; of a file, a tenth at most.
        block: bits that the sampler writes at a time.
        order: "fixed", from coarse to fine, or "any".
        batch_size: points in a batch.
        interval: updates between two validations.
        seed: of the points and their order; that of the run if None.
    """

    coding: PointCoding

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
        if self.source in SETS:
            generator = torch.Generator().manual_seed(self.seed)
            self.density = SETS[self.source]()
            self.coding = PointCoding(bits, [-REACH, -REACH], [REACH, REACH])
            self.rows, self.held_out = (
                self._encoded(self.density.sample(count, generator)) for count in (points, held_out)
            )
            return
        if Path(self.source).suffix == "" and not Path(self.source).exists():
            raise UserError(f"{path}: neither a file nor the name of a set ({', '.join(SETS)})")
        found = read_points(self.source)
        known = found[~found.isnan().any(1)]
        low, high = (known.amin(0), known.amax(0)) if len(known) else (found[0], found[0])
        if not (high > low).all():
            raise UserError(f"{path}: two different numbers at least are needed in each column")
        margin = 0.05 * (high - low)
        self.coding = PointCoding(bits, (low - margin).tolist(), (high + margin).tolist())
        self._split(self.coding.read(found), held_out)

    def _encoded(self, points: Tensor) -> Tensor:
        parts = points.split(100_000)
        return torch.cat([self.coding.grid.encode(part).to(torch.int8) for part in parts])


class BinaryImages(Rows):
    """Images of black and white pixels as rows of bits.

    Args:
        path: `digits`, scikit-learn's 8x8 digits; `bars_and_stripes`, the 30 patterns of 4x4
            pixels; or an `.npz` file with arrays `x_train` and maybe `x_test`
            `(images, height, width)`, or an `.npy` file of one. A pixel is white above half of the
            brightest value.
        held_out: images held out where the source has no test images, a tenth at most.
        block: pixels that the sampler writes at a time.
        order: "fixed", row by row, or "any".
        batch_size: images in a batch.
        interval: updates between two validations.
        seed: of the order and of what is held out; that of the run if None.
    """

    coding: PixelCoding

    def __init__(
        self,
        path: str | None = None,
        held_out: Count = 1000,
        block: Count = 1,
        order: str = "fixed",
        batch_size: Count = 100,
        interval: Count = 500,
        seed: Seed | None = None,
    ):
        super().__init__(block, order, batch_size, interval, seed)
        self.source = path or "digits"
        if self.source == "digits":
            train, test = load_digits()
        elif self.source == "bars_and_stripes":
            train = test = bars_and_stripes(4).unflatten(1, (4, 4))
        else:
            train, test = read_images(self.source)
        self.coding = PixelCoding(*train.shape[1:])
        if test is None:
            self._split(train.flatten(1), held_out)
        else:
            self._keep(train.flatten(1), test.flatten(1))


class Spins(Rows):
    """Configurations of spins, or of sites with a few states.

    Args:
        path: a file of one configuration a row (`.npy`, `.csv` or text), of two or a few different
            numbers. None simulates a square lattice whose edges are joined.
        side: of the lattice simulated, an even number, 4 or more.
        coupling: of neighbours, each pair counted twice: the critical one is 0.2203.
        values: states of a site, 2 for spins.
        count: configurations to simulate.
        held_out: further ones to measure with; of a file, a tenth at most.
        block: sites that the sampler writes at a time.
        order: "fixed", row by row, or "any".
        batch_size: configurations in a batch.
        interval: updates between two validations.
        seed: of the simulation and of the order; that of the run if None.
    """

    coding: SpinCoding

    def __init__(
        self,
        path: str | None = None,
        side: Count = 6,
        coupling: Finite = 0.1,
        values: Annotated[int, Range(2)] = 2,
        count: Count = 2000,
        held_out: Count = 500,
        block: Count = 1,
        order: str = "fixed",
        batch_size: Count = 128,
        interval: Count = 500,
        seed: Seed | None = None,
    ):
        super().__init__(block, order, batch_size, interval, seed)
        if path is None:
            self.source = f"{side}x{side} lattice simulated at coupling {coupling:g}"
            states = [-1.0, 1.0] if values == 2 else [float(value) for value in range(values)]
            self.coding = SpinCoding(side**2, states)
            drawn = simulate(side, coupling, count + held_out, 200, self.seed, values)
            self._keep(drawn[:count], drawn[count:])
            return
        self.source = path
        table = read_numbers(path, "configuration")
        found = table[~table.isnan()].unique()
        if not 2 <= len(found) <= 32:
            raise UserError(f"{path}: {len(found)} different numbers, where 2 to 32 are wanted")
        self.coding = SpinCoding(table.shape[1], found.tolist())
        self._split(coded(table, found.tolist(), path), held_out)


class TableRows(Rows):
    """A table whose columns have a few levels each.

    Args:
        path: a `.csv` file whose first line names the columns. Cells are texts; an empty one, `?`
            or `NA` is missing. Rows with missing cells are left out of training, and `infer` fills
            them.
        most: levels that a column may have.
        held_out: rows held out, a tenth at most.
        block: columns that the sampler writes at a time.
        order: "fixed", from left to right, or "any", which an `AssignmentPolicy` can do.
        batch_size: rows in a batch.
        interval: updates between two validations.
        seed: of what is held out and of the order; that of the run if None.
    """

    coding: LevelCoding

    def __init__(
        self,
        path: str | None = None,
        most: Annotated[int, Range(2)] = 20,
        held_out: Count = 1000,
        block: Count = 1,
        order: str = "fixed",
        batch_size: Count = 128,
        interval: Count = 500,
        seed: Seed | None = None,
    ):
        super().__init__(block, order, batch_size, interval, seed)
        if path is None:
            raise UserError("a table is needed: --data FILE.csv")
        self.source = path
        names, rows = read_levels(path)
        assert names is not None
        if len(set(names)) < len(names) or all(as_number(name) is not None for name in names):
            raise UserError(
                f"{path}: its first line names the columns, all of them different, and not by "
                f"numbers; here it is {','.join(names)}"
            )
        if not rows:
            raise UserError(f"{path}: no row under the names of the columns")
        levels = []
        for column, name in enumerate(names):
            cells = {cells[column] for _, cells in rows} - {""}
            found = sorted((cell for cell in cells if cell.lower() not in MISSING), key=_in_order)
            if not 2 <= len(found) <= most:
                number = "every row has the same value, or none" if len(found) < 2 else (
                    f"{len(found)} different values, where {most} are the most (dataset.most)"
                )  # fmt: skip
                raise UserError(f"{path}: column {name}: {number}")
            levels.append(found)
        self.coding = LevelCoding(names, levels)
        self._split(self.coding.read(Path(path)), held_out)


def _in_order(cell: str) -> tuple[bool, float, str]:
    number = as_number(cell)
    return number is None, 0.0 if number is None else number, cell

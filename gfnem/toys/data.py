"""Nothing is observed: the observations are the numbers of independent copies."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gfnem.data import DataModule
from gfnem.errors import UserError
from gfnem.files import read_lines
from gfnem.ranges import Count, Seed


class Copies(DataModule[Tensor]):
    """The numbers `0 .. copies - 1`, all of them in each update.

    Args:
        copies: samplers that are trained side by side, independent of each other.
        interval: updates between two validations.
        seed: of the order, which does not matter here.
    """

    world = "toys"

    def __init__(self, copies: Count = 1, interval: Count = 100, seed: Seed | None = None):
        super().__init__(copies, interval, seed)
        self.x = torch.arange(copies)

    def facts(self) -> dict[str, Any]:
        """How many there are."""
        return {"copies": len(self.x)}

    def sizes(self) -> Sequence[int]:
        """All alike."""
        return [1] * len(self.x)

    def batch(self, indices: Sequence[int]) -> Tensor:
        """`(copies,)` int64."""
        return self.x[list(indices)]

    def validation_batches(self) -> list[Tensor]:
        """All of them."""
        return [self.x]

    def metadata(self) -> dict[str, Any]:
        """How many there are."""
        return {"copies": len(self.x)}

    def summary(self) -> str:
        """How many there are."""
        return f"nothing is observed; copies of the sampler: {len(self.x)}"

    def draw(self, module: Any, folder: Any) -> list[str]:
        """The exact distribution of the first copy beside the target, in two dimensions."""
        from gfnem.toys.drawing import draw_all

        return draw_all(module, Path(folder))


def read_copies(path: str | Path, copies: int) -> Tensor:
    """`(rows,)` numbers of copies from a file with one a line.

    Raises:
        UserError: naming file and line, if a line holds anything else, or there is none.
    """
    found = []
    for number, line in enumerate(read_lines(path), 1):
        text = line.strip()
        if not text:
            continue
        if not text.isdecimal() or int(text) >= copies:
            raise UserError(
                f"{path}, line {number}: the number of a copy, from 0 to {copies - 1}, is wanted, "
                f"not {text[:40]!r}"
            )
        found.append(int(text))
    if not found:
        raise UserError(f"{path}: no number of a copy in it")
    return torch.tensor(found)

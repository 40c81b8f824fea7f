"""An energy of points in the plane whose sum over every cell of the grid is cheap."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from gfnem.energies.models import AssignmentEnergy
from gfnem.energies.space import as_numbers, digits
from gfnem.ranges import Count, Fact

#: most values of a coordinate of which all pairs are looked at
_CELLS = 2**12


class TwoTowers(AssignmentEnergy):
    """`log p~ = f(x)' g(y) + a(x) + b(y)` of two coordinates, whose bits take turns in a row.

    Each coordinate has a perceptron of its own. All pairs of values together cost one product of
    matrices, so that the exact log Z, and its gradient, cost little more than a batch does.

    Args:
        visible: bits of a row, an even number.
        values: 2.
        hidden: width of each perceptron's two hidden layers.
        rank: length of `f` and `g`.
    """

    def __init__(
        self,
        visible: Fact = None,
        values: Count | None = None,
        hidden: Count = 64,
        rank: Count = 32,
    ):
        super().__init__(visible, 2)
        if visible % 2 or values not in (None, 2):
            raise ValueError(f"{visible} variables of {values} values are no bits of two numbers")
        self.towers = nn.ModuleList(
            nn.Sequential(
                nn.Linear(visible // 2, hidden),
                nn.SiLU(),
                nn.Linear(hidden, hidden),
                nn.SiLU(),
                nn.Linear(hidden, rank + 1),
            )
            for _ in range(2)
        )

    def ends(self, first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
        """`(..., rank + 2)` of the bits of either coordinate; their inner product is log p~."""
        (left, a), (right, b) = (
            tower(bits).tensor_split([-1], -1)
            for tower, bits in zip(self.towers, (first, second), strict=True)
        )
        one = torch.ones_like(a)
        return torch.cat([left, a, one], -1), torch.cat([right, one, b], -1)

    def score(self, features: Tensor) -> Tensor:
        """`(...)` nats."""
        left, right = self.ends(features[..., 0::2], features[..., 1::2])
        return (left * right).sum(-1)

    def offers(self, hook: str) -> bool:
        """The partition sum is exact up to 12 bits a coordinate."""
        if hook == "log_partition":
            return 2 ** (self.visible // 2) <= _CELLS
        return super().offers(hook)

    def log_partition(self) -> Tensor:
        """`()` exact log Z."""
        self._needs("log_partition")
        device = self.towers[0][0].weight.device
        every = as_numbers(digits(2, self.visible // 2, device), 2).to(self.towers[0][0].weight)
        left, right = self.ends(every, every)
        return (left @ right.T).flatten().logsumexp(0)

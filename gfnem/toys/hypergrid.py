"""A grid of cells, walked upwards along its axes until it is stopped."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import one_hot, pad

from gfnem.batched import Batched
from gfnem.ranges import Count, Fact, Positive
from gfnem.space import LatentSpace
from gfnem.toys.cells import Cells
from gfnem.toys.reward import ToyReward


@dataclass
class Place(Batched):
    """Where a walk is.

    Attributes:
        cell: `(batch, samples, dimensions)` int64 coordinates from 0.
        stopped: `(batch, samples)` bool.
    """

    cell: Tensor
    stopped: Tensor


class Hypergrid(Cells, LatentSpace[Tensor, Tensor, Place]):
    """`z` is a cell `(dimensions,)` of a grid; a trajectory goes there from the origin and stops.

    Action `d` adds 1 to coordinate `d`, action `dimensions` stops; the backward action of the same
    number undoes it. The number of trajectories to a cell is a multinomial coefficient.

    Args:
        side: cells along each axis.
        dimensions: axes.
    """

    def __init__(self, side: Fact = None, dimensions: Fact = None):
        self.side, self.dimensions = side, dimensions

    def initial_state(self, x: Tensor, samples: int) -> Place:
        """The origin."""
        cell = torch.zeros(len(x), samples, self.dimensions, dtype=torch.long, device=x.device)
        return Place(cell, cell.new_zeros(cell.shape[:2], dtype=torch.bool))

    def final_state(self, x: Tensor, z: Tensor) -> Place:
        """Stopped there."""
        return Place(z, z.new_ones(z.shape[:2], dtype=torch.bool))

    def is_final(self, state: Place) -> Tensor:
        """Whether it is stopped."""
        return state.stopped

    def is_initial(self, state: Place) -> Tensor:
        """Whether it is at the origin, and goes on."""
        return ~state.stopped & (state.cell == 0).all(2)

    def forward_mask(self, state: Place) -> Tensor:
        """`(batch, samples, dimensions + 1)`: axes that go on, and to stop."""
        return pad(state.cell < self.side - 1, (0, 1), value=True) & ~state.stopped[..., None]

    def backward_mask(self, state: Place) -> Tensor:
        """`(batch, samples, dimensions + 1)`: axes that were moved along, or the stop."""
        stopped = state.stopped[..., None]
        return torch.cat([(state.cell > 0) & ~stopped, stopped], 2)

    def _moved(self, state: Place, action: Tensor, by: int) -> Tensor:
        step = one_hot(action, self.dimensions + 1)[..., :-1]
        return (state.cell + by * step).clamp(0, self.side - 1)

    def step(self, state: Place, action: Tensor) -> Place:
        """Goes along an axis, or stops."""
        return Place(self._moved(state, action, 1), state.stopped | (action == self.dimensions))

    def unstep(self, state: Place, action: Tensor) -> Place:
        """Goes back along an axis, or goes on."""
        return Place(self._moved(state, action, -1), state.stopped & (action != self.dimensions))


class HypergridReward(ToyReward):
    """The usual reward of hypergrids, which has a mode in each corner (Bengio et al. 2021).

    `R(z) = base + 0.5 [all |u| > 0.25] + 2 [all 0.3 < |u| < 0.4]`, where `u = z / (side - 1) - 0.5`
    along each axis (Bengio et al. 2021, arXiv 2106.04399, section 4.1).

    Args:
        side: cells along each axis.
        dimensions: axes.
        base: the reward away from the modes; the smaller it is, the harder they are to find.
    """

    def __init__(self, side: Count = 8, dimensions: Count = 2, base: Positive = 0.1):
        super().__init__()
        self.side, self.dimensions, self.base = side, dimensions, base

    def facts(self) -> dict[str, Any]:
        """The size."""
        return {"side": self.side, "dimensions": self.dimensions}

    def log_reward(self, z: Tensor) -> Tensor:
        """`(...)` nats of cells `(..., dimensions)`."""
        away = (z / max(self.side - 1, 1) - 0.5).abs()
        return (self.base + 0.5 * (away > 0.25).all(-1) + 2.0 * self._at_mode(away)).log()

    def partial_log_joint(self, x: Tensor, state: Place) -> Tensor:
        """`(batch, samples)` what a walk earns if it stops here."""
        return self.log_reward(state.cell)

    def _at_mode(self, away: Tensor) -> Tensor:
        return ((away > 0.3) & (away < 0.4)).all(-1)

    def every(self, device: torch.device | str = "cpu") -> Tensor:
        """`(side ** dimensions, dimensions)` all cells, the first coordinate slowest."""
        axis = torch.arange(self.side, device=device)
        return torch.cartesian_prod(*[axis] * self.dimensions).reshape(-1, self.dimensions)

    def mode_of(self, z: Tensor) -> Tensor:
        """`(...)` int64 the corner of each cell that belongs to a mode; -1 for all others."""
        away = (z / max(self.side - 1, 1) - 0.5).abs()
        corner = ((2 * z >= self.side) * 2 ** torch.arange(z.shape[-1], device=z.device)).sum(-1)
        return torch.where(self._at_mode(away), corner, -1)

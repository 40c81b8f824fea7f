"""Grids of codes, filled cell by cell: in raster order, or in any order."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor

from gfnem.batched import Batched
from gfnem.ranges import Fact, Range
from gfnem.space import LatentSpace

EMPTY = -1


@dataclass
class GridState(Batched):
    """Partly filled grids.

    Attributes:
        codes: `(batch, samples, cells)` int64, cells in raster order; `EMPTY` where unfilled.
    """

    codes: Tensor


#: how many codes a dictionary has, which the data tell
Codes = Annotated[int, Range(2, needed=True)] | None


class _Grid(LatentSpace[Tensor, Tensor, GridState]):
    def __init__(self, rows: Fact = None, columns: Fact = None, codes: Codes = None):
        self.rows, self.columns, self.codes = rows, columns, codes
        self.cells = rows * columns

    def initial_state(self, x: Tensor, samples: int) -> GridState:
        """Empty grids."""
        shape = (len(x), samples, self.cells)
        return GridState(torch.full(shape, EMPTY, dtype=torch.long, device=x.device))

    def final_state(self, x: Tensor, z: Tensor) -> GridState:
        """Full grids holding the codes `z` `(batch, samples, cells)`."""
        return GridState(z)

    def to_latent(self, x: Tensor, state: GridState) -> Tensor:
        """The codes, `(batch, samples, cells)` int64 in raster order."""
        return state.codes

    def is_final(self, state: GridState) -> Tensor:
        """Whether every cell is filled."""
        return (state.codes != EMPTY).all(2)

    def is_initial(self, state: GridState) -> Tensor:
        """Whether every cell is empty."""
        return (state.codes == EMPTY).all(2)


class RasterGrid(_Grid):
    """Cells are filled row by row, each row from the left: one trajectory for each grid.

    A forward action is the code of the next cell; the one backward action empties the last.

    Args:
        rows: of the grid.
        columns: of the grid.
        codes: entries of the dictionary.
    """

    unique_trajectory = True

    def forward_mask(self, state: GridState) -> Tensor:
        """Every code, until the grid is full."""
        return ~self.is_final(state)[:, :, None].expand(-1, -1, self.codes)

    def backward_mask(self, state: GridState) -> Tensor:
        """The one undoing, unless the grid is empty."""
        return ~self.is_initial(state)[:, :, None]

    def step(self, state: GridState, action: Tensor) -> GridState:
        """Writes the code `action` into the next cell."""
        cell = self._filled(state).clamp(max=self.cells - 1)
        return GridState(state.codes.scatter(2, cell, action[:, :, None]))

    def unstep(self, state: GridState, action: Tensor) -> GridState:
        """Empties the last filled cell."""
        cell = (self._filled(state) - 1).clamp(min=0)
        return GridState(state.codes.scatter(2, cell, EMPTY))

    def backward_action(self, state: GridState, action: Tensor) -> Tensor:
        """Always action 0."""
        return torch.zeros_like(action)

    def forward_action(self, state: GridState, action: Tensor) -> Tensor:
        """The code of the last filled cell."""
        cell = (self._filled(state) - 1).clamp(min=0)
        return state.codes.gather(2, cell).squeeze(2).clamp(min=0)

    @staticmethod
    def _filled(state: GridState) -> Tensor:  # (batch, samples, 1)
        return (state.codes != EMPTY).sum(2, keepdim=True)


class AnyOrderGrid(_Grid):
    """Any empty cell may be filled next: a DAG with `cells!` trajectories for each grid.

    Forward action `cell * codes + code` writes a code; backward action `cell` empties that cell.

    Args:
        rows: of the grid.
        columns: of the grid.
        codes: entries of the dictionary.
    """

    def forward_mask(self, state: GridState) -> Tensor:
        """Every code in every empty cell."""
        return (state.codes == EMPTY).repeat_interleave(self.codes, 2)

    def backward_mask(self, state: GridState) -> Tensor:
        """Every filled cell."""
        return state.codes != EMPTY

    def step(self, state: GridState, action: Tensor) -> GridState:
        """Writes `action % codes` into cell `action // codes`."""
        cell = (action // self.codes)[:, :, None]
        return GridState(state.codes.scatter(2, cell, (action % self.codes)[:, :, None]))

    def unstep(self, state: GridState, action: Tensor) -> GridState:
        """Empties cell `action`."""
        return GridState(state.codes.scatter(2, action[:, :, None], EMPTY))

    def backward_action(self, state: GridState, action: Tensor) -> Tensor:
        """The cell that was written."""
        return action // self.codes

    def forward_action(self, state: GridState, action: Tensor) -> Tensor:
        """Writing again what the cell holds."""
        held = state.codes.gather(2, action[:, :, None]).squeeze(2).clamp(min=0)
        return action * self.codes + held

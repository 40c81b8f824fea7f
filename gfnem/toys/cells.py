"""What spaces whose structures are cells of a grid have in common."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


class Cells:
    """States have a `cell`, which is the structure in the end; a step is undone by its number.

    Attributes:
        side: cells along each axis.
        dimensions: axes.
    """

    side: int
    dimensions: int

    def to_latent(self, x: Tensor, state: Any) -> Tensor:
        """`(batch, samples, dimensions)` int64."""
        return state.cell

    def backward_action(self, state: Any, action: Tensor) -> Tensor:
        """The same number."""
        return action

    def forward_action(self, state: Any, action: Tensor) -> Tensor:
        """The same number."""
        return action

    def features(self, state: Any) -> Tensor:
        """`(batch, samples, dimensions)` int64: each coordinate, counted through all axes."""
        axis = torch.arange(self.dimensions, device=state.cell.device)
        return state.cell + self.side * axis

"""Dropout whose random numbers are bytes: a draw for each unit takes longer than what it drops."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class Dropout(nn.Module):
    """As `torch.nn.Dropout`, in training.

    Args:
        share: of units dropped, rounded to a 256th.
    """

    def __init__(self, share: float):
        super().__init__()
        self.dropped = dropped_of(share)

    def forward(self, units: Tensor) -> Tensor:
        """`units`, of any shape, some of which are 0 and the others larger."""
        if not self.training or not self.dropped:
            return units
        kept = random_bytes(units.shape, units.device) >= self.dropped
        return units * (kept.view(torch.uint8).to(units.dtype) * scale_of(self.dropped))


def dropped_of(share: float) -> int:
    """Below how many of 256 a random byte drops a unit."""
    return min(round(256 * share), 255)


def scale_of(dropped: int) -> float:
    """What the units that are kept are multiplied by."""
    return 256 / (256 - dropped)


def random_bytes(shape: Sequence[int], device: torch.device) -> Tensor:
    """uint8 of a shape, each uniform; a draw makes eight."""
    count = torch.Size(shape).numel()
    draws = torch.empty(count // 8 + 1, dtype=torch.int64, device=device)
    return draws.random_(-(2**63), None).view(torch.uint8)[:count].view(shape)

"""Gray codes: numbers as bits such that neighbours differ in one."""

from __future__ import annotations

import torch
from torch import Tensor


def to_bits(cell: Tensor, bits: int) -> Tensor:
    """`(..., bits)` int64 Gray code of integers `(...)`, the most significant bit first."""
    gray = cell ^ (cell >> 1)
    place = torch.arange(bits - 1, -1, -1, device=cell.device)
    return (gray.unsqueeze(-1) >> place) & 1


def from_bits(code: Tensor) -> Tensor:
    """`(...)` int64 integers of Gray codes `(..., bits)`."""
    binary = code.cumsum(-1) % 2  # a bit of the number is the parity of the code's bits so far
    place = torch.arange(code.shape[-1] - 1, -1, -1, device=code.device)
    return (binary << place).sum(-1)


class Grid:
    """Points in a square as rows of bits: the two coordinates' Gray codes, interleaved.

    So the first two bits say in which quarter of the square a point lies, the next two in which
    quarter of that, and so on.

    Args:
        bits: of a coordinate.
        low: `(2,)` the square's lower corner.
        high: `(2,)` its upper corner.
    """

    def __init__(self, bits: int, low: Tensor, high: Tensor):
        self.bits, self.low, self.high = bits, low, high

    def encode(self, points: Tensor) -> Tensor:
        """`(points, 2 * bits)` int64; a point outside is put at the edge."""
        share = (points.double() - self.low) / (self.high - self.low)
        cell = (share * 2**self.bits).floor().long().clamp(0, 2**self.bits - 1)
        return to_bits(cell, self.bits).mT.flatten(-2)

    def cells(self, rows: Tensor) -> Tensor:
        """`(..., 2)` int64 cell numbers of each coordinate."""
        return from_bits(rows.unflatten(-1, (self.bits, 2)).mT)

    def decode(self, rows: Tensor) -> Tensor:
        """`(..., 2)` the middles of the cells."""
        share = (self.cells(rows).double() + 0.5) / 2**self.bits
        return self.low + share * (self.high - self.low)

    def edges(self) -> Tensor:
        """`(2, 2 ** bits + 1)` where cells end; the outermost reach to infinity."""
        share = torch.arange(2**self.bits + 1).double() / 2**self.bits
        edges = self.low[:, None] + share * (self.high - self.low)[:, None]
        edges[:, 0], edges[:, -1] = -torch.inf, torch.inf
        return edges

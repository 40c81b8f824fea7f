"""Spins on a square lattice whose edges are joined, drawn by Markov chains."""

from __future__ import annotations

import torch
from torch import Tensor


def neighbours(side: int) -> Tensor:
    """`(side ** 2, side ** 2)` the lattice's adjacency matrix, 0 and 1."""
    place = torch.arange(side**2).view(side, side)
    matrix = torch.zeros(side**2, side**2)
    for axis in (0, 1):
        matrix[place.flatten(), place.roll(1, axis).flatten()] = 1
    return (matrix + matrix.T).clamp(max=1)


def simulate(
    side: int, coupling: float, count: int, sweeps: int = 1000, seed: int = 0, values: int = 2
) -> Tensor:
    """`(count, side ** 2)` int64 states drawn from an Ising or Potts model, by Gibbs sampling.

    Each is the end of a chain of its own. With two values `log p~ = coupling f' A f` of spins -1
    and 1; with more, 4 times the coupling for each pair of equal neighbours, which for two is the
    same.

    Args:
        side: of the lattice; 4 or more, and even, so that the two colours of a chessboard can be
            drawn in turn.
        coupling: of neighbours.
        count: how many.
        sweeps: of each chain.
        seed: of the draws.
        values: of a site.
    """
    if side % 2 or side < 4:  # of two by two, neighbours on both sides are the same
        raise ValueError(f"side {side}: an even number is needed, 4 or more")
    generator = torch.Generator().manual_seed(seed)
    state = torch.randint(values, (count, side, side), generator=generator)
    row, column = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
    options = torch.arange(values)
    for sweep in range(2 * sweeps):
        black = (row + column) % 2 == sweep % 2
        equal = sum(
            (state.roll(shift, axis)[..., None] == options).float()
            for axis in (1, 2)
            for shift in (1, -1)
        )
        log_p = 4 * coupling * torch.as_tensor(equal)
        below = log_p.softmax(-1).cumsum(-1)
        chance = torch.rand(count, side, side, 1, generator=generator)
        drawn = (below < chance).sum(-1).clamp(max=values - 1)
        state = torch.where(black, drawn, state)
    return state.flatten(1)

"""How far learned couplings are from those of an Ising model on a lattice, exactly."""

from __future__ import annotations

import itertools
import math

import torch
from torch import Tensor

from gfnem.energies.lattices import neighbours
from gfnem.energies.models import log_sum_on_torus

#: spins that the sum is taken over one setting after the other, at most; each doubles the time
MOST_FIXED = 7


def coupling_figures(coupling: Tensor, truth: Tensor) -> dict:
    """Error of the couplings, and the exact divergence of the truth from what they are.

    Args:
        coupling: `(spins, spins)` symmetric, of `log p = s' J s` up to a constant; 0 where there is
            no edge.
        truth: likewise, of neighbours on a lattice whose edges are joined.

    Returns:
        `kl` in nats is left out where too many edges are not the lattice's (`MOST_FIXED`).
    """
    found, real = coupling.abs() > 0, truth.abs() > 0
    row = {
        "minus_log_rmse": -(coupling - truth).square().mean().sqrt().log().item(),
        "missed": int((real & ~found).sum()) // 2,
        "spurious": int((found & ~real).sum()) // 2,
    }
    truth, coupling = truth.double(), coupling.double()
    fixed, extra = _beside_lattice(coupling)
    if len(fixed) <= MOST_FIXED:
        log_z, means = _truth(truth, fixed)
        difference = ((truth - coupling) * means).sum()
        row["kl"] = (difference + _log_partition(coupling, fixed, extra) - log_z).item()
    return row


def _edges(side: int) -> list[tuple[Tensor, Tensor]]:
    """Of each spin with its right neighbour, and with the one below."""
    place = torch.arange(side**2).view(side, side)
    return [(place.flatten(), place.roll(-1, axis).flatten()) for axis in (1, 0)]


def _on_lattice(coupling: Tensor) -> list[Tensor]:
    side = math.isqrt(len(coupling))
    return [coupling[a, b].view(side, side) for a, b in _edges(side)]


def _beside_lattice(coupling: Tensor) -> tuple[list[int], Tensor]:
    """Spins such that each edge which is not the lattice's has one of them, and these couplings.

    The spin with the most of such edges goes first.
    """
    extra = coupling * (1 - neighbours(math.isqrt(len(coupling)))).to(coupling)
    left, fixed = (extra != 0).clone(), []
    while left.any():
        fixed.append(int(left.sum(1).argmax()))
        left[fixed[-1]] = left[:, fixed[-1]] = False
    return fixed, extra


def _log_partition(coupling: Tensor, fixed: list[int], extra: Tensor) -> Tensor:
    """`()` exact log Z: a sum over the settings of `fixed`, which make fields of other edges.

    `s -> -s` changes nothing, so that the first of them is always 1.
    """
    side, sums = math.isqrt(len(coupling)), []
    for others in itertools.product((-1.0, 1.0), repeat=max(len(fixed) - 1, 0)):
        spins = coupling.new_zeros(len(coupling))  # 0 where it is summed over
        if fixed:
            spins[fixed] = coupling.new_tensor([1.0, *others])
        field = 2 * (extra @ spins)
        within = spins @ extra @ spins  # both spins of such an edge are fixed, and twice in `field`
        known = torch.where(spins == 0, -1, (spins > 0).long()).view(1, side, side)
        value = log_sum_on_torus(*_on_lattice(coupling), field.view(side, side), known)[0]
        sums.append(value - within)
    return torch.stack(sums).logsumexp(0) + (math.log(2) if fixed else 0)


def _truth(truth: Tensor, fixed: list[int]) -> tuple[Tensor, Tensor]:
    """Exact log Z of the truth, and `(spins, spins)` E[s s'] of its edges and of `fixed`'s pairs.

    Both are derivatives: of log Z in an edge's coupling, and of the sum with one spin known to be 1
    in the fields of all others, since `E[s s'] = E[s' | s = 1]` without fields.
    """
    side = math.isqrt(len(truth))
    parts, field = [part.requires_grad_() for part in _on_lattice(truth)], truth.new_zeros(side**2)
    nothing = torch.full((1, side, side), -1)
    log_z = log_sum_on_torus(*parts, field.view(side, side), nothing)[0]
    means = torch.zeros_like(truth)
    for (a, b), slope in zip(_edges(side), torch.autograd.grad(log_z, parts), strict=True):
        means[a, b] = means[b, a] = slope.flatten() / 2  # each edge counts twice in log p~
    lattice, field = [part.detach() for part in parts], field.requires_grad_()
    for spin in fixed:
        known = nothing.flatten(1).clone()
        known[0, spin] = 1
        value = log_sum_on_torus(*lattice, field.view(side, side), known.view(1, side, side))[0]
        means[spin] = means[:, spin] = torch.autograd.grad(value, field)[0]
    return log_z.detach(), means

"""Markov chains over the structures of a small space as matrices, and how fast they forget."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from gfnem.ranges import Count
from gfnem.state_graph import StateGraph

#: most pairs of ways from one state that are compared
_PAIRS = 2**26


def metropolis_kernel(
    proposal: Float[Tensor, "objects objects"], log_reward: Float[Tensor, " objects"]
) -> Float[Tensor, "objects objects"]:
    """`(objects, objects)` transition probabilities of Metropolis-Hastings (Hastings 1970).

    Args:
        proposal: `(objects, objects)` probability to propose each column from each row.
        log_reward: `(objects,)` log of the stationary distribution, in nats.
    """
    weight = proposal.log() + log_reward[:, None]
    accepted = proposal * (weight.T - weight).nan_to_num(nan=-torch.inf).clamp(max=0).exp()
    return _with_rest(accepted)


def back_and_forth_kernel(
    graph: StateGraph,
    log_pf: Float[Tensor, " edges"],
    log_pb: Float[Tensor, " edges"],
    log_reward: Float[Tensor, " objects"],
    back: Count,
) -> Float[Tensor, "objects objects"]:
    """`(objects, objects)` transition probabilities of `gfnem.refinement.back_and_forth`, accepted.

    A proposal undoes `back` steps with `P_B`, or all there are, and goes forth with `P_F`. It is
    accepted or not by the two ways taken, so every pair of ways from one state is listed.

    Args:
        graph: the states.
        log_pf, log_pb: `(edges,)` nats (`StateGraph.scores`).
        log_reward: `(objects,)` nats, of `graph.ends`.
        back: how many steps are undone.

    Raises:
        ValueError: if there are too many pairs of ways.
    """
    # all ways down from each structure: where they are, what they cost, and where they began
    at, end = graph.ends, torch.arange(len(graph.ends), device=graph.ends.device)
    down = up = log_reward.new_zeros(len(end)).double()
    order = graph.child.argsort(stable=True)
    first = torch.searchsorted(graph.child[order], torch.arange(len(graph) + 1, device=at.device))
    for _ in range(back):
        many = (first[at + 1] - first[at]).clamp(min=1)
        way = torch.arange(len(at), device=at.device).repeat_interleave(many)
        within = torch.arange(len(way), device=at.device) - (many.cumsum(0) - many)[way]
        initial = first[at + 1] == first[at]  # such a way has ended; it stays
        edge = order[(first[at][way] + within).clamp(max=len(order) - 1)]
        step = torch.where(initial[way], 0.0, 1.0).double()
        down, up = down[way] + step * log_pb[edge], up[way] + step * log_pf[edge]
        at, end = torch.where(initial[way], at[way], graph.parent[edge]), end[way]
    counts = torch.bincount(at, minlength=len(graph))
    if (pairs := int((counts.double() ** 2).sum())) > _PAIRS:
        raise ValueError(f"{pairs:,} pairs of ways to compare; {_PAIRS:,} are the most")
    kernel = log_reward.new_zeros(len(log_reward), len(log_reward)).double()
    weight = log_reward[end] + down - up
    for ways in at.argsort(stable=True).split(counts[counts > 0].tolist()):
        ratio = (weight[ways] - weight[ways][:, None]).clamp(max=0)
        move = (down[ways][:, None] + up[ways] + ratio).exp().flatten()
        place = end[ways][:, None] * len(log_reward) + end[ways]
        kernel.view(-1).index_add_(0, place.flatten(), move)
    return _with_rest(kernel)


def _with_rest(kernel: Tensor) -> Tensor:
    """The probabilities of moves `(objects, objects)`, and of staying in what remains."""
    moves = kernel - kernel.diagonal().diag()
    return moves + (1 - moves.sum(1)).diag()


def spectral_gap(
    kernel: Float[Tensor, "objects objects"], log_reward: Float[Tensor, " objects"]
) -> Float[Tensor, ""]:
    """`()` 1 less the second largest absolute eigenvalue: about one over the updates to forget.

    Args:
        kernel: `(objects, objects)` reversible under the distribution.
        log_reward: `(objects,)` nats.
    """
    root = (log_reward.double() / 2 - log_reward.double().max() / 2).exp()
    symmetric = root[:, None] * kernel.double() / root
    values = torch.linalg.eigvalsh((symmetric + symmetric.T) / 2).abs().sort().values
    return 1 - values[-2]

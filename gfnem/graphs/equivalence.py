"""Markov equivalence: which graphs no observation can tell apart."""

from __future__ import annotations

import torch
from torch import Tensor


def essential_graphs(adjacency: Tensor) -> Tensor:
    """`(graphs, n, n)` bool: the completed partially directed graph of each DAG.

    An edge that has one direction in all equivalent graphs keeps it; one that can be turned is
    there in both. Skeleton and colliders first (Verma and Pearl 1990), then the rules of Meek
    (1995), of which three are enough where nothing else is known.

    Args:
        adjacency: `(graphs, n, n)` bool, acyclic.
    """
    n = adjacency.shape[-1]
    eye = torch.eye(n, dtype=torch.bool, device=adjacency.device)
    linked = adjacency | adjacency.mT
    apart = ~linked & ~eye
    # i -> k of a collider i -> k <- j, where i and j are not linked
    beside = _product(apart, adjacency)
    directed = adjacency & beside
    while True:
        free = linked & ~directed & ~directed.mT
        away = _product(directed.mT, apart)  # i -> k, k - j, i and j apart
        around = _product(directed, directed)  # i -> k -> j, i - j
        # i - k -> j and i - l -> j with k and l apart, i - j
        way = free[:, :, :, None] & directed[:, None]  # (graphs, i, k, j)
        pairs = torch.einsum("gikj,gkl->gilj", way.float(), apart.float()) > 0
        fork = (pairs & way).any(2)
        new = free & (away | around | fork)
        if not new.any():
            return directed | free
        directed = directed | new


def _product(one: Tensor, other: Tensor) -> Tensor:
    return one.float() @ other.float() > 0

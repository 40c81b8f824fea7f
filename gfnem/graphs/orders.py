"""Sums over the orders of nodes, each with the sets of parents among those that come before.

A graph counts once for each order that it agrees with (Koivisto and Sood 2004), so they are no sums
over graphs; but they take `2 ** n` terms, and know who is to come before whom.
"""

from __future__ import annotations

import itertools
import math

import torch
from torch import Tensor

from gfnem.graphs.dags import bits_of


def sets_of_size(n: int, k: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """`(sets,)` bit masks of all sets of `k` nodes, and `(sets, k)` the nodes in each."""
    every = bits_of(torch.arange(2**n, device=device), n)
    sets = (every.sum(1) == k).nonzero()[:, 0]
    return sets, every[sets].nonzero()[:, 1].view(len(sets), k)


def orders_after(sums: Tensor) -> Tensor:
    """`(batch, 2 ** n)` log mean over the orders of the nodes that are not in a set, after it.

    Args:
        sums: `(batch, n, 2 ** n)` float64 see `partial_sums`; the last of them.
    """
    n = sums.shape[1]
    found = sums.new_zeros(len(sums), 2**n)
    for k in range(1, n + 1):
        left, nodes = sets_of_size(n, k, sums.device)
        sets = 2**n - 1 - left
        terms = sums[:, nodes, sets[:, None]] + found[:, sets[:, None] + 2**nodes]
        found[:, sets] = terms.logsumexp(2) - math.log(k)
    return found


def orders_before(sums: Tensor) -> Tensor:
    """`(batch, 2 ** n)` log mean over the orders of the nodes of a set, before all others.

    Args:
        sums: as for `orders_after`.
    """
    n = sums.shape[1]
    found = sums.new_zeros(len(sums), 2**n)
    for k in range(1, n + 1):
        sets, nodes = sets_of_size(n, k, sums.device)
        less = sets[:, None] - 2**nodes
        found[:, sets] = (sums[:, nodes, less] + found[:, less]).logsumexp(2) - math.log(k)
    return found


def swaps(sums: Tensor) -> Tensor:
    """`(batch, n - 1)` how often neighbours in an order could change places.

    Number `k` is the probability, under the sum over orders, that no edge joins the nodes at places
    `k` and `k + 1`. The more of them could change places, the more orders a graph agrees with.

    Args:
        sums: as for `orders_after`.
    """
    n, before, after = sums.shape[1], orders_before(sums), orders_after(sums)
    every = torch.arange(2**n, device=sums.device)
    size = bits_of(every, n).sum(1)
    # of all orders, the share that has a given set and then a given pair before all others
    ways = [math.log(math.comb(n, k) * math.comb(n - k, 2)) for k in range(n - 1)]
    ways = torch.tensor(ways, dtype=sums.dtype, device=sums.device)
    found = sums.new_zeros(len(sums), n - 1)
    for one, other in itertools.combinations(range(n), 2):
        pair = 2**one + 2**other
        sets = every[(every & pair) == 0]
        log_p = before[:, sets] + sums[:, one, sets] + sums[:, other, sets]
        log_p = log_p + after[:, sets | pair] - after[:, :1] - ways[size[sets]]
        found.index_add_(1, size[sets], log_p.exp())
    return found


def swaps_after(sums: Tensor) -> Tensor:
    """`(batch, 2 ** n, n - 1)` `swaps` among the orders of the nodes not in a set, after it.

    0 for places that there are not. It takes `2 ** n` rounds: for few nodes.

    Args:
        sums: as for `orders_after`.
    """
    n = sums.shape[1]
    found = sums.new_zeros(len(sums), 2**n, n - 1)
    for masks in range(2**n):
        left = [node for node in range(n) if not masks >> node & 1]
        if len(left) > 1:
            within = bits_of(torch.arange(2 ** len(left), device=sums.device), len(left))
            index = masks + (within * 2 ** torch.tensor(left, device=sums.device)).sum(1)
            found[:, masks, : len(left) - 1] = swaps(sums[:, left][..., index])
    return found

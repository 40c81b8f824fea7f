"""Directed acyclic graphs as bool tensors: closures, parent sets, counting, listing, drawing."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable

import torch
from torch import Tensor

from gfnem.errors import UserError
from gfnem.estimates import log_sum

#: most variables: parent sets are looked up by a bit mask
MOST = 20
#: all sets of so many nodes are listed, to look them up
_LISTED = 12


def closure_of(adjacency: Tensor) -> Tensor:
    """`(..., n, n)` bool: whether a path of one edge or more leads from one node to another.

    By squaring: `log2 n` matrix products for all graphs at once.

    Args:
        adjacency: `(..., n, n)` bool; entry `[i, j]` is the edge from `i` to `j`.
    """
    reached, length = adjacency, 1
    while length < adjacency.shape[-1]:
        counts = reached.float()
        reached, length = reached | (counts @ counts > 0), 2 * length
    return reached


def is_acyclic(adjacency: Tensor) -> Tensor:
    """`(...,)` bool: whether a graph `(..., n, n)` has no directed cycle."""
    return ~closure_of(adjacency).diagonal(dim1=-2, dim2=-1).any(-1)


def bit_masks(parents: Tensor) -> Tensor:
    """`(...)` int64: sets of nodes `(..., n)` bool as numbers, node `i` worth `2 ** i`."""
    weights = 2 ** torch.arange(parents.shape[-1], device=parents.device)
    return (parents * weights).sum(-1)


def bits_of(masks: Tensor, n: int) -> Tensor:
    """`(..., n)` bool: the sets that numbers `(...)` int64 stand for (see `bit_masks`)."""
    if n > _LISTED:
        return masks.unsqueeze(-1) & (1 << torch.arange(n, device=masks.device)) != 0
    found = _every_set(n, str(masks.device)).index_select(0, masks.flatten())
    return found.view(*masks.shape, n)


@functools.lru_cache(maxsize=2 * _LISTED)
def _every_set(n: int, device: str) -> Tensor:
    """`(2 ** n, n)` bool: to look sets up in, which is faster than to take numbers apart."""
    every = torch.arange(2**n, device=device)
    return (every[:, None] >> torch.arange(n, device=device) & 1).bool()


class ParentSets:
    """The sets of nodes that may be somebody's parents, numbered.

    Args:
        n: how many nodes there are.
        limit: most nodes of a set; any number if None.
        device: where they are kept.

    Attributes:
        masks: `(sets,)` int64 each set as a bit mask, in increasing order.
        lookup: `(2 ** n,)` int64 the number of each mask; `sets` for those beyond the limit.
    """

    def __init__(self, n: int, limit: int | None = None, device: torch.device | str = "cpu"):
        if n > MOST:
            raise UserError(f"{n} columns: at most {MOST} can be the nodes of a graph")
        self.n, self.limit = n, n - 1 if limit is None else min(limit, n - 1)
        every = torch.arange(2**n, device=device)
        size = functools.reduce(torch.add, [every >> i & 1 for i in range(n)])
        within = size <= self.limit
        self.masks = every[within]
        self.lookup = torch.where(within, within.cumsum(0) - 1, len(self.masks))

    def __len__(self) -> int:
        """How many sets."""
        return len(self.masks)

    def number(self, masks: Tensor) -> Tensor:
        """`(...)` int64 the numbers of bit masks `(...)`, as `lookup` has them."""
        return masks if self.limit == self.n - 1 else self.lookup[masks]

    @functools.cached_property
    def ternary(self) -> Tensor:
        """`(2 ** n,)` int64 each mask as a number in base 3: node `i` is worth `3 ** i`."""
        every = bits_of(torch.arange(2**self.n, device=self.masks.device), self.n)
        return (every * 3 ** torch.arange(self.n, device=every.device)).sum(1)

    def members(self) -> Tensor:
        """`(sets, n)` bool."""
        return bits_of(self.masks, self.n)


@functools.lru_cache(maxsize=8)
def _kept(n: int, limit: int | None, device: str) -> ParentSets:
    return ParentSets(n, limit, device)


def parent_sets(n: int, limit: int | None = None, device: torch.device | str = "cpu") -> ParentSets:
    """The numbered parent sets, made once for a device."""
    return _kept(n, limit, str(device))


def log_number_of_graphs(n: int, log_weight: Callable[[int], float]) -> float:
    """Log of the sum, over all DAGs of `n` nodes, of a product over nodes.

    A node's factor depends on the number of its parents alone. Graphs are built by layers: each
    node of a new layer has all its parents among those placed and at least one in the last layer.
    It costs `n ** 3` sums, for a number that has `2 ** (n ** 2)` terms.

    Args:
        n: how many nodes there are.
        log_weight: the log of a node's factor, by its number of parents; -inf forbids it.
    """
    weight = [math.exp(log_weight(k)) for k in range(n)]

    def factor(placed: int, last: int) -> float:  # of one node of the next layer
        return sum(
            weight[k] * (math.comb(placed, k) - math.comb(placed - last, k))
            for k in range(placed + 1)
        )

    total: dict[tuple[int, int], float] = {}
    for placed in range(1, n + 1):
        for new in range(1, placed + 1):
            before = placed - new
            choices = math.log(math.comb(placed, new))
            if before == 0:
                terms = [new * _log(weight[0])]
            else:
                terms = [
                    total[before, last] + new * _log(factor(before, last))
                    for last in range(1, before + 1)
                ]
            total[placed, new] = choices + log_sum(terms)
    return log_sum([total[n, last] for last in range(1, n + 1)])


def number_of_dags(n: int) -> int:
    """How many DAGs there are of `n` labelled nodes (Robinson 1973)."""
    counts = [1]
    for size in range(1, n + 1):
        counts.append(
            sum(
                (-1) ** (k + 1) * math.comb(size, k) * 2 ** (k * (size - k)) * counts[size - k]
                for k in range(1, size + 1)
            )
        )
    return counts[n]


def _log(value: float) -> float:
    return math.log(value) if value > 0 else -math.inf


@functools.lru_cache(maxsize=4)
def every_dag(n: int) -> Tensor:
    """`(graphs, n, n)` bool: all DAGs of `n` nodes, of at most 5 (29,281 graphs).

    Raises:
        ValueError: if there are more nodes.
    """
    if n > 5:
        raise ValueError(f"{number_of_dags(n):,} graphs of {n} nodes are too many to list")
    found = torch.zeros(1, 1, 1, dtype=torch.bool, device="cpu")
    for size in range(2, n + 1):  # a node is added in every way, then cycles are dropped
        around = bits_of(torch.arange(4 ** (size - 1), device="cpu"), 2 * (size - 1))
        out, into = around[:, : size - 1], around[:, size - 1 :]
        grown = found.new_zeros(len(found), len(around), size, size)
        grown[..., :-1, :-1] = found[:, None]
        grown[..., -1, :-1], grown[..., :-1, -1] = out, into
        closed = closure_of(found) | torch.eye(size - 1, dtype=torch.bool, device="cpu")
        # the new node's children must not lead to its parents
        back = (out.float() @ closed.float() > 0) & into  # (graphs, ways, size - 1)
        found = grown[~back.any(-1)]
    assert len(found) == number_of_dags(n)
    return found


def random_dag(n: int, edges: float, generator: torch.Generator | None = None) -> Tensor:
    """`(n, n)` bool: an Erdos-Renyi graph along a random order, `edges` expected edges."""
    order = torch.randperm(n, generator=generator)
    share = min(1.0, edges / max(n * (n - 1) / 2, 1))
    forward = torch.rand(n, n, generator=generator).triu(1) > 1 - share
    adjacency = torch.zeros(n, n, dtype=torch.bool)
    adjacency[order[:, None], order] = forward.triu(1)
    return adjacency

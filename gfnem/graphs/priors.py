"""Priors over graphs: over single edges, which exact inference takes, and over anything else."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor

from gfnem.component import Component
from gfnem.graphs.dags import closure_of, log_number_of_graphs
from gfnem.ranges import Amount, Finite


class EdgePrior(Component):
    """A modular prior: a product over nodes of a factor of the number of their parents.

    Args:
        kind: "uniform" over graphs; "edges" gives every edge the odds `odds`; "fair" is uniform
            over the number of parents of a node, then over the sets of so many (Friedman and Koller
            2003).
        odds: log odds of an edge, for "edges".

    Raises:
        ValueError: if `kind` is none of these.
    """

    def __init__(self, kind: str = "uniform", odds: Finite = -1.0):
        if kind not in ("uniform", "edges", "fair"):
            raise ValueError(f"kind is uniform, edges or fair, not {kind!r}")
        self.kind, self.odds = kind, odds

    def log_weight(self, parents: int, n: int) -> float:
        """The log of a node's factor, by its number of parents."""
        if self.kind == "edges":
            return self.odds * parents
        return -math.log(math.comb(n - 1, parents)) if self.kind == "fair" else 0.0

    def table(self, n: int, members: Tensor) -> Tensor:
        """`(sets,)` float64 a node's factor in nats, by its set of parents `(sets, n)`."""
        weights = [self.log_weight(k, n) for k in range(n)] + [-math.inf]
        each = torch.tensor(weights, dtype=torch.float64, device=members.device)
        return each[members.sum(1)]

    def log_normaliser(self, n: int, max_parents: int | None = None) -> float:
        """Log of the sum of the prior's factors over all DAGs of `n` nodes."""
        most = n - 1 if max_parents is None else min(max_parents, n - 1)

        def weight(parents: int) -> float:
            return self.log_weight(parents, n) if parents <= most else -math.inf

        return log_number_of_graphs(n, weight)


class GraphTerm(Component, ABC):
    """A factor of the prior that does not add over families: exact inference stops there."""

    def of(self, columns: Sequence[str] | None) -> GraphTerm:
        """The term over a table with these columns; names of columns become their places.

        Raises:
            ValueError: if a name is no column.
        """
        return self

    @abstractmethod
    def log_weight(self, adjacency: Tensor) -> Tensor:
        """`(batch, samples)` nats of graphs `(batch, samples, n, n)` bool."""


class PathPrior(GraphTerm):
    """An expert's statement that one variable causes another by some path, or does not.

    Args:
        cause, effect: the columns, by name or place.
        odds: log odds of a path; negative against it.

    Raises:
        ValueError: if cause and effect are one.
    """

    def __init__(self, cause: Amount | str, effect: Amount | str, odds: Finite = 3.0):
        if cause == effect:
            raise ValueError(f"cause and effect are both {cause}")
        self.cause, self.effect, self.odds = cause, effect, odds

    def of(self, columns: Sequence[str] | None) -> PathPrior:
        """The same with places for names."""
        ends = []
        for name in (self.cause, self.effect):
            if columns is not None and name in columns:
                name = list(columns).index(str(name))
            if not isinstance(name, int) or (columns is not None and name >= len(columns)):
                known = "a table's columns" if columns is None else ", ".join(columns)
                raise ValueError(f"PathPrior: {name!r} is not among {known}")
            ends.append(name)
        return PathPrior(*ends, self.odds)

    def log_weight(self, adjacency: Tensor) -> Tensor:
        """`odds` where a path leads from cause to effect, else 0; `(batch, samples)`."""
        return self.odds * closure_of(adjacency)[..., self.cause, self.effect].double()


class DescendantsPrior(GraphTerm):
    """Log odds for every pair of which one is an ancestor of the other.

    Args:
        odds: of a pair; negative prefers graphs in which few variables have effects.
    """

    def __init__(self, odds: Finite = -0.5):
        self.odds = odds

    def log_weight(self, adjacency: Tensor) -> Tensor:
        """`odds` times the number of pairs joined by a path; `(batch, samples)`."""
        return self.odds * closure_of(adjacency).flatten(-2).sum(-1).double()


def added_up(terms: Sequence[GraphTerm], adjacency: Tensor) -> Tensor:
    """`(batch, samples)` nats of all terms together."""
    total = torch.zeros(adjacency.shape[:2], dtype=torch.float64, device=adjacency.device)
    for term in terms:
        total = total + term.log_weight(adjacency)
    return total

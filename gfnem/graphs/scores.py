"""Local scores: how well a set of parents explains a variable, in nats, for all sets at once.

A score that is decomposable over families and equivalent over Markov classes is a difference of a
set function: `score(j, P) = g(P + j) - g(P)`. So one number for each set of variables is enough,
`2 ** n` of them, except where experiments leave each variable rows of its own.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod

import torch
from torch import Tensor

from gfnem.component import Component
from gfnem.graphs.dags import bits_of, parent_sets
from gfnem.graphs.tables import Tables
from gfnem.ranges import Positive

#: numbers in memory at a time where sets are taken in parts
_CHUNK = 2**22


class LocalScore(Component, ABC):
    """A decomposable score of families, in nats."""

    #: whether it is of discrete tables, whose cells are codes 0, 1, ...
    discrete: bool = False

    @abstractmethod
    def set_function(self, values: Tensor, members: Tensor, cards: Tensor) -> Tensor:
        """`(sets,)` float64 the log evidence of the columns in each set.

        Args:
            values: `(rows, n)` float64.
            members: `(sets, n)` bool.
            cards: `(n,)` int64 how many values each discrete variable has.
        """

    def penalty(self, values: Tensor, members: Tensor, cards: Tensor, variable: int) -> Tensor:
        """`(sets,)` what is taken off a family's score, by its set of parents."""
        return torch.zeros(len(members), dtype=torch.float64, device=values.device)

    def table(self, x: Tables, max_parents: int | None = None) -> Tensor:
        """`(batch, n, sets)` float64 local scores of every variable with every set of parents.

        The sets are those of `gfnem.graphs.dags.parent_sets`; -inf where a variable would be its
        own parent. Rows in which a variable was set by hand do not count for its family
        (Cooper and Yoo 1999).
        """
        return x.known(
            (type(self), str(self.spec()), max_parents),
            lambda: torch.stack([self._table(x, at, max_parents) for at in range(len(x))]),
        )

    def _table(self, x: Tables, at: int, max_parents: int | None) -> Tensor:
        n = x.values.shape[2]
        sets = parent_sets(n, max_parents, x.device)
        parents = sets.masks
        # families have one member more than the largest set of parents
        families = parent_sets(n, None if max_parents is None else sets.limit + 1, x.device)
        whole = torch.tensor([2**n - 1], device=x.device)
        every = torch.cat([families.masks, whole]).unique()
        place = torch.zeros(2**n, dtype=torch.long, device=x.device)
        place[every] = torch.arange(len(every), device=x.device)
        members, cards = bits_of(every, n), x.cardinalities()[at]
        rows, by_hand = x.values[at][x.real[at]], x.hand[at][x.real[at]]
        scores, shared = [], None
        for variable in range(n):
            own = rows
            if by_hand[:, variable].any():
                own = rows[~by_hand[:, variable]]
                found = self.set_function(own, members, cards)
            else:
                shared = self.set_function(own, members, cards) if shared is None else shared
                found = shared
            score = found[place[parents | 1 << variable]] - found[place[parents]]
            score = score - self.penalty(own, bits_of(parents, n), cards, variable)
            scores.append(score.masked_fill(bits_of(parents, n)[:, variable], -torch.inf))
        return torch.stack(scores)


class BGe(LocalScore):
    """The Bayesian Gaussian score of a linear-Gaussian network.

    A normal-Wishart prior (Geiger and Heckerman 2002), in the corrected form of Kuipers, Moffa and
    Heckerman (2014, Annals of Statistics 42, eqs. A.1 and 6): prior mean 0, `alpha_mu` imaginary
    rows for it, `alpha_w` degrees of freedom, `T` a multiple of the identity.

    Args:
        alpha_mu: imaginary rows of the prior mean.
        alpha_w: degrees of freedom; `n + 2` if None.
    """

    def __init__(self, alpha_mu: Positive = 1.0, alpha_w: Positive | None = None):
        self.alpha_mu, self.alpha_w = alpha_mu, alpha_w

    def set_function(self, values: Tensor, members: Tensor, cards: Tensor) -> Tensor:
        """`(sets,)` log marginal likelihood of the columns in each set."""
        rows, n = values.shape
        alpha_w = n + 2.0 if self.alpha_w is None else self.alpha_w
        if alpha_w <= n - 1:
            raise ValueError(f"alpha_w {alpha_w}: more than {n - 1} is needed for {n} variables")
        t = self.alpha_mu * (alpha_w - n - 1) / (self.alpha_mu + 1)
        if t <= 0:
            raise ValueError(f"alpha_w {alpha_w}: more than {n + 1} is needed for {n} variables")
        mean = values.mean(0) if rows else values.new_zeros(n)
        centred = values - mean
        posterior = centred.mT @ centred + t * torch.eye(
            n, dtype=values.dtype, device=values.device
        )
        shrink = rows * self.alpha_mu / (rows + self.alpha_mu)
        posterior = posterior + shrink * mean[:, None] * mean
        size = members.sum(1).to(values)
        before, after = (alpha_w - n + size) / 2, (rows + alpha_w - n + size) / 2
        value = size / 2 * math.log(self.alpha_mu / (rows + self.alpha_mu))
        value = value - size * rows / 2 * math.log(math.pi)
        value = value + _log_multigamma(after, size, n) - _log_multigamma(before, size, n)
        value = value + before * size * math.log(t)
        return value - after * _log_det(posterior, members)


def _log_det(matrix: Tensor, members: Tensor) -> Tensor:
    """`(sets,)` log determinants of the submatrices of `members` `(sets, n)`; 0 of none."""
    n = len(matrix)
    eye = torch.eye(n, dtype=matrix.dtype, device=matrix.device)
    parts = []
    for part in members.split(max(1, _CHUNK // (n * n))):
        inside = part[:, :, None] & part[:, None, :]
        parts.append(torch.linalg.slogdet(torch.where(inside, matrix, eye)).logabsdet)
    return torch.cat(parts)


def _log_multigamma(a: Tensor, size: Tensor, n: int) -> Tensor:
    """Log of the multivariate gamma function of dimensions `size`, without its power of pi."""
    place = torch.arange(n, dtype=a.dtype, device=a.device)
    terms = torch.lgamma((a[:, None] - place / 2).clamp(min=0.25))
    value = (terms * (place < size[:, None])).sum(1)
    return value + size * (size - 1) / 4 * math.log(math.pi)


class BIC(LocalScore):
    """The Bayesian information criterion (Schwarz 1978), Gaussian or discrete.

    Args:
        discrete: whether the table holds codes; a Gaussian regression else.
    """

    def __init__(self, discrete: bool = False):
        self.discrete = discrete

    def set_function(self, values: Tensor, members: Tensor, cards: Tensor) -> Tensor:
        """`(sets,)` greatest log likelihood of the columns in each set."""
        rows = len(values)
        if self.discrete:
            return _over_cells(values, members, cards, lambda count, _: torch.xlogy(count, count))
        if not rows:
            return values.new_zeros(len(members))
        centred = values - values.mean(0)
        covariance = centred.mT @ centred / rows
        variance = covariance.diagonal()
        # in the units of each column, so that scores do not depend on them
        ridge = 1e-9 * torch.where(variance > 0, variance, 1.0)
        covariance = covariance + ridge.diag_embed()
        each = rows / 2 * (1 + math.log(2 * math.pi))
        return -rows / 2 * _log_det(covariance, members) - each * members.sum(1)

    def penalty(self, values: Tensor, members: Tensor, cards: Tensor, variable: int) -> Tensor:
        """Half the log of the number of rows for each parameter of the family."""
        if self.discrete:
            free = torch.where(members, cards, 1).to(values).prod(1) * (cards[variable] - 1)
        else:
            free = members.sum(1) + 2
        return free * (math.log(max(len(values), 1)) / 2)


class BDeu(LocalScore):
    """The Bayesian Dirichlet score of a discrete network, its prior uniform over cells.

    Buntine (1991); Heckerman, Geiger and Chickering (1995, eq. 28 with uniform imaginary counts).

    Args:
        sample_size: the equivalent sample size, imaginary rows in all.
    """

    discrete = True

    def __init__(self, sample_size: Positive = 1.0):
        self.sample_size = sample_size

    def set_function(self, values: Tensor, members: Tensor, cards: Tensor) -> Tensor:
        """`(sets,)` log evidence of the columns in each set, as one variable of all their cells."""

        def cell(count: Tensor, cells: Tensor) -> Tensor:
            imaginary = self.sample_size / cells
            return torch.lgamma(imaginary + count) - torch.lgamma(imaginary)

        return _over_cells(values, members, cards, cell)


def _over_cells(values: Tensor, members: Tensor, cards: Tensor, term) -> Tensor:
    """`(sets,)` sum of `term(count, cells)` over the cells of each set that hold a row.

    Rows are sorted by their cell, all sets of a part at once; a cell's count is the distance
    between its ends. `term` of an empty cell must be 0.
    """
    rows = len(values)
    codes = values.long()
    found = []
    for part in members.split(max(1, _CHUNK // max(rows, 1))):
        width = torch.where(part, cards, 1)
        step = torch.cat([torch.ones_like(width[:, :1]), width[:, :-1].cumprod(1)], 1)
        cell = (torch.where(part, step, 0).unsqueeze(1) * codes).sum(2)  # (sets, rows)
        cell = cell.sort(1).values
        last = torch.cat([cell[:, 1:] != cell[:, :-1], torch.ones_like(cell[:, :1]).bool()], 1)
        place = torch.arange(1, rows + 1, device=values.device).expand_as(cell)
        end = torch.where(last, place, 0)
        before = torch.cat([torch.zeros_like(end[:, :1]), end.cummax(1).values[:, :-1]], 1)
        count = torch.where(last, place - before, 0).to(values)
        cells = width.to(values).prod(1, keepdim=True)
        found.append(torch.where(last, term(count, cells), 0.0).sum(1))
    return torch.cat(found)

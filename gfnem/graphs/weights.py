"""Graphs with their weights: linear-Gaussian networks whose noise is known."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from gfnem.batched import Batched
from gfnem.graphs.dags import bit_masks, bits_of, parent_sets
from gfnem.graphs.model import DagPosterior
from gfnem.graphs.priors import EdgePrior, GraphTerm
from gfnem.graphs.scores import LocalScore
from gfnem.graphs.space import DagState
from gfnem.graphs.tables import Tables
from gfnem.ranges import Amount, Count, Fact, Positive


@dataclass
class Weighted(Batched):
    """Graphs and the weights of their edges.

    Attributes:
        adjacency: `(batch, samples, n, n)` bool.
        weights: `(batch, samples, n, n)` float64; entry `[i, j]` is by how much `i` moves `j`, 0
            where there is no edge.
    """

    adjacency: Tensor
    weights: Tensor

    def means(self, values: Tensor) -> Tensor:
        """`(batch, samples, rows, n)` what each variable is expected to be, by its parents.

        Args:
            values: `(batch, rows, n)`.
        """
        return values[:, None] @ self.weights

    def effects(self) -> Tensor:
        """`(batch, samples, n, n)` total effect on each variable of setting another one.

        By how much `j` moves when `i` is set one unit higher: the sum over all paths from `i` of
        the products of their weights, entry `[i, j]` of `(I - W) ** -1`. The diagonal is 1.
        """
        weights = self.weights
        eye = torch.eye(weights.shape[-1], dtype=weights.dtype, device=weights.device)
        return torch.linalg.inv(eye - weights)


class KnownNoise(LocalScore):
    """The evidence of linear-Gaussian families, weights standard normal and the noise known.

    The setting of Deleu et al. (2023, arXiv 2305.19366, section 5.1). It is not the same for
    equivalent graphs. Columns are taken as they are: there is no intercept.

    Args:
        noise: variance of the noise.
        prior: variance of a weight.
    """

    def __init__(self, noise: Positive = 0.1, prior: Positive = 1.0):
        self.noise, self.prior = noise, prior

    def set_function(self, values: Tensor, members: Tensor, cards: Tensor) -> Tensor:
        """Not of this score: it has no set function."""
        raise NotImplementedError

    def _table(self, x: Tables, at: int, max_parents: int | None) -> Tensor:
        members = parent_sets(x.values.shape[2], max_parents, x.device).members()
        scores = []
        for variable in range(x.values.shape[2]):
            rows = x.values[at][x.real[at] & ~x.hand[at, :, variable]]
            mean, _, log_det = self.posterior(rows, members)
            gram = rows.mT @ rows
            fit = (mean[..., variable] * gram[:, variable]).sum(1) / self.noise
            count = len(rows) * math.log(2 * math.pi * self.noise)
            value = (fit - gram[variable, variable] / self.noise - log_det - count) / 2
            scores.append(value.masked_fill(members[:, variable], -torch.inf))
        return torch.stack(scores)

    def posterior(self, rows: Tensor, members: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The conditional posterior of weights, given sets of parents.

        Args:
            rows: `(rows, n)`.
            members: `(sets, n)` bool.

        Returns:
            `(sets, n, n)` means of the weights of the parents in the rows on the variables in the
            columns, 0 of other parents; `(sets, n, n)` their covariance, the same for all
            variables; `(sets,)` log determinant of its inverse, relative to the prior's.
        """
        gram = rows.mT @ rows
        eye = torch.eye(len(gram), dtype=rows.dtype, device=rows.device)
        inside = members[:, :, None] & members[:, None, :]
        precision = torch.where(inside, gram / self.noise, 0.0) + eye / self.prior
        factor = torch.linalg.cholesky(precision)
        covariance = torch.where(inside, torch.cholesky_inverse(factor), 0.0)
        mean = covariance @ (gram / self.noise)
        log_det = 2 * factor.diagonal(dim1=-2, dim2=-1).log().sum(-1)
        return mean, covariance, log_det + len(gram) * math.log(self.prior)


class ParameterPosterior(DagPosterior):
    """`log p(D, G, theta)` of a data set, a graph and its parameters; latents have `adjacency`."""

    weighted = True

    @abstractmethod
    def families(self, x: Tables, z: Any) -> Tensor:
        """`(batch, samples, n)` float64 the joint of each variable's rows, parameters, parents."""

    @abstractmethod
    def effects(self, z: Any) -> Tensor:
        """`(batch, samples, n, n)` by how much `j` moves on average when `i` is set from 0 to 1."""

    def graphs(self, z: Any) -> Tensor:
        """`(batch, samples, n, n)` bool."""
        return z.adjacency

    def offers(self, hook: str) -> bool:
        """As `DagPosterior`; but a graph alone does not say what its parameters add."""
        return hook != "partial_log_joint" and super().offers(hook)

    def partial_log_joint(self, x: Tables, state: DagState) -> Tensor:
        """Not offered."""
        raise super(DagPosterior, self).partial_log_joint(x, state)

    def log_joint(self, x: Tables, z: Any) -> Tensor:
        """`(batch, samples)` float64 nats."""
        return self.families(x, z).sum(2) + self.log_terms(z.adjacency)


class WeightedPosterior(ParameterPosterior):
    """`log p(D, G, W)` of a data set, a graph and the weights of its edges.

    Latents are `Weighted`. Summed over the weights it is the `DagPosterior` of `KnownNoise`, so
    that exact inference remains.

    Args:
        variables: how many columns.
        noise: variance of the noise.
        prior: over edges; uniform over graphs if None.
        terms, max_parents, forbidden, required, discrete, columns: as for `DagPosterior`.
    """

    def __init__(
        self,
        variables: Fact = None,
        noise: Positive = 0.1,
        prior: EdgePrior | None = None,
        terms: Sequence[GraphTerm] = (),
        max_parents: Count | None = None,
        forbidden: Sequence[Sequence[Amount]] | None = None,
        required: Sequence[Sequence[Amount]] | None = None,
        discrete: bool | None = None,
        columns: Sequence[str] | None = None,
    ):
        known = KnownNoise(noise)
        super().__init__(
            variables, known, prior, terms, max_parents, forbidden, required, discrete, columns
        )
        self.known = known

    def told(self, z: Weighted) -> dict[str, Any]:
        """`{"weights": [...]}` of the edges, in their order."""
        return {"weights": z.weights[z.adjacency].tolist()}

    def effects(self, z: Weighted) -> Tensor:
        """See `Weighted.effects`."""
        return z.effects()

    def collapsed_log_joint(self, x: Tables, z: Weighted) -> Tensor:
        """`(batch, samples)` the weights summed out."""
        return DagPosterior.log_joint(self, x, z.adjacency)

    def families(self, x: Tables, z: Weighted) -> Tensor:
        """`(batch, samples, n)` float64 the joint of each variable's rows, weights and parents."""
        normal = -(z.weights.square() + math.log(2 * math.pi)) / 2
        own = self.log_parents(z.adjacency) + torch.where(z.adjacency, normal, 0.0).sum(2)
        return own + log_cells(z, x, self.known.noise).sum(2)

    def _listed(self, x: Tables) -> tuple[Tensor, Tensor]:
        from gfnem.graphs.dags import every_dag

        graphs = every_dag(self.variables).to(x.device)
        return graphs, DagPosterior.log_joint(self, x, graphs.expand(len(x), -1, -1, -1))

    @torch.no_grad()
    def sample_posterior(self, x: Tables, samples: int) -> Weighted:
        """Exact independent draws of graphs and weights."""
        return self.complete(x, super().sample_posterior(x, samples))

    def complete(self, x: Tables, adjacency: Tensor) -> Weighted:
        """Weights drawn from their exact conditional posterior, given graphs."""
        mean, covariance = self.conditional(x, adjacency)
        eye = torch.eye(self.variables, dtype=mean.dtype, device=mean.device)
        inside = adjacency.mT[..., None] & adjacency.mT[..., None, :]
        factor = torch.linalg.cholesky(torch.where(inside, covariance, eye))
        drawn = (factor @ torch.randn_like(mean)[..., None])[..., 0]
        return Weighted(adjacency, torch.where(adjacency.mT, mean + drawn, 0.0).mT)

    def conditional(self, x: Tables, adjacency: Tensor) -> tuple[Tensor, Tensor]:
        """Exact `p(W | G, D)`, for each variable apart.

        Args:
            x: data sets.
            adjacency: `(batch, samples, n, n)` bool.

        Returns:
            `(batch, samples, n, n)` means, `[j, i]` of the weight of `i` on `j`, and `(batch,
            samples, n, n, n)` covariances of the weights on each variable.
        """
        n = self.variables
        sets = parent_sets(n, self.max_parents, x.device)
        means, covariances = [], []
        for at in range(len(x)):
            rows = [x.values[at][x.real[at] & ~x.hand[at, :, j]] for j in range(n)]
            tables = [self.known.posterior(part, bits_of(sets.masks, n)) for part in rows]
            index = sets.number(bit_masks(adjacency[at].mT))  # (samples, n)
            means.append(torch.stack([tables[j][0][index[:, j], :, j] for j in range(n)], 1))
            covariances.append(torch.stack([tables[j][1][index[:, j]] for j in range(n)], 1))
        return torch.stack(means), torch.stack(covariances)


def log_cells(z: Any, x: Tables, noise: float) -> Tensor:
    """`(batch, samples, rows, n)` float64 log density of each cell in nats; 0 of those set by hand.

    Args:
        z: graphs with weights, or with networks.
        x: data sets, which may be others than those that `z` was drawn for.
        noise: variance of the noise.
    """
    error = x.values[:, None] - z.means(x.values)
    each = -(error.square() / noise + math.log(2 * math.pi * noise)) / 2
    counts = (x.real[..., None] & ~x.hand)[:, None]
    return torch.where(counts, each, 0.0)


def log_predictive(z: Any, x: Tables, noise: float) -> Tensor:
    """`(batch, rows)` posterior predictive log density of new rows, in nats.

    Args:
        z: draws of the posterior.
        x: new rows.
        noise: variance of the noise.
    """
    rows = log_cells(z, x, noise).sum(3)
    return rows.logsumexp(1) - math.log(rows.shape[1])

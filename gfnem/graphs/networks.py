"""Graphs with a small neural network for every variable that has parents."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from gfnem.batched import Batched
from gfnem.graphs.dags import parent_sets
from gfnem.graphs.priors import EdgePrior, GraphTerm
from gfnem.graphs.tables import Tables
from gfnem.graphs.weights import KnownNoise, ParameterPosterior, log_cells
from gfnem.ranges import Amount, Count, Fact, Positive

#: draws of the prior by which the evidence of a family is estimated at first
_DRAWS = 1000
#: rows that are drawn after an intervention
_ROWS = 100


@dataclass
class Networks(Batched):
    """Graphs and the networks of their variables; all 0 where a variable has no parents.

    Attributes:
        adjacency: `(batch, samples, n, n)` bool.
        inner: `(batch, samples, n, units, n)` float64; entry `[j, h, i]` is the weight of variable
            `i` in unit `h` of the network of `j`, 0 where `i` is no parent.
        bias: `(batch, samples, n, units)` of the units.
        outer: `(batch, samples, n, units)` weights of the units in the output.
    """

    adjacency: Tensor
    inner: Tensor
    bias: Tensor
    outer: Tensor

    def means(self, values: Tensor) -> Tensor:
        """`(batch, samples, rows, n)` what the networks expect of each variable.

        Args:
            values: `(batch, rows, n)`, or `(batch, samples, rows, n)` rows of each sample.
        """
        values = values if values.dim() == 4 else values[:, None]
        units = features(values, self.adjacency, self.inner, self.bias)
        return (units @ self.outer[..., None])[..., 0].mT

    def intervened(self, rows: int, noise: float, variable: int, value: float) -> Tensor:
        """`(batch, samples, rows, n)` rows drawn after one variable is set by hand.

        The effect of an intervention is the difference of the means of two such draws.

        Args:
            rows: how many for each sample.
            noise: variance of the noise.
            variable: which one is set.
            value: to what.
        """
        n = self.adjacency.shape[-1]
        shape = (*self.adjacency.shape[:2], rows, n)
        error = math.sqrt(noise) * torch.randn(
            shape, dtype=self.inner.dtype, device=self.inner.device
        )
        found = error
        for _ in range(n):  # after as many rounds as a path is long, all have heard of their causes
            found = torch.where(
                torch.arange(n, device=error.device) == variable, value, self.means(found) + error
            )
        return found


def features(values: Tensor, adjacency: Tensor, inner: Tensor, bias: Tensor) -> Tensor:
    """`(batch, samples, n, rows, units)` the units of each variable's network, 0 without parents.

    Args:
        values: `(batch, samples, rows, n)`; the axis of samples may be 1.
        adjacency, inner, bias: as in `Networks`.
    """
    units = torch.tanh(values[:, :, None] @ inner.mT + bias[..., None, :])
    return units * adjacency.any(2)[..., None, None]


def regressed(units: Tensor, target: Tensor, keep: Tensor, noise: float) -> tuple[Tensor, ...]:
    """Bayesian linear regression on units, output weights standard normal (Bishop 2006, 3.3).

    Args:
        units: `(..., rows, units)`.
        target: `(..., rows)`.
        keep: `(..., rows)` 1 for rows that count.
        noise: variance of the noise.

    Returns:
        `(..., units)` means of the output weights, `(..., units, units)` lower factors of their
        precisions, `(...)` log evidence in nats, the output weights summed out.
    """
    kept = units * keep[..., None]
    eye = torch.eye(units.shape[-1], dtype=units.dtype, device=units.device)
    factor = torch.linalg.cholesky(kept.mT @ units / noise + eye)
    pull = (kept * target[..., None]).sum(-2) / noise
    mean = torch.cholesky_solve(pull[..., None], factor)[..., 0]
    fit = (target.square() * keep).sum(-1) / noise - (pull * mean).sum(-1)
    log_det = 2 * factor.diagonal(dim1=-2, dim2=-1).log().sum(-1)
    count = keep.sum(-1) * math.log(2 * math.pi * noise)
    return mean, factor, -(fit + log_det + count) / 2


class FamilyLikelihood:
    """The likelihood of each family's network, output weights summed out, all families at once.

    Args:
        model: the target.
        x: data sets.
        at: which of them.
        some: `(n, sets)` bool families; all if None.

    Attributes:
        child, number: `(families,)` the variable, and the number of its set of parents.
        parents: `(families, n)` bool.
        active: `(families, 1, 1, n + 1)` bool: the weights of a unit that there are, its bias last.
    """

    def __init__(self, model: NetworkPosterior, x: Tables, at: int = 0, some: Tensor | None = None):
        members = parent_sets(model.variables, model.max_parents, x.device).members()
        self.model, rows = model, x.values[at]
        wanted = ~members.mT if some is None else ~members.mT & some
        self.child, self.number = wanted.nonzero().unbind(1)
        self.parents = members[self.number]
        any_parent = self.parents.any(1, keepdim=True)
        self.active = torch.cat([self.parents, any_parent], 1)[:, None, None]
        self.scale = rows.new_tensor([model.spread] * model.variables + [1.0])
        self.rows, self.target = rows, rows.mT[self.child][:, None]
        self.keep = (x.real[at][:, None] & ~x.hand[at]).mT[self.child][:, None].to(rows)

    def draw(self, draws: int) -> Tensor:
        """`(families, draws, units, n + 1)` weights of units from the prior, in its deviations."""
        shape = len(self.child), draws, self.model.units_of_each, self.model.variables + 1
        noise = torch.randn(shape, dtype=self.rows.dtype, device=self.rows.device)
        return noise * self.active

    def regressed(self, theta: Tensor) -> tuple[Tensor, ...]:
        """See `regressed`; weights of units as from `draw`."""
        weights = theta * self.scale
        inner, bias = weights[..., :-1], weights[..., -1]
        units = torch.tanh(self.rows @ inner.mT + bias[..., None, :])
        units = units * self.active[..., -1:]
        return regressed(units, self.target, self.keep, self.model.noise)


class NetworkPosterior(ParameterPosterior):
    """`log p(D, G, theta)` of a data set, a graph and the networks of its variables.

    A variable with parents is the output of a network with one layer of `tanh` units and standard
    normal weights, plus normal noise of a known variance; one without parents is noise (Deleu et
    al. 2023, arXiv 2305.19366, section 5.2). Columns are taken as they are. Latents are `Networks`.
    The evidence of a family is not known. The table of scores has an estimate from draws of the
    prior, from which a sampler may start.

    Args:
        variables: how many columns.
        units: of each network.
        noise: variance of the noise.
        spread: standard deviation of the weights of parents in units; of all others it is 1.
        prior: over edges; uniform over graphs if None.
        terms: factors of the prior that do not add over families.
        max_parents: most parents of a node; any number if None.
        forbidden, required: not heeded, and so refused.
        discrete, columns: as for `DagPosterior`.

    Raises:
        ValueError: if edges are known, or as `DagPosterior` does.
    """

    def __init__(
        self,
        variables: Fact = None,
        units: Count = 2,
        noise: Positive = 0.1,
        spread: Positive = 2.0,
        prior: EdgePrior | None = None,
        terms: Sequence[GraphTerm] = (),
        max_parents: Count | None = None,
        forbidden: Sequence[Sequence[Amount]] | None = None,
        required: Sequence[Sequence[Amount]] | None = None,
        discrete: bool | None = None,
        columns: Sequence[str] | None = None,
    ):
        if forbidden or required:
            raise ValueError(
                "edges known beforehand are for models whose families have a closed form, "
                "DagPosterior and WeightedPosterior"
            )
        super().__init__(
            variables, KnownNoise(noise), prior, terms, max_parents, None, None, discrete, columns
        )
        self.units_of_each, self.noise, self.spread = units, noise, spread

    def told(self, z: Networks) -> dict[str, Any]:
        """`{"networks": {"inner": ..., "bias": ..., "outer": ...}}` of each variable."""
        parts = {"inner": z.inner, "bias": z.bias, "outer": z.outer}
        return {"networks": {name: part[0, 0].tolist() for name, part in parts.items()}}

    def effects(self, z: Networks) -> Tensor:
        """`(batch, samples, n, n)` by how much `j` moves on average when `i` is set from 0 to 1.

        By simulation of 100 rows.
        """
        found = []
        for variable in range(self.variables):
            low, high = (
                z.intervened(_ROWS, self.noise, variable, value).mean(2) for value in (0.0, 1.0)
            )
            found.append(high - low)
        return torch.stack(found, 2)

    def offers(self, hook: str) -> bool:
        """Nothing is known exactly."""
        return hook not in ("log_marginal", "sample_posterior") and super().offers(hook)

    @torch.no_grad()
    def table(self, x: Tables) -> Tensor:
        """`(batch, n, sets)` float64 nats: estimates from draws of the prior, and the prior."""
        prior = self.prior_table(x.device)
        found = torch.full_like(prior, -torch.inf).repeat(len(x), 1, 1)
        with torch.random.fork_rng(devices=[x.device] if x.device.type == "cuda" else []):
            torch.manual_seed(0)
            for at in range(len(x)):
                families = FamilyLikelihood(self, x, at)
                value = families.regressed(families.draw(_DRAWS))[2]
                found[at, families.child, families.number] = value.logsumexp(1) - math.log(_DRAWS)
        return found + prior

    def log_hidden(self, z: Networks) -> Tensor:
        """`(batch, samples, n)` log prior of the weights and biases of each variable's units."""
        parent, some = z.adjacency.mT, z.adjacency.any(2)
        scaled = z.inner / self.spread
        each = -(scaled.square() + math.log(2 * math.pi)) / 2 - math.log(self.spread)
        found = (each * parent[..., None, :]).sum((3, 4))
        bias = -(z.bias.square() + math.log(2 * math.pi)) / 2
        return found + bias.sum(3) * some

    def regressed(self, x: Tables, z: Networks) -> tuple[Tensor, ...]:
        """The output weights' conditional posterior and the evidence of each family, see there."""
        units = features(x.values[:, None], z.adjacency, z.inner, z.bias)
        keep = (x.real[..., None] & ~x.hand).mT[:, None].to(units)
        return regressed(units, x.values.mT[:, None], keep, self.noise)

    def collapsed_log_joint(self, x: Tables, z: Networks) -> Tensor:
        """`(batch, samples)` the output weights summed out."""
        own = self.regressed(x, z)[2] + self.log_hidden(z) + self.log_parents(z.adjacency)
        return own.sum(2) + self.log_terms(z.adjacency)

    def families(self, x: Tables, z: Networks) -> Tensor:
        """`(batch, samples, n)` float64 the joint of each variable's rows, network and parents."""
        outer = -(z.outer.square() + math.log(2 * math.pi)) / 2 * z.adjacency.any(2)[..., None]
        own = self.log_parents(z.adjacency) + self.log_hidden(z) + outer.sum(3)
        return own + log_cells(z, x, self.noise).sum(2)

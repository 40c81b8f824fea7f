"""After the graph its networks: units one weight after the other, output weights exactly."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from gfnem.estimates import importance_weighted
from gfnem.graphs.completion import Completing
from gfnem.graphs.dags import parent_sets
from gfnem.graphs.layer_policy import LayerPolicy
from gfnem.graphs.networks import NetworkPosterior, Networks
from gfnem.objectives import huber
from gfnem.ranges import Count, Fact
from gfnem.sampling import Exploration
from gfnem.space import LatentSpace, Trajectories
from gfnem.target import Conditioned

#: nats in a unit of what is learned of scores: they have a long way to go
_SCALE = 10.0
#: families of a variable that an update looks at
_FAMILIES = 16
#: share of units that these draw from the prior
_STRAYS = 0.1


@dataclass
class NetworkReading:
    """What is known of a batch of data sets.

    Attributes:
        graphs: what the policy over graphs knows, of scores that are learned.
        given: the target's tables, with what is learned in them, held constant; None where a
            policy is tried without one.
        table: `(batch, n, sets)` these scores as they are learned; None likewise.
    """

    graphs: Any
    given: Any
    table: Any


class UnitDensity(nn.Module):
    """A density over the weights of a variable's units, for each variable and its parents.

    One weight after the other from a mixture of normals that depends on those before it. What the
    units are called does not matter to a network, nor the sign of a unit: the density is the mean
    over all ways to rename and to turn them, so it need not learn that they are equally probable.

    Args:
        variables: how many nodes there are.
        units: of each network.
        components: of each mixture.
        hidden: width of the networks that say which mixture.
    """

    def __init__(self, variables: int, units: int, components: int, hidden: int):
        super().__init__()
        self.variables, self.units = variables, units
        size = units * (variables + 1)
        inputs = variables + size
        earlier = torch.ones(size, inputs)
        earlier[:, variables:] = torch.ones(size, size).tril(-1)
        self.register_buffer("earlier", earlier[..., None])
        self.first = nn.Parameter(torch.randn(variables, size, inputs, hidden) / inputs**0.5)
        self.first_bias = nn.Parameter(torch.zeros(variables, size, hidden))
        self.second = nn.Parameter(torch.randn(variables, size, hidden, hidden) / hidden**0.5)
        self.second_bias = nn.Parameter(torch.zeros(variables, size, hidden))
        self.last = nn.Parameter(torch.zeros(variables, size, hidden, 3 * components))
        # at first a broad mixture around 0, of components that differ
        start = torch.zeros(3, components)
        start[1] = torch.linspace(-1, 1, components) if components > 1 else 0
        self.last_bias = nn.Parameter(start.flatten().repeat(variables, size, 1))
        ways = [
            (order, signs)
            for order in itertools.permutations(range(units))
            for signs in itertools.product((1.0, -1.0), repeat=units)
        ]
        self.register_buffer("orders", torch.tensor([order for order, _ in ways]))
        self.register_buffer("signs", torch.tensor([signs for _, signs in ways]))

    def active(self, adjacency: Tensor) -> Tensor:
        """`(batch, samples, n, size)` bool: the weights that there are."""
        parent = adjacency.mT
        each = torch.cat([parent, parent.any(3, keepdim=True)], 3)
        return each.repeat(1, 1, 1, self.units)

    def mixtures(self, adjacency: Tensor, values: Tensor, at: slice) -> tuple[Tensor, ...]:
        """Log shares, means and log deviations of the components of the weights numbered `at`.

        Args:
            adjacency: `(batch, samples, n, n)`.
            values: `(batch, samples, n, size)`; entries that come later are not looked at.
        """
        inputs = torch.cat([adjacency.mT.to(values), values], 3)
        weight = self.first[:, at] * self.earlier[at]
        hidden = torch.einsum("bsni,ndih->bsndh", inputs, weight) + self.first_bias[:, at]
        hidden = nn.functional.silu(hidden)
        more = torch.einsum("bsndh,ndhk->bsndk", hidden, self.second[:, at])
        hidden = hidden + nn.functional.silu(more + self.second_bias[:, at])
        output = torch.einsum("bsndh,ndhk->bsndk", hidden, self.last[:, at])
        shares, means, deviations = (output + self.last_bias[:, at]).chunk(3, -1)
        return shares.log_softmax(-1), means, 4 * torch.tanh(deviations / 4)

    def of_one_name(self, adjacency: Tensor, values: Tensor) -> Tensor:
        """`(batch, samples, n)` log density, units as they are named, in nats."""
        shares, means, deviations = self.mixtures(adjacency, values, slice(None))
        away = (values[..., None] - means) / deviations.exp()
        each = shares - away.square() / 2 - deviations - math.log(2 * math.pi) / 2
        return (each.logsumexp(-1) * self.active(adjacency)).sum(3)

    def renamed(self, values: Tensor, way: Tensor) -> Tensor:
        """Weights `(..., size)` with the units renamed and turned, `way` `(...)` numbers of it."""
        each = values.unflatten(-1, (self.units, self.variables + 1))
        order = self.orders[way][..., None].expand(each.shape)
        return (each.gather(-2, order) * self.signs[way][..., None]).flatten(-2)

    def log_density(self, adjacency: Tensor, values: Tensor) -> Tensor:
        """`(batch, samples, n)` log density in nats of weights `(batch, samples, n, size)`."""
        ways, samples = len(self.signs), values.shape[1]
        way = torch.arange(ways, device=values.device).repeat_interleave(samples)
        way = way[None, :, None].expand(len(values), -1, values.shape[2])
        found = self.of_one_name(
            adjacency.repeat(1, ways, 1, 1), self.renamed(values.repeat(1, ways, 1, 1), way)
        )
        return found.unflatten(1, (ways, samples)).logsumexp(1) - math.log(ways)

    @torch.no_grad()
    def sample(self, adjacency: Tensor) -> Tensor:
        """`(batch, samples, n, size)` draws."""
        size = self.units * (self.variables + 1)
        like = self.last
        values = like.new_zeros(*adjacency.shape[:3], size)
        active = self.active(adjacency)
        for at in range(size):
            shares, means, deviations = self.mixtures(adjacency, values, slice(at, at + 1))
            chosen = torch.distributions.Categorical(logits=shares[..., 0, :]).sample()[..., None]
            mean = means[..., 0, :].gather(3, chosen)[..., 0]
            spread = deviations[..., 0, :].gather(3, chosen)[..., 0].exp()
            drawn = mean + spread * torch.randn_like(mean)
            values[..., at] = drawn * active[..., at]
        way = torch.randint(len(self.signs), values.shape[:3], device=values.device)
        return self.renamed(values, way)


class NetworkPolicy(Completing):
    """Graphs layer by layer, then the network of each variable.

    Scores of families are learned, from the target's table; they are what a complete graph's flow
    adds up from, and a `LayerPolicy` draws graphs by them. Weights of units come from a
    `UnitDensity`, in units of their prior; output weights from their exact conditional posterior,
    which learns nothing. While training a share `epsilon` of graphs is drawn with all families
    alike, and as large a share of units from the prior.

    Families are trained by a loss of their own alone, see `auxiliary_loss`. Balance would make
    their scores lower bounds, too low by what the density misses, so that graphs were those whose
    networks are easy to draw; and it would leave out modes.

    Args:
        variables: how many nodes there are.
        units: of each network; as the model has.
        max_parents: most parents of a node; any number if None.
        hidden: width of the network over graphs.
        components: of each mixture of normals.
        width: of the networks that say which mixture.
        draws: networks of a family that its own loss looks at in an update.
    """

    def __init__(
        self,
        variables: Fact = None,
        units: Count = 2,
        max_parents: Count | None = None,
        hidden: Count = 64,
        components: Count = 6,
        width: Count = 32,
        draws: Count = 48,
    ):
        assert variables is not None
        super().__init__(LayerPolicy(variables, max_parents, hidden))
        self.variables, self.units, self.draws = variables, units, draws
        sets = parent_sets(variables, max_parents)
        self.learned = nn.Parameter(torch.zeros(variables, len(sets)))
        self.density = UnitDensity(variables, units, components, width)

    def serve(self, target: Any) -> None:
        """Told to the policy over graphs.

        Raises:
            ValueError: if the networks have another number of units.
        """
        super().serve(target)
        if isinstance(target, NetworkPosterior) and target.units_of_each != self.units:
            raise ValueError(
                f"networks have {target.units_of_each} units, and the policy draws {self.units}: "
                "set both alike"
            )

    def encode(self, x: Any, given: Conditioned | None = None) -> NetworkReading:
        """The scores of families as they are learned, which graphs take as they are."""
        if given is None:
            return NetworkReading(self.graphs.encode(x), None, None)
        table: Any = given
        table = table.table + _SCALE * self.learned
        shifted = given.replaced(table.detach())
        return NetworkReading(self.graphs.encode(x, shifted), shifted, table)

    def auxiliary_loss(self, context: NetworkReading) -> Tensor:
        """`(batch,)` of families, each by itself; of some families where there are many.

        The density of units is fitted to its own draws and some of the prior, by their importance
        weights: the wake phase of reweighted wake-sleep (Bornschein et al. 2015, arXiv 1406.2751).
        That is the divergence which holds on to each mode that was ever drawn. A family's score
        comes after the mean of the weights.
        """
        given = context.given
        if given is None:
            return next(self.parameters()).new_zeros(len(context.graphs.local))
        n, batch, device = self.variables, len(given.table), given.table.device
        members = parent_sets(n, self.graphs.space.max_parents, device).members()
        number = torch.stack([(~members[:, child]).nonzero()[:, 0] for child in range(n)])
        number = number[:, torch.randperm(number.shape[1], device=device)[:_FAMILIES]]
        # one matrix has a family of each variable; that is no graph, and need not be
        matrices = members[number].permute(1, 2, 0)[None].expand(batch, -1, -1, -1)
        matrices = matrices.repeat_interleave(self.draws, 1)

        def apart(tensor: Tensor) -> Tensor:  # (batch, families of a variable, draws, n)
            return tensor.unflatten(1, (-1, self.draws))

        with torch.no_grad():
            z, log_drawn = self.drawn(context, matrices, _STRAYS)
            weights = apart(given.target.families(given.x, z) - log_drawn)
            evidence = importance_weighted(weights.transpose(2, 3))
            fits = torch.isfinite(evidence)  # what is known of edges may rule a family out
            weights = weights.softmax(2)
        child = torch.arange(n, device=device)
        away = huber((context.table[:, child, number.mT] - evidence).square())
        loss = away - (weights * apart(self._log_units(context, z))).sum(2)
        return loss.masked_fill(~fits, 0.0).sum((1, 2))

    def _spreads(self, context: NetworkReading) -> Tensor:
        """`(size,)` deviations of the weights of units under the prior."""
        spread = 1.0 if context.given is None else context.given.target.spread
        each = torch.ones(self.variables + 1, device=self.learned.device)
        each[:-1] = spread
        return each.repeat(self.units)

    def _unfolded(self, context: NetworkReading, adjacency: Tensor, values: Tensor) -> Networks:
        """Networks without their output weights, from weights in units of their prior."""
        each = (values * self._spreads(context)).double()
        each = each.unflatten(-1, (self.units, self.variables + 1))
        outer = torch.zeros_like(each[..., 0])
        return Networks(adjacency, each[..., :-1], each[..., -1], outer)

    def _folded(self, context: NetworkReading, z: Networks) -> Tensor:
        each = torch.cat([z.inner, z.bias[..., None]], -1).flatten(-2)
        return (each / self._spreads(context)).to(self.learned)

    def _log_units(self, context: NetworkReading, z: Networks) -> Tensor:
        """`(batch, samples, n)` log density of the weights of units, in nats."""
        active = self.density.active(z.adjacency)
        found = self.density.log_density(z.adjacency, self._folded(context, z))
        return found - (active * self._spreads(context).log()).sum(3)

    def _outer(self, context: NetworkReading, z: Networks) -> tuple[Tensor, Tensor]:
        """Means and lower factors of precisions of the output weights."""
        if context.given is not None:
            return context.given.target.regressed(context.given.x, z)[:2]
        eye = torch.eye(self.units, dtype=z.bias.dtype, device=z.bias.device)
        return torch.zeros_like(z.bias), eye.expand(*z.bias.shape, -1)

    @torch.no_grad()
    def sample(
        self,
        context: NetworkReading,
        x: Any,
        space: LatentSpace,
        samples: int,
        exploration: Exploration | None = None,
    ) -> Trajectories:
        """Draws graphs, some of them by no scores, then networks."""
        found = super().sample(context, x, space, samples, exploration)
        if exploration is None or exploration.epsilon == 0 or context.given is None:
            return found
        given = context.given
        alike = torch.where(given.table > -torch.inf, 0.0, -torch.inf)
        flat = self.graphs.encode(x, given.replaced(alike))
        graphs = self.graphs.sample(flat, x, space, samples).latent
        strays = torch.rand(graphs.shape[:2], device=graphs.device) < exploration.epsilon
        graphs = torch.where(strays[..., None, None], graphs, found.latent.adjacency)
        z, _ = self.complete(context, graphs, exploration)
        return replace(self.retrace(context, x, space, z), log_behaviour=None)

    def complete(
        self, context: NetworkReading, adjacency: Tensor, exploration: Exploration
    ) -> tuple[Networks, Tensor]:
        """Units, some of them from the prior where draws stray, then output weights."""
        z, log_drawn = self.drawn(context, adjacency, exploration.epsilon)
        return z, log_drawn.sum(2)

    def drawn(
        self, context: NetworkReading, adjacency: Tensor, share: float
    ) -> tuple[Networks, Tensor]:
        """Networks, and `(batch, samples, n)` the log densities in nats that they were drawn with.

        Args:
            context: what is known of the data.
            adjacency: `(batch, samples, n, n)` bool parents of each variable.
            share: of units that are drawn from the prior.
        """
        values = self.density.sample(adjacency)
        if share > 0:
            strays = torch.rand(values.shape[:3], device=values.device) < share
            prior = torch.randn_like(values) * self.density.active(adjacency)
            values = torch.where(strays[..., None], prior, values)
        z = self._unfolded(context, adjacency, values)
        mean, factor = self._outer(context, z)
        noise = torch.randn_like(mean)[..., None]
        drawn = mean + torch.linalg.solve_triangular(factor.mT, noise, upper=True)[..., 0]
        z.outer = drawn * adjacency.any(2)[..., None]
        found = self._log_units(context, z)
        if share > 0:
            active = self.density.active(adjacency)
            prior = -(values.square() + math.log(2 * math.pi)) / 2
            prior = (active * (prior - self._spreads(context).log())).sum(3)
            own = found + math.log1p(-share) if share < 1 else found - torch.inf
            found = torch.logaddexp(own, prior + math.log(share))
        return z, found + self._log_outer(z, mean, factor)

    @staticmethod
    def _log_outer(z: Networks, mean: Tensor, factor: Tensor) -> Tensor:
        """`(batch, samples, n)` log density of the output weights, in nats."""
        away = (factor.mT @ (z.outer - mean)[..., None])[..., 0]
        log_det = factor.diagonal(dim1=-2, dim2=-1).log()
        each = log_det - (away.square() + math.log(2 * math.pi)) / 2
        return each.sum(3) * z.adjacency.any(2)

    @torch.no_grad()
    def log_density(self, context: NetworkReading, z: Networks) -> Tensor:
        """`(batch, samples, n)` log density of each variable's network, given graphs, in nats."""
        return self._log_units(context, z) + self._log_outer(z, *self._outer(context, z))

"""After the graph its parameters: a policy that draws weights once the graph is complete."""

from __future__ import annotations

import math
from abc import abstractmethod
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from gfnem.graphs.dags import bit_masks
from gfnem.graphs.weights import Weighted, WeightedPosterior
from gfnem.policy import Policy, Scores, Step
from gfnem.ranges import Fact
from gfnem.sampling import ON_POLICY, Exploration
from gfnem.space import LatentSpace, Trajectories


class Completing(Policy):
    """Graphs by one policy, then the parameters of their families; a base class.

    After the graph there is a step for each variable, in their order: it draws the parameters of
    the variable's family, and `log P_F` is their log density in nats (Deleu et al. 2023, arXiv
    2305.19366). So detailed balance tells families apart. A subclass reads the data in `encode`,
    and says how parameters are drawn. Its context has the graph policy's as `graphs`, and the
    tables of scores as `given`, None where a policy is tried without a target.

    Args:
        graphs: the policy over graphs, in which each has one trajectory.
    """

    def __init__(self, graphs: Policy):
        super().__init__()
        self.graphs = graphs

    @abstractmethod
    def complete(
        self, context: Any, adjacency: Tensor, exploration: Exploration
    ) -> tuple[Any, Tensor]:
        """Draws parameters.

        Args:
            context: what is known of the data.
            adjacency: `(batch, samples, n, n)` bool graphs.
            exploration: how much draws stray, where the subclass can.

        Returns:
            Graphs with their parameters, and `(batch, samples)` the log density in nats with which
            the parameters were drawn.
        """

    @abstractmethod
    def log_density(self, context: Any, z: Any) -> Tensor:
        """`(batch, samples, n)` log density of each family's parameters, given graphs, in nats."""

    def levels(self, context: Any, z: Any) -> Tensor:
        """`(batch, samples, n + 1)` log flow of the graph, and with the first parameters drawn.

        What is drawn counts as it is, what is not by its family's score.
        """
        given = context.given
        if given is None:
            adjacency = z.adjacency
            return torch.zeros(
                *adjacency.shape[:2], adjacency.shape[2] + 1, device=adjacency.device
            )
        score = given.families(bit_masks(z.adjacency.mT))
        with torch.no_grad():
            drawn = given.target.families(given.x, z)
        total = score.sum(2, keepdim=True)
        return torch.cat([total, total + (drawn - score).cumsum(2)], 2)

    def serve(self, target: Any) -> None:
        """Told to the policy over graphs."""
        self.graphs.serve(target)

    def forward(self, context: Any, state: Any) -> Step:
        """What the policy over graphs says."""
        return self.graphs(context.graphs, state)

    def choose(
        self, context: Any, space: LatentSpace, state: Any, exploration: Exploration
    ) -> tuple[Tensor, Tensor]:
        """As the policy over graphs does."""
        return self.graphs.choose(context.graphs, space, state, exploration)

    def log_z(self, context: Any) -> Tensor:
        """`(batch,)` the policy's over graphs."""
        return self.graphs.log_z(context.graphs)

    @torch.no_grad()
    def sample(
        self,
        context: Any,
        x: Any,
        space: LatentSpace,
        samples: int,
        exploration: Exploration | None = None,
    ) -> Trajectories:
        """Draws graphs, then parameters."""
        found = self.graphs.sample(context.graphs, x, space, samples, exploration)
        z, log_drawn = self.complete(context, found.latent, exploration or ON_POLICY)
        behaviour = found.log_behaviour
        return replace(
            found, latent=z, log_behaviour=None if behaviour is None else behaviour + log_drawn
        )

    @torch.no_grad()
    def retrace(self, context: Any, x: Any, space: LatentSpace, latent: Any) -> Trajectories:
        """The graphs' trajectories; the parameters are those given."""
        found = self.graphs.retrace(context.graphs, x, space, latent.adjacency)
        return replace(found, latent=latent)

    @torch.no_grad()
    def regrow(
        self, context: Any, x: Any, space: LatentSpace, latent: Any, back: int | float
    ) -> tuple[Any, Tensor]:
        """The graph is regrown, and all its parameters are drawn anew."""
        graphs, correction = self.graphs.regrow(context.graphs, x, space, latent.adjacency, back)
        new, log_drawn = self.complete(context, graphs, ON_POLICY)
        return new, correction + self.log_density(context, latent).sum(2) - log_drawn

    def score(
        self,
        context: Any,
        space: LatentSpace,
        trajectories: Trajectories,
        flows: bool = False,
        forward_looking: bool = False,
        steps: int | None = None,
    ) -> Scores:
        """As the policy over graphs does, with a step for the parameters of each variable."""
        if steps is not None:
            raise ValueError("parameters are drawn last: all steps are needed, leave steps out")
        scores = self.graphs.score(context.graphs, space, trajectories, flows, forward_looking)
        density = self.log_density(context, trajectories.latent)
        n = density.shape[2]
        # of a short trajectory padding is at the end, of one that is retraced at the beginning
        ends = (
            torch.arange(1, scores.mask.shape[2] + 1, device=density.device) * scores.mask
        ).amax(2)
        place = ends[..., None] + torch.arange(n + 1, device=density.device)

        def appended(tensor: Tensor, more: Tensor) -> Tensor:
            padded = nn.functional.pad(tensor.to(more), (0, n))
            return padded.scatter(2, place[..., : more.shape[2]], more)

        log_flow = scores.log_flow
        if log_flow is not None:
            log_flow = appended(log_flow, self.levels(context, trajectories.latent))
        return replace(
            scores,
            log_pf=appended(scores.log_pf, density),
            log_pb=nn.functional.pad(scores.log_pb, (0, n)),
            mask=appended(scores.mask, torch.ones_like(density, dtype=torch.bool)),
            log_flow=log_flow,
        )


@dataclass
class WeightReading:
    """What is known of a batch of data sets.

    Attributes:
        graphs: what the policy over graphs knows.
        given: the tables of scores.
        pull: `(batch, n, n)` float64, `[j, i]` the gradient of the log joint with respect to the
            weight of `i` on `j`, where all weights are 0.
        root: `(batch, n, n, n)` float64 lower factor of the precision of the weights on each
            variable at the start.
    """

    graphs: Any
    given: Any
    pull: Tensor
    root: Tensor


class CompletedPolicy(Completing):
    """Graphs by one policy, then the weights of each family from a normal distribution.

    The normal of a family is given by a precision matrix and a vector of pulls. These are learned
    for each variable over all others, and a set of parents takes its part of them, so that all sets
    learn from each other. They start from the log joint's gradient and curvature where all weights
    are 0. Where the noise is known and the networks are linear that is exact, and little is left to
    learn.

    Args:
        graphs: the policy over graphs.
        variables: how many nodes there are.
        curvature: whether the start heeds how parents are correlated; if not, weights start from
            what each parent alone would have, which is far off where parents are alike.
    """

    def __init__(self, graphs: Policy, variables: Fact = None, curvature: bool = True):
        super().__init__(graphs)
        assert variables is not None
        self.variables, self.curvature = variables, curvature
        eye = torch.eye(variables, dtype=torch.float64)
        #: lower factors of each variable's precision, in units of the one at the start
        self.factor = nn.Parameter(eye.repeat(variables, 1, 1))
        self.shift = nn.Parameter(torch.zeros_like(eye))  # of pulls, likewise

    def encode(self, x: Any, given: Any = None) -> WeightReading:
        """Reads tables of local scores, and products of columns."""
        target = None if given is None else given.target
        noise = target.known.noise if isinstance(target, WeightedPosterior) else 1.0
        rows = torch.where(x.real[..., None], x.values, 0.0)
        # rows where a variable was set by hand say nothing of the weights on it
        own = rows[..., None, :] * ~x.hand[..., None]  # (batch, rows, child, n)
        products = torch.einsum("brji,brk->bjik", own, rows) / noise
        pull = products.diagonal(dim1=1, dim2=3).mT
        precision = products + torch.eye(self.variables, dtype=rows.dtype, device=rows.device)
        if not self.curvature:
            precision = torch.diag_embed(precision.diagonal(dim1=2, dim2=3))
        root = torch.linalg.cholesky(precision)
        return WeightReading(self.graphs.encode(x, given), given, pull, root)

    def normal(self, context: WeightReading, adjacency: Tensor) -> tuple[Tensor, Tensor]:
        """What weights are drawn from, given graphs `(batch, samples, n, n)`.

        Returns:
            `(batch, samples, n, n)` means, `[j, i]` of the weight of `i` on `j`, and `(batch,
            samples, n, n, n)` lower factors of the covariances; 0 and 1 where `i` is no parent.
        """
        parent = adjacency.mT
        inside = parent[..., :, None] & parent[..., None, :]
        lower = context.root @ self.factor.tril()  # (batch, child, n, n)
        precision = lower @ lower.mT
        eye = torch.eye(self.variables, dtype=precision.dtype, device=precision.device)
        precision = torch.where(inside, precision[:, None], eye)
        covariance = torch.cholesky_inverse(torch.linalg.cholesky(precision))
        pull = context.pull + self.shift * context.root.diagonal(dim1=2, dim2=3)
        pull = torch.where(parent, pull[:, None], 0.0)
        mean = (covariance @ pull[..., None])[..., 0]
        return torch.where(parent, mean, 0.0), torch.linalg.cholesky(covariance)

    def log_density(self, context: WeightReading, z: Weighted) -> Tensor:
        """`(batch, samples, n)` log density of each variable's weights, given graphs, in nats."""
        mean, factor = self.normal(context, z.adjacency)
        parent = z.adjacency.mT
        away = torch.where(parent, z.weights.mT.to(mean) - mean, 0.0)
        noise = torch.linalg.solve_triangular(factor, away[..., None], upper=False)[..., 0]
        each = -(noise.square() + math.log(2 * math.pi)) / 2
        each = each - factor.diagonal(dim1=-2, dim2=-1).log()
        return torch.where(parent, each, 0.0).sum(3)

    def complete(
        self, context: WeightReading, adjacency: Tensor, exploration: Exploration
    ) -> tuple[Weighted, Tensor]:
        """Weights from the normals; they do not stray."""
        mean, factor = self.normal(context, adjacency)
        drawn = mean + (factor @ torch.randn_like(mean)[..., None])[..., 0]
        z = Weighted(adjacency, torch.where(adjacency.mT, drawn, 0.0).mT)
        return z, self.log_density(context, z).sum(2)

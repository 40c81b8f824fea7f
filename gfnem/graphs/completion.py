"""After the graph its parameters: a policy that draws weights once the graph is complete."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from gfnem.graphs.weights import Weighted, WeightedPosterior
from gfnem.policy import Policy, Scores, Step
from gfnem.ranges import Fact
from gfnem.sampling import Exploration
from gfnem.space import LatentSpace, Trajectories


@dataclass
class Completing:
    """What is known of a batch of data sets.

    Attributes:
        graphs: what the policy over graphs knows.
        pull: `(batch, n, n)` float64 the gradient of the log joint with respect to the weight of
            `i` on `j`, where all weights are 0.
        precision: `(batch, n)` float64 of a weight of `i`, where `i` is the only parent.
    """

    graphs: Any
    pull: Tensor
    precision: Tensor


class CompletedPolicy(Policy):
    """Graphs by one policy, then the weights of each family from a normal distribution.

    The last step draws graph and weights together: `log P_F` has the log density of the weights
    in it, in nats (Deleu et al. 2023, arXiv 2305.19366). The normal of a family is given by a
    precision matrix and a vector of pulls. These are learned for each variable over all others, and
    a set of parents takes its part of them, so that all sets learn from each other. They start from
    what each parent alone would have.

    Args:
        graphs: the policy over graphs.
        variables: how many nodes there are.
    """

    def __init__(self, graphs: Policy, variables: Fact = None):
        super().__init__()
        assert variables is not None
        self.graphs, self.variables = graphs, variables
        eye = torch.eye(variables, dtype=torch.float64)
        #: lower factors of each variable's precision, in units of the precisions of single parents
        self.factor = nn.Parameter(eye.repeat(variables, 1, 1))
        self.shift = nn.Parameter(torch.zeros_like(eye))  # of pulls, in roots of precisions

    def serve(self, target: Any) -> None:
        """Told to the policy over graphs."""
        self.graphs.serve(target)

    def encode(self, x: Any, given: Any = None) -> Completing:
        """Reads tables of local scores, and each pair of columns by itself."""
        target = None if given is None else given.target
        noise = target.known.noise if isinstance(target, WeightedPosterior) else 1.0
        rows = torch.where(x.real[..., None], x.values, 0.0)
        pull = rows.mT @ rows / noise
        precision = pull.diagonal(dim1=1, dim2=2) + 1
        return Completing(self.graphs.encode(x, given), pull, precision)

    def forward(self, context: Completing, state: Any) -> Step:
        """What the policy over graphs says."""
        return self.graphs(context.graphs, state)

    def choose(
        self, context: Completing, space: LatentSpace, state: Any, exploration: Exploration
    ) -> tuple[Tensor, Tensor]:
        """As the policy over graphs does."""
        return self.graphs.choose(context.graphs, space, state, exploration)

    def log_z(self, context: Completing) -> Tensor:
        """`(batch,)` the policy's over graphs."""
        return self.graphs.log_z(context.graphs)

    def normal(self, context: Completing, adjacency: Tensor) -> tuple[Tensor, Tensor]:
        """What weights are drawn from, given graphs `(batch, samples, n, n)`.

        Returns:
            `(batch, samples, n, n)` means, `[j, i]` of the weight of `i` on `j`, and `(batch,
            samples, n, n, n)` lower factors of the covariances; 0 and 1 where `i` is no parent.
        """
        parent = adjacency.mT
        inside = parent[..., :, None] & parent[..., None, :]
        root = context.precision.sqrt()  # (batch, parent)
        lower = self.factor.tril()
        precision = lower @ lower.mT * root[:, None, :, None] * root[:, None, None]
        eye = torch.eye(self.variables, dtype=precision.dtype, device=precision.device)
        precision = torch.where(inside, precision[:, None], eye)
        covariance = torch.cholesky_inverse(torch.linalg.cholesky(precision))
        pull = context.pull.mT + self.shift * root[:, None]
        pull = torch.where(parent, pull[:, None], 0.0)
        mean = (covariance @ pull[..., None])[..., 0]
        return torch.where(parent, mean, 0.0), torch.linalg.cholesky(covariance)

    def log_density(self, context: Completing, z: Weighted) -> Tensor:
        """`(batch, samples)` log density of weights, given their graphs, in nats."""
        mean, factor = self.normal(context, z.adjacency)
        parent = z.adjacency.mT
        away = torch.where(parent, z.weights.mT.to(mean) - mean, 0.0)
        noise = torch.linalg.solve_triangular(factor, away[..., None], upper=False)[..., 0]
        each = -(noise.square() + math.log(2 * math.pi)) / 2
        each = each - factor.diagonal(dim1=-2, dim2=-1).log()
        return torch.where(parent, each, 0.0).sum((2, 3))

    @torch.no_grad()
    def sample(
        self,
        context: Completing,
        x: Any,
        space: LatentSpace,
        samples: int,
        exploration: Exploration | None = None,
    ) -> Trajectories:
        """Draws graphs, then weights."""
        found = self.graphs.sample(context.graphs, x, space, samples, exploration)
        z = self._drawn(context, found.latent)
        behaviour = found.log_behaviour
        if behaviour is not None:
            behaviour = behaviour + self.log_density(context, z)
        return replace(found, latent=z, log_behaviour=behaviour)

    @torch.no_grad()
    def retrace(
        self, context: Completing, x: Any, space: LatentSpace, latent: Weighted
    ) -> Trajectories:
        """The graphs' trajectories; the weights are those given."""
        found = self.graphs.retrace(context.graphs, x, space, latent.adjacency)
        return replace(found, latent=latent)

    @torch.no_grad()
    def regrow(
        self, context: Completing, x: Any, space: LatentSpace, latent: Weighted, back: int | float
    ) -> tuple[Weighted, Tensor]:
        """The graph is regrown, and all its weights are drawn anew."""
        graphs, correction = self.graphs.regrow(context.graphs, x, space, latent.adjacency, back)
        new = self._drawn(context, graphs)
        return new, correction + self.log_density(context, latent) - self.log_density(context, new)

    def _drawn(self, context: Completing, adjacency: Tensor) -> Weighted:
        mean, factor = self.normal(context, adjacency)
        drawn = mean + (factor @ torch.randn_like(mean)[..., None])[..., 0]
        return Weighted(adjacency, torch.where(adjacency.mT, drawn, 0.0).mT)

    def score(
        self,
        context: Completing,
        space: LatentSpace,
        trajectories: Trajectories,
        flows: bool = False,
        forward_looking: bool = False,
        steps: int | None = None,
    ) -> Scores:
        """As the policy over graphs does; the last step has the density of the weights in it."""
        scores = self.graphs.score(
            context.graphs, space, trajectories, flows, forward_looking, steps
        )
        mask = scores.mask
        last = mask & ~torch.cat([mask[..., 1:], torch.zeros_like(mask[..., :1])], 2)
        density = self.log_density(context, trajectories.latent)
        return replace(scores, log_pf=scores.log_pf + last * density[..., None])

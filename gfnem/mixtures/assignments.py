"""A Gaussian mixture whose parameters are unknown too: the posterior over who belongs together.

An observation is a whole data set. Means and shares have conjugate priors and are summed out, so
that what is left is the assignment of all points at once: `clusters ** points` of them, each as
probable as its relabellings.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from gfnem.batched import Batched
from gfnem.policy import Policy, Step
from gfnem.ranges import Count, Positive
from gfnem.sampling import Exploration, draw
from gfnem.space import LatentSpace
from gfnem.target import Target

#: assignments are listed where there are no more
_LISTED = 200_000


@dataclass
class Labels(Batched):
    """Points that have been assigned.

    Attributes:
        label: `(batch, samples, points)` int64 cluster of each point, -1 while open.
    """

    label: Tensor


class LabelSpace(LatentSpace):
    """`z` is `(batch, samples, points)` int64; the points are assigned in their order.

    Action `k` gives the next point to cluster `k`; the one backward action takes the last back.

    Args:
        clusters: how many clusters there are.
    """

    unique_trajectory = True

    def __init__(self, clusters: Count = 3):
        self.clusters = clusters

    def initial_state(self, x: Tensor, samples: int) -> Labels:
        """No point assigned."""
        return Labels(torch.full((len(x), samples, x.shape[1]), -1, device=x.device))

    def final_state(self, x: Tensor, z: Tensor) -> Labels:
        """All assigned."""
        return Labels(z)

    def to_latent(self, x: Tensor, state: Labels) -> Tensor:
        """`(batch, samples, points)` int64."""
        return state.label

    def is_final(self, state: Labels) -> Tensor:
        """Whether all points are assigned."""
        return (state.label >= 0).all(2)

    def is_initial(self, state: Labels) -> Tensor:
        """Whether none is."""
        return (state.label < 0).all(2)

    def forward_mask(self, state: Labels) -> Tensor:
        """`(batch, samples, clusters)`: any cluster while a point is open."""
        return ~self.is_final(state)[..., None].expand(-1, -1, self.clusters)

    def backward_mask(self, state: Labels) -> Tensor:
        """`(batch, samples, 1)`: there is one way back."""
        return ~self.is_initial(state)[..., None]

    def _written(self, state: Labels, back: int, value: Tensor) -> Labels:
        """The point that is next, or the one `back` before it, with another label."""
        place = torch.arange(state.label.shape[2], device=state.label.device)
        here = place == (state.label >= 0).sum(2, keepdim=True) - back
        return Labels(torch.where(here, value[..., None], state.label))

    def step(self, state: Labels, action: Tensor) -> Labels:
        """Assigns the next point."""
        return self._written(state, 0, action)

    def unstep(self, state: Labels, action: Tensor) -> Labels:
        """Takes the last one back."""
        return self._written(state, 1, torch.full_like(action, -1))

    def backward_action(self, state: Labels, action: Tensor) -> Tensor:
        """0."""
        return torch.zeros_like(action)

    def forward_action(self, state: Labels, action: Tensor) -> Tensor:
        """The cluster of the last point."""
        last = (state.label >= 0).sum(2, keepdim=True) - 1
        return state.label.gather(2, last.clamp(min=0))[..., 0].clamp(min=0)


class ClusterPosterior(Target):
    """`log p(x, z)` of data sets and assignments; nothing is trained.

    Points of a cluster are normal around its mean with a known deviation, means are normal around
    0, the clusters' shares have a symmetric Dirichlet prior. Data sets are `(batch, points, d)`.

    Args:
        clusters: how many clusters there are.
        sd: standard deviation of a cluster.
        spread: standard deviation of the means.
        alpha: of the Dirichlet prior, for each cluster.
    """

    unit = "point"

    def __init__(
        self, clusters: Count = 3, sd: Positive = 1.0, spread: Positive = 3.0, alpha: Positive = 1.0
    ):
        super().__init__()
        self.clusters, self.sd, self.spread, self.alpha = clusters, sd, spread, alpha

    def facts(self) -> dict[str, Any]:
        """The number of clusters."""
        return {"clusters": self.clusters}

    def evidence(self, x: Tensor, member: Tensor) -> Tensor:
        """`(..., clusters)` log evidence of each cluster's points, its share included.

        Args:
            x: `(..., points, d)`.
            member: `(..., points, clusters)` 1 where a point belongs to a cluster.
        """
        noise, prior = self.sd**2, self.spread**2
        count = member.sum(-2)
        total = member.mT @ x  # (..., clusters, d)
        squares = (member * x.square().sum(-1, keepdim=True)).sum(-2)
        shrunk = prior / (noise + count * prior) * total.square().sum(-1)
        value = -(squares - shrunk) / (2 * noise)
        value = value - x.shape[-1] / 2 * torch.log1p(count * prior / noise)
        value = value - x.shape[-1] * count / 2 * math.log(2 * math.pi * noise)
        return value + torch.lgamma(self.alpha + count) - math.lgamma(self.alpha)

    def predictive(self, x: Tensor, member: Tensor) -> Tensor:
        """`(..., points, clusters)` what `evidence` gains by one point more in each cluster.

        Args:
            x: `(..., points, d)`.
            member: as for `evidence`.
        """
        count = member.sum(-2)
        precision = 1 / self.spread**2 + count / self.sd**2
        mean = member.mT @ x / self.sd**2 / precision[..., None]
        variance = (self.sd**2 + 1 / precision)[..., None, :]
        away = (x[..., None, :] - mean[..., None, :, :]).square().sum(-1)
        normal = -(away / variance + x.shape[-1] * (2 * math.pi * variance).log()) / 2
        return normal + (self.alpha + count).log()[..., None, :]

    def partial_log_joint(self, x: Tensor, state: Labels) -> Tensor:
        """`(batch, samples)` the joint of the points that are assigned."""
        member = self.members(x, state.label)
        total = self.clusters * self.alpha
        count = (state.label >= 0).sum(2)
        shares = math.lgamma(total) - torch.lgamma(total + count.to(x))
        return self.evidence(x[:, None], member).sum(2) + shares

    def members(self, x: Tensor, label: Tensor) -> Tensor:
        """`(batch, samples, points, clusters)` 1 where a point belongs to a cluster."""
        return nn.functional.one_hot(label + 1, self.clusters + 1)[..., 1:].to(x)

    def log_joint(self, x: Tensor, z: Tensor) -> Tensor:
        """`(batch, samples)` nats."""
        return self.partial_log_joint(x, Labels(z))

    def offers(self, hook: str) -> bool:
        """Exact inference is by listing."""
        if hook in ("log_marginal", "sample_posterior"):
            return self.clusters <= 4
        return super().offers(hook)

    def every(self, x: Tensor) -> Tensor:
        """`(assignments, points)` all of them.

        Raises:
            ValueError: if there are more than 200,000.
        """
        points = x.shape[1]
        if self.clusters**points > _LISTED:
            raise ValueError(f"{self.clusters} ** {points} assignments are too many to list")
        listed = itertools.product(range(self.clusters), repeat=points)
        return torch.tensor(list(listed), device=x.device)

    def log_table(self, x: Tensor) -> Tensor:
        """`(batch, assignments)` log joint of all assignments."""
        parts = self.every(x).split(10_000)
        return torch.cat([self.log_joint(x, part.expand(len(x), -1, -1)) for part in parts], 1)

    def log_marginal(self, x: Tensor) -> Tensor:
        """`(batch,)` exact `log p(x)` in nats, by listing."""
        return self.log_table(x).logsumexp(1)

    @torch.no_grad()
    def sample_posterior(self, x: Tensor, samples: int) -> Tensor:
        """`(batch, samples, points)` exact draws."""
        drawn = self.log_table(x).softmax(1).multinomial(samples, replacement=True)
        return self.every(x)[drawn]

    @torch.no_grad()
    def sample_parameters(self, x: Tensor, z: Tensor) -> tuple[Tensor, Tensor]:
        """Exact `p(means, shares | x, z)`: the full latent, from the collapsed one.

        Returns:
            `(batch, samples, clusters, d)` means and `(batch, samples, clusters)` shares.
        """
        member, noise = self.members(x, z), self.sd**2
        precision = 1 / self.spread**2 + member.sum(2) / noise
        centre = member.mT @ x[:, None] / noise / precision[..., None]
        means = centre + torch.randn_like(centre) / precision.sqrt()[..., None]
        shares = torch.distributions.Dirichlet(self.alpha + member.sum(2)).sample()
        return means, shares

    def units(self, x: Tensor) -> Tensor:
        """`(batch,)` points of each data set."""
        return torch.full((len(x),), float(x.shape[1]), device=x.device)


class LabelPolicy(Policy):
    """Starts from the predictive density of the next point in each cluster, as it is so far.

    The network learns what the points to come have to say, the same for all clusters: what it says
    of a relabelled assignment is relabelled alike. The flow is the joint of the points so far times
    what it learns, so `log Z` follows.

    Args:
        points: of a data set.
        clusters: how many clusters there are.
        dimensions: of a point.
        hidden: width of the network.
    """

    def __init__(
        self,
        points: Count = 10,
        clusters: Count | None = None,
        dimensions: Count = 2,
        hidden: Count = 128,
    ):
        super().__init__()
        self.points, self.clusters = points, clusters or 3
        self.first = nn.Linear(points * (4 + dimensions), hidden)
        self.second = nn.Linear(2 * hidden, hidden)
        self.choice = nn.Linear(hidden, 1)
        self.flow = nn.Linear(hidden, 1)
        for last in (self.choice, self.flow):
            nn.init.zeros_(last.weight)
            nn.init.zeros_(last.bias)

    def encode(self, x: Tensor, given: Any = None) -> tuple[Tensor, Any]:
        """The points, and the model given them."""
        return x, given

    def _said(self, context: tuple[Tensor, Any], state: Labels) -> tuple[Tensor, Tensor]:
        """`(batch, samples, clusters)` log weights, `(batch, samples)` what is said of flows."""
        x, given = context
        samples, open_ = state.label.shape[1], state.label < 0
        member = nn.functional.one_hot(state.label + 1, self.clusters + 1)[..., 1:].to(x)
        fits = torch.zeros_like(member)
        if given is not None:
            with torch.no_grad():
                fits = given.target.predictive(x[:, None], member)
        likely = fits.log_softmax(3) * open_[..., None]
        spread = open_[..., None].to(x).expand_as(member)
        parts = [member, spread, spread * likely.exp(), likely.clamp(min=-10) / 5]
        seen = x.flatten(1)[:, None, None].expand(-1, samples, self.clusters, -1)
        each = torch.cat([*(part.mT for part in parts), seen], 3)  # (batch, samples, clusters, ...)
        hidden = nn.functional.silu(self.first(each))
        both = torch.cat([hidden, hidden.mean(2, keepdim=True).expand_as(hidden)], 3)
        hidden = hidden + nn.functional.silu(self.second(both))
        at = (~open_).sum(2).clamp(max=self.points - 1)[..., None, None]
        base = fits.gather(2, at.expand(-1, -1, 1, self.clusters))[:, :, 0]
        return base + self.choice(hidden)[..., 0], self.flow(hidden.mean(2))[..., 0]

    def choose(
        self,
        context: tuple[Tensor, Any],
        space: LatentSpace,
        state: Labels,
        exploration: Exploration,
    ) -> tuple[Tensor, Tensor]:
        """Draws a cluster; no flow is needed for it."""
        return draw(self._said(context, state)[0], space.forward_mask(state), exploration)

    def forward(self, context: tuple[Tensor, Any], state: Labels) -> Step:
        """Scores assignments so far."""
        logits, flow = self._said(context, state)
        x, given = context
        if given is not None:
            with torch.no_grad():
                reward = given.target.partial_log_joint(x, state)
            flow = flow + reward
        return Step(logits, None, flow)

    def log_z(self, context: tuple[Tensor, Any]) -> Tensor:
        """`(batch,)` the flow through the start."""
        x = context[0]
        start = Labels(torch.full((len(x), 1, self.points), -1, device=x.device))
        log_flow = self(context, start).log_flow
        assert log_flow is not None
        return log_flow[:, 0]


def mean_field(model: ClusterPosterior, x: Tensor, iterations: int = 500) -> Tensor:
    """`(points, clusters)` the assignment of each point by itself: variational Bayes.

    Coordinate ascent with `q(z) q(means) q(shares)` from one random start (Bishop 2006, section
    10.2, the deviation known).

    Args:
        model: the target.
        x: `(points, d)` one data set.
        iterations: of coordinate ascent.
    """
    noise, prior = model.sd**2, model.spread**2
    q = torch.distributions.Dirichlet(torch.ones(model.clusters, dtype=x.dtype)).sample((len(x),))
    for _ in range(iterations):
        count = q.sum(0)
        precision = 1 / prior + count / noise
        mean = q.mT @ x / noise / precision[:, None]
        shares = torch.digamma(model.alpha + count)
        square = (x[:, None] - mean).square().sum(2) + x.shape[1] / precision
        q = (shares - square / (2 * noise)).softmax(1)
    return q

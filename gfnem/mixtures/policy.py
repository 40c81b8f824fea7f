"""A small network that chooses super-cluster and petal for a point."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from gfnem.mixtures.space import PetalSpace, PetalState
from gfnem.perceptron import perceptron
from gfnem.policy import Policy, Step
from gfnem.ranges import Amount, Count, Positive
from gfnem.target import Conditioned, Target


class PetalPolicy(Policy[Tensor, Tensor, PetalState, Tensor]):
    """Forward policy, backward policy, flow and `log Z(x)` from a point and the choices so far.

    Each is a multilayer perceptron plus a linear path. The log odds of two Gaussians of one width
    are linear in `x` and steep (inverse variances), which the linear path learns at once.

    Args:
        clusters: how many super-clusters there are.
        petals: how many petals each has.
        hidden: width of the hidden layers.
        layers: number of hidden layers.
        scale: factor on the coordinates, about one over the distance in which a posterior turns
            from one choice to another.
    """

    log_z_parts = ("normaliser",)

    def __init__(
        self,
        clusters: Count = 4,
        petals: Count = 4,
        hidden: Count = 64,
        layers: Amount = 2,
        scale: Positive = 1.0,
    ):
        super().__init__()
        self.clusters, self.petals, self.scale = clusters, petals, scale
        self.sizes = (clusters + petals, 2, 1)
        features = 2 + (clusters + 1) + (petals + 1)
        self.choices = _Network(features, hidden, layers, sum(self.sizes))
        self.normaliser = _Network(2, hidden, layers, 1)

    def encode(self, x: Tensor, given: Conditioned | None = None) -> Tensor:
        """The scaled points themselves, `(batch, 2)`."""
        return x * self.scale

    def forward(self, context: Tensor, state: PetalState) -> Step:
        """Scores states `(batch, any number)` of the points `context`."""
        one_hot = nn.functional.one_hot
        samples = state.cluster.shape[1]
        features = torch.cat(
            [
                context[:, None].expand(-1, samples, -1),
                one_hot(state.cluster + 1, self.clusters + 1).to(context),
                one_hot(state.petal + 1, self.petals + 1).to(context),
            ],
            2,
        )
        forward, backward, log_flow = self.choices(features).split(self.sizes, 2)
        return Step(forward, backward, log_flow.squeeze(2))

    def log_z(self, context: Tensor) -> Tensor:
        """`(batch,)` learned `log Z(x)` in nats."""
        return self.normaliser(context).squeeze(1)


class _Network(nn.Module):
    """A perceptron and a linear path side by side; at first both say 0."""

    def __init__(self, inputs: int, hidden: int, layers: int, outputs: int):
        super().__init__()
        self.direct = nn.Linear(inputs, outputs)
        self.curved = perceptron(inputs, hidden, layers, outputs)
        nn.init.zeros_(self.direct.weight)
        nn.init.zeros_(self.direct.bias)

    def forward(self, features: Tensor) -> Tensor:
        return self.direct(features) + self.curved(features)


@torch.no_grad()
def learned_posterior(policy: Policy, space: PetalSpace, x: Tensor, target: Target) -> Tensor:
    """`(batch, clusters, petals)` `q(z|x)`, exact: summed over every trajectory.

    All `(clusters + 1) (petals + 1)` states are scored in one call, then their probabilities are
    passed on from state to child.
    """
    cluster, petal = torch.meshgrid(
        torch.arange(-1, space.clusters, device=x.device),
        torch.arange(-1, space.petals, device=x.device),
        indexing="ij",
    )
    cluster, petal = cluster.reshape(1, -1), petal.reshape(1, -1)
    state = PetalState(cluster.expand(len(x), -1), petal.expand(len(x), -1))
    output = policy(policy.encode(x, target.given(x)), state)
    allowed = space.forward_mask(state)
    choice = output.forward.masked_fill(~allowed, -torch.inf).softmax(-1).nan_to_num(0.0)
    choice = choice.unflatten(1, (space.clusters + 1, space.petals + 1))
    start = choice[:, 0, 0]
    cluster_then_petal = start[:, : space.clusters, None] * choice[:, 1:, 0, space.clusters :]
    petal_then_cluster = start[:, None, space.clusters :] * choice[:, 0, 1:, : space.clusters].mT
    return cluster_then_petal + petal_then_cluster

"""A lattice whose coupling and field are observed: log Z as a function of them."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from gfnem.energies.space import Assignment, digits
from gfnem.perceptron import perceptron
from gfnem.policy import Policy, Step
from gfnem.ranges import Count, Fact, Positive
from gfnem.target import Conditioned, Target


class ConditionalTorus(Target[Tensor, Tensor]):
    """An Ising model on a torus; an observation `(2,)` is its coupling and its field.

    `log p~(z | x) = x_0 f' A f + x_1 sum f` of spins -1 and 1, as in `gfnem.energies.Torus`. Exact
    sums list all configurations.

    Args:
        side: of the lattice, 3 or 4.
    """

    def __init__(self, side: Count = 3):
        super().__init__()
        if side not in (3, 4):
            raise ValueError(f"side {side}: 3 or 4, of which all configurations can be listed")
        self.side = side

    def facts(self) -> dict[str, Any]:
        """How many spins, of two values."""
        return {"variables": self.side**2, "values": 2}

    def log_joint(self, x: Tensor, z: Tensor) -> Tensor:
        """`(batch, samples)` nats of spins `(batch, samples, variables)` int64, 0 and 1."""
        flat = (2 * z - 1).to(x)
        spins = flat.unflatten(2, (self.side, self.side))
        edges = (spins * (spins.roll(1, 2) + spins.roll(1, 3))).sum((2, 3))
        return 2 * x[:, :1] * edges + x[:, 1:] * flat.sum(2)

    def log_marginal(self, x: Tensor) -> Tensor:
        """`(batch,)` exact log Z(x)."""
        return self.log_joint(x, self._every(x)).logsumexp(1)

    @torch.no_grad()
    def sample_posterior(self, x: Tensor, samples: int) -> Tensor:
        """`(batch, samples, variables)` exact draws."""
        every = self._every(x)
        chance = self.log_joint(x, every).softmax(1)
        return every[0, torch.multinomial(chance, samples, replacement=True)]

    def _every(self, x: Tensor) -> Tensor:
        return digits(2, self.side**2, x.device).expand(len(x), -1, -1)


class ConditionalPolicy(Policy[Tensor, Tensor, Assignment, Tensor]):
    """A perceptron of `x` and the spins so far; another gives log Z(x).

    Args:
        variables: spins.
        hidden: width of the hidden layers.
        layers: how many there are.
        scale: by which `x` is multiplied, about one over its spread.
    """

    log_z_parts = ("normaliser",)

    def __init__(
        self,
        variables: Fact = None,
        hidden: Count = 64,
        layers: Count = 2,
        scale: Positive = 5.0,
    ):
        super().__init__()
        self.variables, self.scale = variables, scale
        self.choices = perceptron(2 + 2 * variables, hidden, layers, 2 * variables)
        self.normaliser = perceptron(2, hidden, layers, 1)

    def encode(self, x: Tensor, given: Conditioned | None = None) -> Tensor:
        """`(batch, 2)` the observation, scaled."""
        return x * self.scale

    def forward(self, context: Tensor, state: Assignment) -> Step:
        """Log weights of the values of every spin; `P_B` is uniform."""
        spins = torch.where(state.value < 0, 0, 2 * state.value - 1)
        known = (state.value >= 0).to(context)
        samples = context[:, None].expand(-1, spins.shape[1], -1)
        logits = self.choices(torch.cat([samples, spins.to(context), known], 2))
        # each spin is as probable to be the next: the values of one share its probability
        return Step(logits.unflatten(2, (-1, 2)).log_softmax(3).flatten(2))

    def log_z(self, context: Tensor) -> Tensor:
        """`(batch,)` learned log Z(x), which starts from that of free spins."""
        return self.normaliser(context)[:, 0] + self.variables * math.log(2)

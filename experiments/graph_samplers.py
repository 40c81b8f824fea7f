"""Samplers of graphs for `graphs.py`: one, or one for each of several data sets."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from gfnem.em import EM
from gfnem.graphs.layer_policy import LayerPolicy
from gfnem.graphs.layers import LayerSpace
from gfnem.graphs.model import DagPosterior
from gfnem.graphs.policy import FlatPolicy, GraphPolicy
from gfnem.graphs.space import DagSpace
from gfnem.graphs.tables import Tables
from gfnem.objectives import BalancedVarGrad
from gfnem.posterior import Posterior
from gfnem.rates import Descent, Rates
from gfnem.recipes import posterior
from gfnem.schedules import Anneal


def trained(descent: Descent, batch: Callable[[], Any], updates: int, seconds: float) -> float:
    """Takes updates until they or the CPU seconds are spent; the CPU seconds that it took."""
    start = time.process_time()
    for _ in range(updates):
        descent.update(batch())
        if time.process_time() - start > seconds:
            break
    return time.process_time() - start


class Sampler:
    """A policy, trained on one posterior."""

    def __init__(self, model: DagPosterior, x: Tables, kind: str, hidden: int = 128):
        n, limit = model.variables, model.max_parents
        self.model, self.x, self.kind = model, x, kind
        if kind == "layers":
            space = LayerSpace(n, limit, model.forbidden, model.required)
            policy = LayerPolicy(n, limit, hidden)
        else:
            space = DagSpace(n, limit, model.forbidden, model.required)
            policy = FlatPolicy(n, 2 * hidden) if kind == "flat" else GraphPolicy(n)
        self.space, self.policy, self.updates = space, policy.to(x.device), 0

    def train(self, updates: int, samples: int = 128, seconds: float = math.inf) -> float:
        """Trains; returns the seconds it took.

        Args:
            updates: over which rates and exploration fall.
            samples: graphs in an update.
            seconds: stop then, in any case.
        """
        rate = 0.003 if self.kind == "graph" else 0.01
        recipe = posterior(
            BalancedVarGrad(), samples=samples, epsilon=Anneal(0.1, 0.0, 3 * updates // 4 + 1)
        )
        em = EM(self.model, self.space, self.policy, recipe)
        rates = Rates(policy=Anneal(rate, rate / 30, updates, "exponential"))
        took = trained(Descent(em, rates), lambda: self.x, updates, seconds)
        self.updates = em.clock.updates
        return took

    def posterior(self) -> Posterior:
        """The sampler as a distribution."""
        return Posterior(self.model, self.space, self.policy, self.x)


class Apart(nn.Module):
    """Linear maps, one for each data set of a batch."""

    def __init__(self, one: nn.Linear, count: int):
        super().__init__()
        size = one.out_features, one.in_features
        bound = size[1] ** -0.5 if one.weight.any() else 0.0  # the last starts from nothing
        self.weight = nn.Parameter(torch.empty(count, *size).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(count, 1, size[0]).uniform_(-bound, bound))

    def forward(self, x: Tensor) -> Tensor:
        """`(count, samples, features)`."""
        return torch.baddbmm(self.bias, x, self.weight.mT)

    def copy_to(self, one: nn.Linear, at: int) -> None:
        """Gives a map what has been learned for data set `at`."""
        with torch.no_grad():
            one.weight.copy_(self.weight[at])
            one.bias.copy_(self.bias[at, 0])


def one_by_one(
    model: DagPosterior, x: Tables, updates: int, hidden: int = 64
) -> tuple[list[Sampler], float]:
    """Samplers by layers, one for each data set, trained side by side; the CPU seconds it took.

    They share nothing: each has weights of its own, and an optimiser that looks at each weight by
    itself. Only the cost of calling small operations is shared.
    """
    made = Sampler(model, x, "layers", hidden)
    linears = [name for name, part in made.policy.named_modules() if isinstance(part, nn.Linear)]
    for name in linears:
        parent, _, last = name.rpartition(".")
        setattr(
            made.policy.get_submodule(parent), last, Apart(made.policy.get_submodule(name), len(x))
        )
    took, found = made.train(updates), []
    for at in range(len(x)):
        one = Sampler(model, x.select(torch.tensor([at])), "layers", hidden)
        for name in linears:
            made.policy.get_submodule(name).copy_to(one.policy.get_submodule(name), at)
        found.append(one)
    return found, took

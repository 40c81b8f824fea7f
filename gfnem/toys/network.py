"""A policy whose network sees a state as numbers."""

from __future__ import annotations

import itertools
from typing import Any

import torch
from torch import Tensor, nn

from gfnem.policy import Step
from gfnem.ranges import Amount, Count
from gfnem.space import LatentSpace
from gfnem.toys.policy import ToyPolicy


class NetworkPolicy(ToyPolicy):
    """A multilayer perceptron of `space.features(state)`: states that look alike learn together.

    Args:
        space: with a method `features`, `(batch, samples, width)` numbers of states.
        copies: independent networks.
        backward: as of `ToyPolicy`.
        flow: as of `ToyPolicy`.
        hidden: width of the hidden layers.
        layers: how many there are.
    """

    def __init__(
        self,
        space: LatentSpace,
        copies: Count = 1,
        backward: str = "uniform",
        flow: str = "learned",
        hidden: Count = 64,
        layers: Amount = 2,
    ):
        super().__init__(space, copies, backward, flow)
        start = space.initial_state(torch.zeros(1, dtype=torch.long), 1)
        inputs: int = space.features(start).shape[2]  # pyright: ignore
        widths = [inputs, *[hidden] * layers, self.actions + self.undoings + self.flows]
        pairs = list(itertools.pairwise(widths))
        self.weights = nn.ParameterList(
            torch.randn(copies, fan_in, out) * (2 / min(fan_in, hidden)) ** 0.5
            for fan_in, out in pairs
        )
        nn.init.zeros_(self.weights[-1])
        self.biases = nn.ParameterList(torch.zeros(copies, 1, out) for _, out in pairs)

    def forward(self, context: Tensor, state: Any) -> Step:
        """Runs each copy's network on its own states."""
        hidden = self.space.features(state).to(self.level)  # pyright: ignore
        for weight, bias in zip(self.weights[:-1], self.biases[:-1], strict=True):
            hidden = nn.functional.silu(torch.baddbmm(bias[context], hidden, weight[context]))
        output = torch.baddbmm(self.biases[-1][context], hidden, self.weights[-1][context])
        return self.split(context, state, output)

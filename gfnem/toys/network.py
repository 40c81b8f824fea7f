"""A policy whose network sees a state as numbers."""

from __future__ import annotations

import itertools

import torch
from torch import Tensor, nn

from gfnem.ranges import Amount, Count
from gfnem.space import LatentSpace
from gfnem.toys.table import ListedPolicy


class NetworkPolicy(ListedPolicy):
    """A multilayer perceptron of `space.features(state)`: states that look alike learn together.

    It runs once on all states, and draws and scores look them up: there are fewer states than
    visits to them.

    Args:
        space: with a method `features`, `(batch, samples, parts)` int64: what each part of a
            state is, as a number that no other part has; each has a vector of its own.
        copies: independent networks; as many as the data have, and 1 if None.
        backward, flow, start: as of `ListedPolicy`.
        hidden: width of the hidden layers.
        layers: how many there are.
    """

    def __init__(
        self,
        space: LatentSpace,
        copies: Count | None = None,
        backward: str = "uniform",
        flow: str = "learned",
        start: str = "structures",
        hidden: Count = 64,
        layers: Amount = 2,
    ):
        super().__init__(space, copies, backward, flow, start)
        features: Tensor = space.features(self.graph.states)[0]  # pyright: ignore
        features, row = features.unique(dim=0, return_inverse=True)
        self.register_buffer("features", features, persistent=False)
        self.register_buffer("row", row, persistent=False)
        widths = [int(features.max()) + 1, *[hidden] * layers, self.width]
        pairs = list(itertools.pairwise(widths))
        self.weights = nn.ParameterList(
            torch.randn(self.copies, fan_in, out) / (fan_in if number else features.shape[1]) ** 0.5
            for number, (fan_in, out) in enumerate(pairs)
        )
        nn.init.zeros_(self.weights[-1])
        self.biases = nn.ParameterList(torch.zeros(self.copies, 1, out) for _, out in pairs)

    def learned(self, copy: Tensor) -> Tensor:
        """What each copy's network says of all states."""
        first, *others = self.weights
        hidden = self.biases[0][copy]
        for part in self.features.unbind(1):
            hidden = hidden + first[copy[:, None], part]
        for bias, weight in zip(self.biases[1:], others, strict=True):
            hidden = torch.baddbmm(bias[copy], nn.functional.silu(hidden), weight[copy])
        return hidden.index_select(1, self.row)

"""The multilayer perceptron of small models and policies."""

from __future__ import annotations

import itertools

from torch import nn


def perceptron(inputs: int, hidden: int, layers: int, outputs: int) -> nn.Sequential:
    """A perceptron, `(..., inputs)` to `(..., outputs)`, which says 0 before training.

    Args:
        inputs: features.
        hidden: width of the hidden layers.
        layers: how many of these there are.
        outputs: numbers said.
    """
    widths = [inputs, *[hidden] * layers]
    stages: list[nn.Module] = []
    for fan_in, fan_out in itertools.pairwise(widths):
        stages += [nn.Linear(fan_in, fan_out), nn.SiLU()]
    last = nn.Linear(widths[-1], outputs)
    nn.init.zeros_(last.weight)
    nn.init.zeros_(last.bias)
    return nn.Sequential(*stages, last)

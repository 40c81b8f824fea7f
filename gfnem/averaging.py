"""Averages of weights over the updates of a run, which are better than the weights."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class WeightAverages:
    """A mean of each weight over the updates so far, in which later ones count more.

    After update `t` a mean is `1 - s` of itself and `s = (decay + 1) / (t + decay)` of the weight
    (polynomial-decay averaging; Shamir and Zhang, 2013, arXiv 1212.1824). It goes over about the
    last `t / (decay + 1)` updates, however long a run is.

    Args:
        named: the weights by their names; those that are not trained are left alone.
        decay: the larger, the sooner old weights are forgotten; 0 for a plain mean.
    """

    def __init__(self, named: Iterable[tuple[str, nn.Parameter]], decay: float):
        self.weights = {name: weight for name, weight in named if weight.requires_grad}
        self.means = {name: weight.detach().clone() for name, weight in self.weights.items()}
        self.decay = decay

    @torch.no_grad()
    def add(self, update: int) -> None:
        """Takes the weights as they are after an update, which are counted from 1."""
        share = min(1.0, (self.decay + 1) / (update + self.decay))
        for name, mean in self.means.items():
            mean.lerp_(self.weights[name], share)

    @torch.no_grad()
    def put(self, values: Mapping[str, Tensor]) -> None:
        """Writes other values over the weights, by name.

        Args:
            values: tensors of any shape, that of the weight.
        """
        for name, weight in self.weights.items():
            weight.copy_(values[name])

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """The means stand where the weights are, for as long as this lasts."""
        kept = {name: weight.detach().clone() for name, weight in self.weights.items()}
        self.put(self.means)
        try:
            yield
        finally:
            self.put(kept)

    def load(self, values: Mapping[str, Tensor]) -> None:
        """Takes up means of a run that goes on; those that are lacking start from the weights.

        Args:
            values: tensors of any shape, that of the weight.
        """
        for name, mean in self.means.items():
            if name in values:
                mean.copy_(values[name])

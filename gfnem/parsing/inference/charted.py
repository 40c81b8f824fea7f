"""What models of sentences with a chart have in common, given some sentences."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor

from gfnem.batched import Z
from gfnem.parsing.text.sentences import Sentences
from gfnem.target import Conditioned, Target

P = TypeVar("P")
C = TypeVar("C")


class Charted(Conditioned[Sentences, Z], Generic[Z, P, C]):
    """A model, given sentences: its potentials and its chart are made once.

    Args:
        target: the model; its `potentials(x)` has a `detach`.
        x: the sentences.
        parts: log weights, in nats, that parts of a structure count besides. None: the model alone.
    """

    def __init__(self, target: Target, x: Sentences, parts: Tensor | None = None):
        super().__init__(target, x)
        self.parts = parts
        self._potentials: tuple[P, P] | None = None
        self._chart: C | None = None  # without gradient

    def _weigh(self) -> Any:
        """The potentials, with gradient."""
        return self.target.potentials(self.x)

    @abstractmethod
    def _inside(self) -> C:
        """The chart of the potentials, and of the parts."""

    @property
    def potentials(self) -> P:
        """Log weights in each sentence: with gradients where they are enabled, else without."""
        return self._both()[0 if torch.is_grad_enabled() else 1]

    def _both(self) -> tuple[P, P]:
        """The potentials with and without gradients."""
        if self._potentials is None:
            with torch.enable_grad():
                found = self._weigh()
            self._potentials = found, found.detach()
        return self._potentials

    def normalised(self) -> Charted[Z, P, C]:
        """The model alone."""
        if self.parts is None:
            return self
        if self._normalised is None:
            self._normalised = type(self)(self.target, self.x)
        return self._normalised

    def chart(self) -> C:
        """The chart, parts included; where no gradient is wanted it is computed once."""
        if torch.is_grad_enabled():
            return self._inside()
        if self._chart is None:
            self._chart = self._inside()
        return self._chart

"""What a model may learn from beside its observations."""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import Tensor

from gfnem.component import Component
from gfnem.ranges import NotNegative
from gfnem.schedules import Anneal
from gfnem.target import Target


class SideInformation(Component, ABC):
    """Data of another kind, which tell of the latents what the observations do not.

    The M-step climbs `log p(x, z) + weight * log p(side data)`: the likelihood of two data sets
    under one model, in each of which another part is missing. The E-step goes on as before.

    Args:
        weight: how much a batch of the side data counts beside one of observations; a number, or
            an `Anneal` over M-updates.
    """

    def __init__(self, weight: NotNegative | Anneal = 1.0):
        self.weight = weight

    @abstractmethod
    def prepare(self, model: Target) -> str:
        """Reads the data, once; called before training.

        Returns:
            A line for people: what was read.

        Raises:
            UserError: if the data cannot be read, or `model` cannot learn from it.
        """

    @abstractmethod
    def log_likelihood(self, model: Target) -> Tensor:
        """`()` mean log-likelihood, in nats, of a random batch of the data, differentiable.

        Draws from torch's global generator.
        """

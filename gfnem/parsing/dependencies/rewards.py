"""Rewards of dependency trees, and the one that gives the dependency model its start."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

import torch
from torch import Tensor

from gfnem.parsing.dependencies.chart import arc_scores
from gfnem.parsing.text.sentences import Sentences
from gfnem.ranges import NotNegative, Positive
from gfnem.reward import Reward
from gfnem.schedules import Anneal


class ArcReward(Reward[Sentences, Tensor]):
    """A reward that is the sum over a tree's arcs: exact inference stays.

    A subclass says in `arcs` what each is worth. See `Reward` for its arguments.
    """

    @abstractmethod
    def arcs(self, x: Sentences) -> Tensor:
        """`(batch, n + 1, n)` finite nats, `[b, h, d]`: word `d` under `h - 1`, or the wall."""

    def parts(self, x: Sentences) -> Tensor:
        """See `arcs`."""
        return self.arcs(x)

    def forward(self, x: Sentences, z: Tensor) -> Tensor:
        """`(batch, samples)` nats: the sum over the arcs of each tree."""
        return torch.where(x.mask()[:, None], arc_scores(self.arcs(x), z), 0.0).sum(2)

    def partial(self, x: Sentences, state: Any) -> Tensor:
        """`(batch, samples)` nats of the arcs that a state has."""
        return torch.where(state.order > 0, arc_scores(self.arcs(x), state.owner), 0.0).sum(2)


class Harmonic(ArcReward):
    """Short arcs first: an arc over a distance `d` counts `1 / (d + offset)`.

    EM of the dependency model finds poor trees from where it starts by chance. Klein and Manning
    (2004, section 3) start it from trees whose arcs have such weights; here the weight of the
    reward falls from that to nothing, as in structural annealing (Smith and Eisner, 2006).

    Args:
        weight: by default it falls from 1 to 0 in 500 M-updates.
        offset: the larger, the less distance counts.
    """

    of_samples = True

    def __init__(self, weight: NotNegative | Anneal | None = None, offset: Positive = 1.0):
        super().__init__(Anneal(1.0, 0.0, 500) if weight is None else weight)
        self.offset = offset

    def arcs(self, x: Sentences) -> Tensor:
        """See `ArcReward`."""
        place = torch.arange(x.max_length, device=x.tokens.device)
        distance = (place - place[:, None]).abs() + self.offset
        wall = torch.zeros_like(distance[:1])
        return -torch.cat([wall, distance.log()]).expand(len(x), -1, -1)

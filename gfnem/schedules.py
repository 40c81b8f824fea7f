"""Quantities that change as training goes on."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod

from gfnem.component import Component
from gfnem.ranges import Count, Finite, Scheduled


class Anneal(Component, Scheduled):
    """A number that moves from `start` to `end` over `updates`, then stays.

    Args:
        start: the first value; positive if `shape` is "exponential".
        end: the last value, likewise.
        updates: how many updates the way takes; which updates count is the user's of it to say.
        shape: "linear" or "exponential" (linear in the logarithm).

    Raises:
        ValueError: if the arguments contradict each other.
    """

    def __init__(self, start: Finite, end: Finite, updates: Count, shape: str = "linear"):
        if shape not in ("linear", "exponential"):
            raise ValueError(f"shape is linear or exponential, not {shape!r}")
        if shape == "exponential" and min(start, end) <= 0:
            raise ValueError(f"start {start}, end {end}: an exponential shape needs positive ends")
        self.start, self.end, self.updates, self.shape = start, end, updates, shape

    def extremes(self) -> tuple[float, float]:
        """The first and the last value."""
        return self.start, self.end

    def __call__(self, update: int) -> float:
        """The value at `update` (0 is the first)."""
        way = min(max(update / self.updates, 0.0), 1.0)
        if self.shape == "linear":
            return self.start + way * (self.end - self.start)
        return math.exp(math.log(self.start) + way * math.log(self.end / self.start))


def value_at(schedule: float | Anneal, update: int) -> float:
    """A plain number stays what it is; an `Anneal` is asked."""
    return schedule(update) if isinstance(schedule, Anneal) else float(schedule)


class Timing(Component, ABC):
    """Decides, before each update, whether the sampler is trained, the model, or both."""

    @abstractmethod
    def e_step_due(self, updates: int) -> bool:
        """Whether update number `updates` (0 is the first) trains the sampler."""

    @abstractmethod
    def m_step_due(self, updates: int, m_updates: int, average: float) -> bool:
        """Whether it also trains the model.

        Args:
            updates: updates done so far.
            m_updates: those of them that trained the model.
            average: moving average of the E-step's loss, this update's included.
        """

    def threshold(self, m_updates: int) -> float | None:
        """The loss below which the model is trained, where there is one."""
        return None


class EveryUpdate(Timing):
    """Trains sampler and model in every update, or one of them less often.

    Args:
        e_every: the sampler is trained in each `e_every`-th update only, the first one included.
            With a plain M-step the others are cheaper: they draw, and nothing else.
        m_every: likewise the model.
    """

    def __init__(self, e_every: Count = 1, m_every: Count = 1):
        self.e_every, self.m_every = e_every, m_every

    def e_step_due(self, updates):
        """In each `e_every`-th."""
        return updates % self.e_every == 0

    def m_step_due(self, updates, m_updates, average):
        """In each `m_every`-th."""
        return updates % self.m_every == 0


class AdaptiveThreshold(Timing):
    """Trains the model only while the sampler keeps up (Hu et al. 2023, section 4.1).

    An M-step is taken while the moving average of the E-loss is below `level`.

    Args:
        level: the threshold, in the E-loss's own units; a number or an `Anneal` over M-updates.
    """

    def __init__(self, level: Finite | Anneal):
        self.level = level

    def e_step_due(self, updates):
        """Always."""
        return True

    def m_step_due(self, updates, m_updates, average):
        """While the average is below the level."""
        return average < value_at(self.level, m_updates)

    def threshold(self, m_updates):
        """The level at `m_updates`."""
        return value_at(self.level, m_updates)


class Alternating(Timing):
    """Trains the sampler for some updates, then the model for some, and so on.

    Args:
        e_updates: updates of the sampler in a row.
        m_updates: updates of the model in a row.
    """

    def __init__(self, e_updates: Count = 400, m_updates: Count = 400):
        self.e_updates, self.m_updates = e_updates, m_updates

    def e_step_due(self, updates):
        """In the first phase of each cycle."""
        return updates % (self.e_updates + self.m_updates) < self.e_updates

    def m_step_due(self, updates, m_updates, average):
        """In the second phase of each cycle."""
        return not self.e_step_due(updates)

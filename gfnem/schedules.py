"""Quantities that change as training goes on."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Set
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor, nn

from gfnem.component import Component, class_of
from gfnem.errors import UserError
from gfnem.ranges import Count, Finite, PartialShare, Scheduled, Share
from gfnem.running.processes import mean


class Anneal(Component, Scheduled):
    """A number that moves from `start` to `end` over `updates`, then stays.

    Args:
        start: the first value; positive if `shape` is "exponential".
        end: the last value, likewise.
        updates: how many updates the way takes; which updates count is the user's of it to say.
        shape: "linear" or "exponential" (linear in the logarithm).
        share: how much of a run the way takes, where there are no `updates`. `gfnem train` makes
            updates of it, since it knows how long the run is. Where updates of the model are what
            counts and not every update trains it, the way takes longer.

    Raises:
        ValueError: if the arguments contradict each other.
    """

    def __init__(
        self,
        start: Finite,
        end: Finite,
        updates: Count | None = None,
        shape: str = "linear",
        share: Share | None = None,
    ):
        if updates is None and share is None:
            raise ValueError("updates, or share, says how long the way is: one of them is needed")
        if shape not in ("linear", "exponential"):
            raise ValueError(f"shape is linear or exponential, not {shape!r}")
        if shape == "exponential" and min(start, end) <= 0:
            raise ValueError(f"start {start}, end {end}: an exponential shape needs positive ends")
        self.start, self.end, self.updates, self.shape = start, end, updates, shape
        self.share = share

    def extremes(self) -> tuple[float, float]:
        """The first and the last value."""
        return self.start, self.end

    def __call__(self, update: int) -> float:
        """The value at `update` (0 is the first).

        Raises:
            RuntimeError: if only a share of the run is known, which has a length for `gfnem train`.
        """
        if self.updates is None:
            raise RuntimeError(f"a share, {self.share}, of a run of unknown length: give updates")
        way = min(max(update / self.updates, 0.0), 1.0)
        if self.shape == "linear":
            return self.start + way * (self.end - self.start)
        return math.exp(math.log(self.start) + way * math.log(self.end / self.start))


def over(settings: Any, updates: int | None) -> Any:
    """Settings of a run of so many updates, in which each share of an `Anneal` is a count.

    Args:
        settings: nested plain data, as in a settings file.
        updates: the length of the run; None if it has none.

    Raises:
        UserError: if there is a share of a run without length, or settings are too deep.
    """
    try:
        return _counted(settings, updates)
    except RecursionError as error:
        raise UserError("settings within settings, too deeply") from error


def _counted(settings: Any, updates: int | None) -> Any:
    if isinstance(settings, list):
        return [_counted(part, updates) for part in settings]
    if not isinstance(settings, dict):
        return settings
    settings = {name: _counted(part, updates) for name, part in settings.items()}
    told = settings.get("init_args")
    share = told.get("share") if isinstance(told, dict) else None
    if isinstance(share, (int, float)) and class_of(settings, Component) is Anneal:
        counted = told.get("updates")
        if counted is None:
            if not isinstance(updates, int):
                raise UserError(f"share {share}: of how many updates? Give max_updates")
            counted = max(1, round(share * updates)) if 0 <= share <= 1 else 1
        # the share stays, for its range to be checked
        settings["init_args"] = {**told, "updates": counted}
    return settings


_MOVING: ContextVar[Callable[[Anneal], Any] | None] = ContextVar("moving", default=None)


def value_at(schedule: float | Anneal, update: int) -> Any:
    """A plain number stays what it is; an `Anneal` is asked.

    In an update that is recorded (see `gfnem.recording`) the value of an `Anneal` is a tensor `()`.
    """
    if not isinstance(schedule, Anneal):
        return float(schedule)
    moving = _MOVING.get()
    return schedule(update) if moving is None else moving(schedule)


@contextmanager
def moving(number: Callable[[Anneal], Any]) -> Iterator[None]:
    """Meanwhile has `value_at` ask for the value of an `Anneal` there."""
    token = _MOVING.set(number)
    try:
        yield
    finally:
        _MOVING.reset(token)


class Clock(nn.Module):
    """How often what has been trained, and how well the sampler does.

    Attributes:
        updates: updates done.
        e_updates: those of them that trained the policy.
        m_updates: those of them that trained the model.
        anneals_over: which of these counts an `Anneal` runs over.
    """

    anneals_over: str = "m_updates"

    def __init__(self) -> None:
        super().__init__()
        self.updates = self.e_updates = self.m_updates = 0
        self._average: Tensor | float = 0.0
        self._averaged: Tensor | float = 0.0
        self._decay = 0.99

    @property
    def now(self) -> int:
        """The count that an `Anneal` is asked with."""
        return getattr(self, self.anneals_over)

    def observe(self, e_loss: Tensor, decay: float) -> None:
        """Moves the average of the E-loss `()`, by the mean over processes, alike on each."""
        e_loss = mean(e_loss)
        self._decay = decay
        kept = torch.isfinite(e_loss).to(torch.float64)
        moved = torch.nan_to_num(e_loss.double()) * (1 - decay)
        self._average = torch.where(kept > 0, self._average * decay + moved, self._average)
        self._averaged = self._averaged + kept

    def average(self) -> float:
        """Moving average of the E-loss, corrected for its start at zero; NaN before any update."""
        count = float(self._averaged)
        return float(self._average) / (1 - self._decay**count) if count else math.nan

    def tick(self, trained: Set[str]) -> None:
        """Counts one update that trained these networks."""
        self.updates += 1
        self.e_updates += "policy" in trained
        self.m_updates += "model" in trained

    def get_extra_state(self) -> dict[str, Any]:
        """Plain numbers, for a checkpoint."""
        counts = {name: getattr(self, name) for name in ("updates", "e_updates", "m_updates")}
        average = float(self._average), float(self._averaged), self._decay
        return {**counts, "average": average}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        """Takes them up again."""
        self.updates, self.e_updates = state["updates"], state["e_updates"]
        self.m_updates = state["m_updates"]
        self._average, self._averaged, self._decay = state["average"]


class Schedule(Component, ABC):
    """Decides, before each phase of an update, whether it is due."""

    #: of the moving average of the E-loss; nearer to 1 is slower
    average_decay: float = 0.99

    @abstractmethod
    def due(self, network: str, clock: Clock) -> bool:
        """Whether phases that train `network`, "policy" or "model", are due.

        Args:
            network: what the phase trains.
            clock: counts of updates done so far; the E-loss's average has this update's in it when
                a later phase is asked for.
        """

    def threshold(self, clock: Clock) -> float | None:
        """The loss below which the model is trained, where there is one."""
        return None


class EveryUpdate(Schedule):
    """Trains sampler and model in every update, or one of them less often.

    Args:
        e_every: the sampler is trained in each `e_every`-th update only, the first one included.
            With an M-step on equal samples the others are cheaper: they draw, and nothing else.
        m_every: likewise the model.
    """

    recordable = True

    def __init__(self, e_every: Count = 1, m_every: Count = 1):
        self.e_every, self.m_every = e_every, m_every

    def due(self, network: str, clock: Clock) -> bool:
        """In each so-many-th update."""
        return clock.updates % (self.e_every if network == "policy" else self.m_every) == 0


class AdaptiveThreshold(Schedule):
    """Trains the model only while the sampler keeps up (Hu et al. 2023, section 4.1).

    An M-step is taken while the moving average of the E-loss is below `level`.

    Args:
        level: the threshold, in the E-loss's own units; a number or an `Anneal` over M-updates.
        average_decay: of the moving average; nearer to 1 is slower.
    """

    def __init__(self, level: Finite | Anneal, average_decay: PartialShare = 0.99):
        self.level, self.average_decay = level, average_decay

    def due(self, network: str, clock: Clock) -> bool:
        """The sampler always, the model while the average is below the level."""
        return network == "policy" or clock.average() < value_at(self.level, clock.m_updates)

    def threshold(self, clock: Clock) -> float:
        """The level now."""
        return value_at(self.level, clock.m_updates)


class Alternating(Schedule):
    """Trains the sampler for some updates, then the model for some, and so on.

    Args:
        e_updates: updates of the sampler in a row.
        m_updates: updates of the model in a row.
    """

    recordable = True

    def __init__(self, e_updates: Count = 400, m_updates: Count = 400):
        self.e_updates, self.m_updates = e_updates, m_updates

    def due(self, network: str, clock: Clock) -> bool:
        """The sampler in the first part of each cycle, the model in the second."""
        first = clock.updates % (self.e_updates + self.m_updates) < self.e_updates
        return first == (network == "policy")

"""The algorithm: updates of a model and its sampler, phase after phase. No Lightning is needed."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, cast

import torch
from torch import Tensor, nn

from gfnem.batch import Batch
from gfnem.phases import MODEL, POLICY, Phase
from gfnem.policy import Policy
from gfnem.recipes import Recipe, gflownet
from gfnem.recording import Recorder
from gfnem.reward import Reward, Rewarded, rewarded
from gfnem.schedules import Clock, EveryUpdate, Schedule
from gfnem.space import LatentSpace
from gfnem.target import Target


class EM(nn.Module):
    """A model, its sampler, and how both are trained.

    Args:
        model: the joint `p(x, z)`.
        space: how a structure is built; None where no phase builds one.
        policy: the sampler; None where no phase draws from one.
        recipe: what an update is made of; `gfnem.recipes.gflownet()` if None, or a list of phases.
        schedule: which phases are due when; all in every update if None.
        reward: what the E-step adds to the model's `log p(x, z)`; nothing if None.
        record: whether updates on a GPU are recorded and repeated, where all parts allow it (see
            `gfnem.recording`).

    Attributes:
        clock: counts of updates.
        figures: what the phases of the last update reported, by name, each `()`.

    Raises:
        ValueError, NotOffered: if the parts do not fit each other.
    """

    def __init__(
        self,
        model: Target,
        space: LatentSpace | None,
        policy: Policy | None,
        recipe: Recipe | list[Phase] | None = None,
        schedule: Schedule | None = None,
        reward: Reward | None = None,
        record: bool = True,
    ):
        super().__init__()
        if isinstance(model, Rewarded):
            raise ValueError("a model is given by itself, and what it is rewarded with as reward=")
        # phases say in `check` what they need of them
        self.model, self.reward = model, reward
        self._target = (rewarded(model, reward),)  # in a tuple: its parts are registered already
        self.space, self.policy = cast(LatentSpace, space), cast(Policy, policy)
        recipe = gflownet() if recipe is None else recipe
        phases = recipe if isinstance(recipe, list) else recipe.phases()
        self.phases = cast(Sequence[Phase], nn.ModuleList(phases))
        self.schedule = EveryUpdate() if schedule is None else schedule
        self.clock = Clock()
        if not any(phase.trains == MODEL for phase in phases):
            self.clock.anneals_over = "updates"  # there are no M-updates
        self.figures: dict[str, Tensor | float] = {}
        if policy is not None:
            policy.serve(model)
        for phase in phases:
            phase.check(self.target, self.space, self.policy)
        self.recorder: Recorder | None = Recorder(self) if record else None

    @property
    def target(self) -> Target:
        """What the sampler aims at: the model, times the reward where there is one."""
        return self._target[0]

    @property
    def has_policy(self) -> bool:
        """Whether a sampler is trained at all."""
        return any(phase.trains == POLICY for phase in self.phases)

    def network(self, name: str) -> nn.Module:
        """The policy or the model, by the name that phases call them."""
        return {POLICY: self.policy, MODEL: self.model}[name]

    @torch.no_grad()
    def try_out(self, x: Any) -> None:
        """Takes the phases that train the policy through a batch, and leaves everything as it is.

        Raises:
            NotOffered: if the policy lacks what an objective needs.
        """
        with torch.random.fork_rng(devices=[]):
            batch = Batch(self, x)
            for phase in self.phases:
                if phase.trains == POLICY:
                    phase(batch)

    def prepare(self) -> list[str]:
        """Has the phases read what they need beside the observations; lines for people."""
        return [line for phase in self.phases if (line := phase.prepare(self.model))]

    def update(self, x: Any) -> Iterator[tuple[Phase, Tensor]]:
        """Yields the phases that are due, each with its loss.

        The caller takes an optimiser step on `network(phase.trains)` before it asks for the next,
        so that later phases see what has moved.

        Args:
            x: a batch of observations.
        """
        with without_denormals():
            yield from self._update(x)

    def due(self) -> list[int]:
        """The numbers of the phases that are due, as far as is known by now."""
        return [
            number
            for number, phase in enumerate(self.phases)
            if self.schedule.due(phase.trains, self.clock)
        ]

    def before(self, batch: Batch, number: int, due: Sequence[int]) -> None:
        """Tells the batch what is still to come when a phase begins."""
        later = [self.phases[other] for other in due if other >= number]
        batch.policy_moves = any(phase.trains == POLICY for phase in later)
        batch.model_climbs = any(phase.climbs(self.target) for phase in later)

    def _update(self, x: Any) -> Iterator[tuple[Phase, Tensor]]:
        self.target.on_step(self.clock.m_updates)
        recording = None
        if self.recorder is not None:
            recording = self.recorder.recording(x, self.due())
            x = x if recording is None else recording.read(x, self.clock.now)
        batch, trained = Batch(self, x), set[str]()
        for number, phase in enumerate(self.phases):
            if not self.schedule.due(phase.trains, self.clock):
                continue
            self.before(batch, number, self.due())
            loss = phase(batch) if recording is None else recording.run(number, phase, batch)
            yield phase, loss
            trained.add(phase.trains)
            batch.forget(phase.trains)
            if phase.trains == POLICY and "e_loss" in batch.figures:
                self.clock.observe(
                    torch.as_tensor(batch.figures["e_loss"]), self.schedule.average_decay
                )
        if (threshold := self.schedule.threshold(self.clock)) is not None:
            batch.figures["threshold"] = threshold
        self.clock.tick(trained)
        self.figures = batch.figures


@contextmanager
def without_denormals() -> Iterator[None]:
    """Meanwhile takes numbers below 1e-38 for 0, in this thread.

    Products with them take five times as long, and policies that are sure of themselves have
    gradients full of them.
    """
    already = sys.float_info.min / 2 == 0
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(already)

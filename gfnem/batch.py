"""What the phases of one update share: observations, what is known given them, and draws."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from gfnem.batched import each, pick, tensors_of
from gfnem.policy import Scores
from gfnem.space import Trajectories
from gfnem.target import Conditioned

if TYPE_CHECKING:
    from gfnem.em import EM
    from gfnem.sources import Source


class Batch:
    """A batch of observations in one update. Everything here is made when it is first asked for.

    Attributes:
        em: the model, its space and its policy, and the clock.
        x: the observations.
        figures: what the phases report, by name, each `()`.
        policy_moves: whether a phase is still to come that trains the policy; if none is, nothing
            of the policy is computed with gradients.
        model_climbs: whether a phase is still to come that trains the model on the log joint of
            draws as they are; if one is, these are computed with gradients once for all phases.
    """

    def __init__(self, em: EM, x: Any, policy_moves: bool = True, model_climbs: bool = False):
        self.em, self.x = em, x
        self.policy_moves, self.model_climbs = policy_moves, model_climbs
        self.figures: dict[str, Tensor | float] = {}
        self._given: Conditioned | None = None
        self._context: Any = None
        self._free: Batch | None = None
        self._draws: dict[Source, Draws] = {}

    def __len__(self) -> int:
        """How many observations."""
        return len(self.x)

    @property
    def given(self) -> Conditioned:
        """What the sampler aims at, given the observations."""
        if self._given is None:
            self._given = self.em.target.given(self.x)
        return self._given

    @property
    def context(self) -> Any:
        """The policy's encoding of the observations."""
        if self._context is None:
            with torch.set_grad_enabled(self.policy_moves):
                self._context = self.em.policy.encode(self.x, self.given)
        return self._context

    def of(self, x: Any) -> Batch:
        """A batch of other observations in the same update."""
        return Batch(self.em, x, self.policy_moves, self.model_climbs)

    @property
    def free(self) -> Batch:
        """One observation that says nothing (see `LatentSpace.free`), the same for all phases."""
        if self._free is None:
            self._free = self.of(self.em.space.free(self.x))
            self._free.figures = self.figures
        self._free.policy_moves = self.policy_moves
        self._free.model_climbs = self.model_climbs
        return self._free

    def draw(self, source: Source) -> Draws:
        """What a source draws in this update: the same for all phases that name it."""
        if source not in self._draws:
            self._draws[source] = source.draw(self)
        return self._draws[source]

    def forget(self, network: str) -> None:
        """Drops what was computed with the parameters of a network that has just moved.

        The draws stay as they are.
        """
        if network == "model":
            self._given = None
        self._context = None  # it may have read the model
        if self._free is not None:
            self._free.forget(network)
        for draws in self._draws.values():
            draws.forget(network)
            if draws.batch is not self:
                draws.batch.forget(network)


class Draws:
    """Structures drawn for observations, and what is known of them.

    Args:
        batch: the observations that they belong to.
        z: the structures, leading axes `(batch, samples)`.
        trajectories: how they were built; if not given, they are retraced with `P_B` when asked.
        parts: draws that these are, one after the other: what is known of them is not computed
            again.
    """

    def __init__(
        self,
        batch: Batch,
        z: Any,
        trajectories: Trajectories | None = None,
        parts: Sequence[Draws] = (),
    ):
        self.batch, self.z, self.parts = batch, z, parts
        self._trajectories = trajectories
        self._log_joint: Tensor | None = None
        self._climbed: Tensor | None = None
        self._log_path: Tensor | None = None
        self._scores: Scores | None = None
        self._scored_with: tuple[bool, bool, int | None, bool] | None = None

    @property
    def trajectories(self) -> Trajectories:
        """One trajectory to each structure."""
        if self._trajectories is None:
            em, batch = self.batch.em, self.batch
            self._trajectories = em.policy.retrace(batch.context, batch.x, em.space, self.z)
        return self._trajectories

    @property
    def log_joint(self) -> Float[Tensor, "batch samples"]:
        """`(batch, samples)` nats, without gradient."""
        if self._log_joint is None:
            if self.batch.model_climbs:
                self._log_joint = self.climbed.detach()
            elif self.parts:
                self._log_joint = torch.cat([part.log_joint for part in self.parts], 1)
            else:
                with torch.no_grad():
                    self._log_joint = self.batch.given.log_joint(self.z)
        return self._log_joint

    @property
    def climbed(self) -> Float[Tensor, "batch samples"]:
        """`(batch, samples)` the log joint, with gradients in the model; of all parts at once."""
        if self._climbed is None:
            with torch.enable_grad():
                self._climbed = self.batch.given.log_joint(self.z)
                start = 0
                for part in self.parts:
                    end = start + tensors_of(part.z)[0].shape[1]
                    part._climbed, start = self._climbed[:, start:end], end
        return self._climbed

    @property
    def log_weight(self) -> Float[Tensor, "batch samples"]:
        """`(batch, samples)` log importance weights in nats: `p~(x, z) P_B(tau|z) / behaviour`."""
        em = self.batch.em
        if self._log_path is None and em.policy.unique_trajectory(em.space):
            behaviour = self.trajectories.log_behaviour
            self._log_path = None if behaviour is None else -behaviour  # P_B is 1
        if self._log_path is None:
            with torch.no_grad():
                self.scores()
        assert self._log_path is not None, "only asked of sources whose draws are weighted"
        return self.log_joint + self._log_path

    def scores(
        self, flows: bool = False, forward_looking: bool = False, steps: int | None = None
    ) -> Scores:
        """The policy's scores of the trajectories, with gradients where these are enabled."""
        wanted = flows, forward_looking, steps, torch.is_grad_enabled()
        if self._scores is None or self._scored_with != wanted:
            options: dict[str, Any] = {"flows": True} if flows else {}
            options |= {"forward_looking": True} if forward_looking else {}
            options |= {} if steps is None else {"steps": steps}
            em, batch = self.batch.em, self.batch
            self._scores = em.policy.score(batch.context, em.space, self.trajectories, **options)
            self._scored_with = wanted
            behaviour = self._scores.log_behaviour = self.trajectories.log_behaviour
            if self._log_path is None and behaviour is not None and steps is None:
                self._log_path = self._scores.log_pb.detach().sum(2) - behaviour
        return self._scores

    def pick(self, index: Int[Tensor, "batch picked"]) -> Any:
        """Structures number `index` `(batch, picked)` of each observation."""
        return each(partial(pick, index=index), self.z)

    def forget(self, network: str) -> None:
        """Drops what was computed with the parameters of a network that has just moved."""
        self._scores = None
        for part in self.parts:
            part.forget(network)
        if network == "model":
            self._log_joint = self._climbed = None

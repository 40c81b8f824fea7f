"""Phases: the losses of one update, each of which trains one of the two networks."""

from __future__ import annotations

import reprlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn

from gfnem.batch import Batch, Draws
from gfnem.batched import Batched
from gfnem.component import Component
from gfnem.objectives import BalancedVarGrad, Objective
from gfnem.offers import NotOffered
from gfnem.policy import Policy, Scores
from gfnem.ranges import NotNegative, Positive
from gfnem.schedules import Anneal, value_at
from gfnem.side import SideInformation
from gfnem.sources import Source, needs
from gfnem.space import LatentSpace
from gfnem.target import EnergyModel, Target

POLICY, MODEL = "policy", "model"


class Phase(Component, nn.Module, ABC):
    """One loss of an update."""

    #: the network that it trains, "policy" or "model"
    trains: str

    @abstractmethod
    def forward(self, batch: Batch) -> Float[Tensor, ""]:
        """`()` the loss, differentiable in the parameters of the network that is trained."""

    def check(self, model: Target, space: LatentSpace, policy: Policy) -> None:
        """Refuses parts and settings that contradict the phase, before any data is read.

        Raises:
            ValueError: if settings contradict each other.
            NotOffered: if a part lacks what the phase needs.
        """

    def climbs(self, model: Target) -> bool:
        """Whether it trains the model on the log joint of draws as they are (`Draws.climbed`)."""
        return False

    def prepare(self, model: Target) -> str | None:
        """Reads what the phase needs beside the observations, once, before training.

        Returns:
            A line for people, where something was read.
        """
        return None


class TrainPolicy(Phase):
    """The E-step: trains the policy towards `P(z|x)^(1/T)` on what a source draws.

    Args:
        source: where structures come from.
        objective: the loss; `BalancedVarGrad` if None.
        reward_temperature: the `T`; a number, or an `Anneal` over M-updates.
        name: what the loss is called among the figures; that of the E-step is "e_loss".
    """

    trains = POLICY
    recordable = True

    def __init__(
        self,
        source: Source,
        objective: Objective | None = None,
        reward_temperature: Positive | Anneal = 1.0,
        name: str = "e_loss",
    ):
        super().__init__()
        if not isinstance(objective, Objective | None):
            raise ValueError(f"objective must be an Objective, not {reprlib.repr(objective)}")
        self.source, self.name = source, name
        self.objective = BalancedVarGrad() if objective is None else objective
        self.reward_temperature = reward_temperature

    def forward(self, batch: Batch) -> Float[Tensor, ""]:
        """`()` mean loss over the observations."""
        draws, objective = batch.draw(self.source), self.objective
        flows = objective.needs_flow or objective.uses_flow
        scores = draws.scores(flows, objective.forward_looking, objective.steps)
        self._has_what_it_needs(scores, batch.em.policy)
        temperature = value_at(self.reward_temperature, batch.em.clock.now)
        partial, reward = None, torch.zeros_like(scores.log_pf.detach().sum(2))
        if objective.uses_reward:
            reward = draws.log_joint / temperature
            if draws.batch is batch and objective.steps is None:
                log_q = (scores.log_pf - scores.log_pb).detach().sum(2)
                batch.figures["elbo"] = (draws.log_joint - log_q).mean()
        if objective.forward_looking:
            partial = _partial(draws) / temperature
        loss = objective(scores, reward, partial).mean()
        batch.figures[self.name] = loss.detach()
        if draws.batch is batch and batch.em.policy.offers("auxiliary_loss"):
            loss = loss + batch.em.policy.auxiliary_loss(batch.context).mean()
        return loss

    def _has_what_it_needs(self, scores: Scores, policy: Policy) -> None:
        for needed, value, what in (
            (self.objective.needs_flow, scores.log_flow, "flows of states"),
            (self.objective.needs_log_z, scores.log_z, "log Z(x)"),
        ):
            if needed and value is None:
                raise NotOffered(
                    f"{type(self.objective).__name__} needs {what}, which {type(policy).__name__} "
                    "does not offer"
                )

    def check(self, model: Target, space: LatentSpace, policy: Policy) -> None:
        """Whether source, objective, target and policy fit each other."""
        self.source.check(model, space, policy)
        name = type(self.objective).__name__
        if self.objective.on_policy and not self.source.on_policy:
            raise ValueError(
                f"{name} is right on the policy's own samples alone: leave temperature 1 and "
                "epsilon 0"
            )
        samples = getattr(self.source, "samples", self.objective.least_samples)
        if samples < self.objective.least_samples:
            raise ValueError(
                f"samples {samples}: {name} compares samples of one x; use "
                f"{self.objective.least_samples} or more"
            )
        if self.objective.forward_looking:
            needs(model, "partial_log_joint", f"{name} that looks forward")


@torch.no_grad()
def _partial(draws: Draws) -> Float[Tensor, "batch samples visited"]:
    """`(batch, samples, steps + 1)` what the target says of each state visited."""
    batch, found = draws.batch, draws.trajectories
    states = found.states or batch.em.space.states(batch.x, found.latent)
    partial = batch.given.partial_log_joint(Batched.cat(states))
    return partial.unflatten(1, (len(states), -1)).transpose(1, 2)


def importance(draws: Draws) -> tuple[Any, Float[Tensor, "batch samples"]]:
    """All draws and their self-normalised importance weights `(batch, samples)`.

    Right where the sampler lags behind.
    """
    weight = draws.log_weight.softmax(1)
    return draws.z, weight * weight.shape[1]


def equal(draws: Draws) -> tuple[Any, float]:
    """All draws alike: less noisy where they are few for the structures there are."""
    return draws.z, 1.0


def best(draws: Draws) -> tuple[Any, float]:
    """The one with the greatest `p(x, z)` of each observation."""
    return draws.pick(draws.log_joint.argmax(1, keepdim=True)), 1.0


def one(draws: Draws) -> tuple[Any, float]:
    """One of each observation, drawn by importance weight."""
    return draws.pick(torch.multinomial(draws.log_weight.softmax(1), 1)), 1.0


#: how the draws for one observation count in the M-step: which, and their weights of mean 1
M_STEPS: dict[str, Callable[[Draws], tuple[Any, Tensor | float]]] = {
    "importance": importance,
    "equal": equal,
    "best": best,
    "one": one,
}


class TrainModel(Phase):
    """The M-step: raises `log p~(x, z)` on what a source draws.

    With a negative phase the gradient is that of an energy's likelihood: what the source draws is
    raised, what `negative` draws is lowered.

    Args:
        source: the positive phase.
        m_step: how the draws for one observation count (see `M_STEPS`): "importance", "equal",
            "best" or "one".
        collapse: whether to sum out what the model can sum out of a sample in closed form
            (`Target.collapsed_log_joint`), which makes the gradient less noisy.
        negative: where structures of the model itself come from, for an `EnergyModel`. Draws that
            know their importance weights count by them.
        penalty: weight of the mean squared log joint of both phases (Du and Mordatch 2019, arXiv
            1903.08689), which keeps the level and the scale of an energy.
    """

    trains = MODEL
    recordable = True

    def __init__(
        self,
        source: Source,
        m_step: str = "importance",
        collapse: bool = True,
        negative: Source | None = None,
        penalty: NotNegative = 0.0,
    ):
        super().__init__()
        if m_step not in M_STEPS:
            raise ValueError(f"m_step is one of {', '.join(M_STEPS)}, not {reprlib.repr(m_step)}")
        if not isinstance(negative, Source | None):
            raise ValueError(f"negative must be a Source, not {reprlib.repr(negative)}")
        self.source, self.m_step, self.collapse = source, m_step, collapse
        self.negative, self.penalty = negative, penalty

    def forward(self, batch: Batch) -> Float[Tensor, ""]:
        """`()` minus the mean weighted log joint, in nats an observation."""
        draws = batch.draw(self.source)
        z, weight = M_STEPS[self.m_step](draws)
        if batch.em.reward is not None:
            batch.em.reward.observe(draws.batch.x, z)
        if self.negative is None:
            loss = -(weight * self._log_joint(draws.batch, z)).mean()
        else:
            found = batch.draw(self.negative)
            model_z, model_weight = (importance if self.negative.weighted else equal)(found)
            if self.climbs(batch.em.target):
                raised, lowered = draws.climbed, found.climbed
            else:
                raised = self._log_joint(draws.batch, z)
                lowered = self._log_joint(found.batch, model_z)
            loss = (model_weight * lowered).mean() - (weight * raised).mean()
            if self.penalty:
                loss = loss + self.penalty * (raised.square().mean() + lowered.square().mean())
        batch.figures["m_loss"] = loss.detach()
        return loss

    def climbs(self, model: Target) -> bool:
        """An energy that sums nothing out, on draws of which none is left out."""
        kept = self.negative is not None and self.m_step in ("importance", "equal")
        return kept and not (self.collapse and model.offers("collapsed_log_joint"))

    def _log_joint(self, batch: Batch, z: Any) -> Float[Tensor, "batch samples"]:
        if self.collapse and batch.given.offers("collapsed_log_joint"):
            return batch.given.collapsed_log_joint(z)
        return batch.given.log_joint(z)

    def check(self, model: Target, space: LatentSpace, policy: Policy) -> None:
        """Whether sources and target fit each other."""
        self.source.check(model, space, policy)
        if self.m_step in ("importance", "one") and not self.source.weighted:
            raise ValueError(
                f"m_step {self.m_step}: the draws of {type(self.source).__name__} have no "
                "importance weights; use equal"
            )
        if self.negative is not None:
            self.negative.check(model, space, policy)
            return
        model = model.normalised()  # a reward is not trained
        if isinstance(model, EnergyModel) and any(p.requires_grad for p in model.parameters()):
            raise ValueError(
                f"{type(model).__name__} is an EnergyModel: training it takes a negative phase, "
                "TrainModel(..., negative=SOURCE) or --recipe.negative; freeze it to train the "
                "sampler alone"
            )


class ClimbMarginal(Phase):
    """Exact maximum likelihood: raises the exact `log p(x)`; no E-step is needed."""

    trains = MODEL
    recordable = True

    def forward(self, batch: Batch) -> Float[Tensor, ""]:
        """`()` minus the mean log marginal, in nats an observation."""
        loss = batch.em.model.log_partition() - batch.given.log_marginal().mean()
        batch.figures["m_loss"] = loss.detach()
        return loss

    def check(self, model: Target, space: LatentSpace, policy: Policy) -> None:
        """The model must offer `log_marginal` and `log_partition`."""
        for hook in ("log_marginal", "log_partition"):
            needs(model, hook, "exact maximum likelihood")


class LearnBeside(Phase):
    """Raises the likelihood of data of another kind, weighted as it says.

    Args:
        side: the data.
    """

    trains = MODEL

    def __init__(self, side: SideInformation):
        super().__init__()
        if not isinstance(side, SideInformation):
            raise ValueError(f"side must be SideInformation, not {reprlib.repr(side)}")
        self.side = side

    def forward(self, batch: Batch) -> Float[Tensor, ""]:
        """`()` minus the weighted mean log-likelihood of a random batch of the other data."""
        beside = self.side.log_likelihood(batch.em.model)
        batch.figures["side_log_likelihood"] = beside.detach()
        return -value_at(self.side.weight, batch.em.clock.m_updates) * beside

    def prepare(self, model: Target) -> str:
        """Reads the other data."""
        return self.side.prepare(model)


class Together(Phase):
    """Several phases of one network whose losses are added up: one optimiser step for all.

    Args:
        phases: at least one.
        weights: of their losses, each a number or an `Anneal`; all 1 if None. A phase that weighs
            nothing is left out.
    """

    recordable = True

    def __init__(
        self, phases: Sequence[Phase], weights: Sequence[NotNegative | Anneal] | None = None
    ):
        super().__init__()
        if len({phase.trains for phase in phases}) != 1:
            raise ValueError("Together adds up phases that train the same network")
        self.phases = cast(Sequence[Phase], nn.ModuleList(phases))
        self.weights: list[float | Anneal] = [1.0] * len(phases)
        if weights is not None:
            self.weights = list(weights)
        self.trains = phases[0].trains

    def forward(self, batch: Batch) -> Float[Tensor, ""]:
        """`()` the weighted sum."""
        weights = [value_at(weight, batch.em.clock.now) for weight in self.weights]
        pairs = zip(weights, self.phases, strict=True)
        return cast(Tensor, sum(weight * phase(batch) for weight, phase in pairs if weight))

    def climbs(self, model: Target) -> bool:
        """Whether one of them does."""
        return any(phase.climbs(model) for phase in self.phases)

    def check(self, model: Target, space: LatentSpace, policy: Policy) -> None:
        """Each of them."""
        for phase in self.phases:
            phase.check(model, space, policy)

    def prepare(self, model: Target) -> str | None:
        """Each of them."""
        lines = (phase.prepare(model) for phase in self.phases)
        return "\n".join(line for line in lines if line) or None

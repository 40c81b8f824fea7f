"""Policies: how probable each next step is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Generic

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from gfnem import refinement, sampling
from gfnem.batched import Batched, Context, State, X, Z
from gfnem.component import Component
from gfnem.offers import Offering, optional
from gfnem.sampling import Exploration
from gfnem.space import LatentSpace, Trajectories
from gfnem.target import Conditioned, Target


@dataclass
class Step:
    """What a policy says of a batch of states.

    Attributes:
        forward: `(batch, samples, actions)` unnormalised log weights of forward actions (the
            caller masks and normalises).
        backward: `(batch, samples, backward actions)` likewise, or None for a uniform choice.
        log_flow: `(batch, samples)` log flow `log F(s|x)` in nats, or None.
    """

    forward: Float[Tensor, "batch samples actions"]
    backward: Float[Tensor, "batch samples undoings"] | None = None
    log_flow: Float[Tensor, "batch samples"] | None = None


@dataclass
class Scores:
    """What an objective needs to know of trajectories, all in nats.

    Attributes:
        log_pf, log_pb: `(batch, samples, steps)`, 0 past a trajectory's end.
        log_z: `(batch,)` the policy's estimate of `log Z(x)`, or None.
        log_flow: `(batch, samples, steps + 1)` flow of every state visited, or None.
        mask: `(batch, samples, steps)` bool, False past a trajectory's end.
        guided: whether the flows start from what the target tells of itself. If not, they are far
            off until they are learned, and an objective that can do without them does.
        ends: `(batch, samples, steps + 1)` bool: the final states, where the steps are some of a
            trajectory's; None where they are all.
        log_behaviour: `(batch, samples)` log probability of what was really drawn from, where that
            may have strayed from the policy; None if it is the policy, or not known.
    """

    log_pf: Float[Tensor, "batch samples steps"]
    log_pb: Float[Tensor, "batch samples steps"]
    mask: Bool[Tensor, "batch samples steps"]
    log_z: Float[Tensor, " batch"] | None = None
    log_flow: Float[Tensor, "batch samples steps+1"] | None = None
    guided: bool = True
    ends: Tensor | None = None
    log_behaviour: Float[Tensor, "batch samples"] | None = None


class Policy(Component, Offering, nn.Module, ABC, Generic[X, Z, State, Context]):
    """A conditional forward policy, with backward policy and flow where it has them.

    A subclass writes `encode` (run once for each `x`) and `forward` (any number of states). It may
    override `sample` and `score` when it knows a faster way than one state after the other.

    One that overrides `sample`, `retrace` and `score` may also build the space's structures by
    trajectories of its own, on which it makes choices that the structure does not tell: `score`
    gives the probability of these forwards and, given the structure, backwards. Its `forward`
    raises `NotOffered`.
    """

    #: names of submodules and parameters (`"head"`, `"rules.single"`) that only `log_z` uses, or
    #: what follows from it; they may learn faster
    log_z_parts: tuple[str, ...] = ()

    def is_for_log_z(self, name: str) -> bool:
        """Whether a parameter, by its full name, belongs to `log_z_parts`."""
        return any(f"{name}.".startswith(f"{part}.") for part in self.log_z_parts)

    def serve(self, target: Target[X, Z]) -> None:
        """Told once, before training, which target this policy is for.

        A policy gives up the parameters that this target leaves without use. Nothing by default.
        """

    @abstractmethod
    def encode(self, x: X, given: Conditioned[X, Z] | None = None) -> Context:
        """Reads the observations, and what the target tells of them, once; returns a context."""

    @abstractmethod
    def forward(self, context: Context, state: State) -> Step:
        """Scores the next and the previous steps of states, `(batch, any number, ...)`."""

    def unique_trajectory(self, space: LatentSpace[X, Z, State]) -> bool:
        """Whether each structure has one trajectory: as the space says, unless it goes its own."""
        return space.unique_trajectory

    @optional
    def log_z(self, context: Context) -> Float[Tensor, " batch"]:
        """`(batch,)` learned `log Z(x)` in nats. Optional."""
        ...

    @optional
    def marginals(self, context: Context) -> Tensor:
        """`(batch, ...)` how probable it is that what is built has each part. Optional.

        Of a policy that knows its flows: the flow through the part over all flow. Which parts there
        are is the latent space's matter (spans of a sentence, say).
        """
        ...

    @optional
    def auxiliary_loss(self, context: Context) -> Float[Tensor, " batch"]:
        """`(batch,)` loss added to the E-step's objective, for parts that learn by other means.

        Optional.
        """
        ...

    def choose(
        self,
        context: Context,
        space: LatentSpace[X, Z, State],
        state: State,
        exploration: Exploration,
    ) -> tuple[Tensor, Tensor]:
        """Draws the next action of each state.

        A policy that knows a faster way than by the log weights of all actions overrides this.

        Returns:
            Actions `(batch, samples)` and the log probability, in nats, with which each was drawn.
        """
        output = self(context, state)
        return sampling.draw(output.forward, space.forward_mask(state), exploration)

    @torch.no_grad()
    def sample(
        self,
        context: Context,
        x: X,
        space: LatentSpace[X, Z, State],
        samples: int,
        exploration: Exploration | None = None,
    ) -> Trajectories[Z, State]:
        """Draws `samples` trajectories for each `x`, without autograd."""
        return sampling.rollout(self, context, x, space, samples, exploration)

    @optional
    def arithmetic_sample(
        self,
        context: Context,
        x: X,
        space: LatentSpace[X, Z, State],
        samples: int,
        exploration: Exploration | None = None,
    ) -> Trajectories[Z, State]:
        """As `sample`, with draws of one `x` that are not independent but spread evenly. Optional.

        Arithmetic sampling (Vilnis et al. 2023, arXiv 2210.15458): `samples` equidistant numbers
        behind a random first one are decoded by the policy's conditional distributions. Each draw
        by itself is one of the policy. Averages over the draws are unbiased, with less variance.
        """
        ...

    @torch.no_grad()
    def retrace(
        self, context: Context, x: X, space: LatentSpace[X, Z, State], latent: Z
    ) -> Trajectories[Z, State]:
        """Draws, with `P_B`, one trajectory that ends in each of the given latents."""
        return sampling.backward_rollout(self, context, x, space, latent)

    @torch.no_grad()
    def regrow(
        self, context: Context, x: X, space: LatentSpace[X, Z, State], latent: Z, back: int | float
    ) -> tuple[Z, Float[Tensor, "batch samples"]]:
        """Partly undoes each latent and builds it up again: a Metropolis-Hastings proposal.

        Returns the proposals `z'` and `(batch, samples)` `log Q(z|z') - log Q(z'|z)` in nats. See
        `gfnem.refinement`, also for `back`.
        """
        return refinement.back_and_forth(self, context, x, space, latent, back)

    def score(
        self,
        context: Context,
        space: LatentSpace[X, Z, State],
        trajectories: Trajectories[Z, State],
        flows: bool = False,
        forward_looking: bool = False,
        steps: int | None = None,
    ) -> Scores:
        """Scores stored trajectories in one network call, differentiably.

        Args:
            context: of the same `x`.
            space: the space the trajectories live in.
            trajectories: as drawn by `sample` or `retrace`.
            flows: whether the objective needs `log_flow`.
            forward_looking: whether the objective adds the target's partial log joint to
                `log_flow`, which should then only tell what is still to come.
            steps: how many steps of each trajectory to score, drawn at random; all if None.
        """
        ends = None
        if steps is not None:
            trajectories = sampling.some_steps(trajectories, steps)
            assert trajectories.states is not None
            ends = torch.stack([space.is_final(state) for state in trajectories.states], 2)
        states, actions, mask = trajectories.states, trajectories.actions, trajectories.mask
        backward_actions = trajectories.backward_actions
        assert states is not None and actions is not None
        assert mask is not None and backward_actions is not None
        batch, samples, steps = actions.shape
        log_z = self.log_z(context) if self.offers("log_z") else None
        if steps == 0:
            nothing = actions.new_zeros(batch, samples, 0, dtype=torch.get_default_dtype())
            log_flow = nothing.new_zeros(batch, samples, 1) if flows else None
            return Scores(nothing, nothing, mask, log_z, log_flow)
        state = Batched.cat(states)
        output = self(context, state)

        def unfold(tensor: Tensor) -> Tensor:  # (batch, time * samples, ...) -> time third
            return tensor.unflatten(1, (steps + 1, samples)).transpose(1, 2)

        allowed = unfold(space.forward_mask(state))[:, :, :-1]
        log_pf = sampling.log_probability(unfold(output.forward)[:, :, :-1], allowed)
        log_pf = log_pf.gather(3, actions.unsqueeze(3)).squeeze(3)
        allowed = unfold(space.backward_mask(state))[:, :, 1:]
        backward = output.backward
        backward = allowed.to(log_pf) * 0 if backward is None else unfold(backward)[:, :, 1:]
        log_pb = sampling.log_probability(backward, allowed)
        log_pb = log_pb.gather(3, backward_actions.unsqueeze(3)).squeeze(3)
        return Scores(
            log_pf.masked_fill(~mask, 0.0),
            log_pb.masked_fill(~mask, 0.0),
            mask,
            log_z,
            unfold(output.log_flow) if flows and output.log_flow is not None else None,
            ends=ends,
        )

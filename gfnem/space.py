"""Latent spaces: how a structure is built step by step, and undone again."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, Generic

from jaxtyping import Bool, Float, Int
from torch import Tensor

from gfnem.batched import Batched, State, X, Z
from gfnem.component import Component
from gfnem.mcmc import LocalMoves
from gfnem.offers import Offering, optional


class LatentSpace(Component, Offering, ABC, Generic[X, Z, State]):
    """The dynamics of building a latent structure; it knows nothing of rewards or networks.

    A *state* is a `Batched` dataclass of tensors that all lead with `(batch, samples)`; a latent is
    one too, or a single tensor. Actions are int64 indices of shape `(batch, samples)`. A forward
    action leads from a state to a child, a backward action from a state to a parent; final states
    are complete structures. What `step` and `unstep` make of a row without a permitted action is
    ignored, but they must not raise for it.
    """

    #: whether every structure is reached by exactly one trajectory (then `log_pb` is 0)
    unique_trajectory: bool = False

    @abstractmethod
    def initial_state(self, x: X, samples: int) -> State:
        """The state every trajectory starts from, `samples` copies for each `x`."""

    @abstractmethod
    def final_state(self, x: X, z: Z) -> State:
        """The final state of the given latents (the inverse of `to_latent`)."""

    @abstractmethod
    def to_latent(self, x: X, state: State) -> Z:
        """The latents `z`, leading axes `(batch, samples)`, of final states."""

    @abstractmethod
    def is_final(self, state: State) -> Bool[Tensor, "batch samples"]:
        """`(batch, samples)` bool: which rows are complete."""

    @abstractmethod
    def is_initial(self, state: State) -> Bool[Tensor, "batch samples"]:
        """`(batch, samples)` bool: which rows have nothing to undo."""

    @abstractmethod
    def forward_mask(self, state: State) -> Bool[Tensor, "batch samples actions"]:
        """`(batch, samples, actions)` bool: permitted actions; none in a final row."""

    @abstractmethod
    def backward_mask(self, state: State) -> Bool[Tensor, "batch samples undoings"]:
        """`(batch, samples, backward actions)` bool: permitted undoings; none in an initial row."""

    @abstractmethod
    def step(self, state: State, action: Int[Tensor, "batch samples"]) -> State:
        """The child reached by a permitted `action`; a new state, the old one is not changed."""

    @abstractmethod
    def unstep(self, state: State, action: Int[Tensor, "batch samples"]) -> State:
        """The parent reached by a permitted backward `action`; a new state."""

    @abstractmethod
    def backward_action(
        self, state: State, action: Int[Tensor, "batch samples"]
    ) -> Int[Tensor, "batch samples"]:
        """The backward action that, in the child, undoes forward `action` taken in `state`."""

    @abstractmethod
    def forward_action(
        self, state: State, action: Int[Tensor, "batch samples"]
    ) -> Int[Tensor, "batch samples"]:
        """The forward action that, in the parent, redoes backward `action` taken in `state`."""

    @optional
    def states(self, x: X, z: Z) -> list[State]:
        """The `steps + 1` states on the only way to each latent (shorter ways stay at their end).

        Needed where `unique_trajectory` holds and a policy samples without visiting states.
        """
        ...

    @optional
    def free(self, x: X) -> X:
        """One observation that says nothing: from its initial state `x` is built as well.

        Optional: where structures repeat what they were built for.
        """
        ...

    def released(self, z: Z) -> Z:
        """Structures drawn for observations, as structures of the one that says nothing.

        The same, unless structures keep what was observed and would not have built it.
        """
        return z

    @optional
    def moves(self) -> LocalMoves[X, Z]:
        """Small random changes of complete structures. Optional."""
        ...


@dataclass
class Trajectories(Batched, Generic[Z, State]):
    """A batch of complete trajectories.

    Attributes:
        latent: the structures built, leading axes `(batch, samples)`.
        states: the `steps + 1` states visited, or None where the policy scores latents directly.
        actions: `(batch, samples, steps)` forward actions.
        backward_actions: `(batch, samples, steps)`; entry `t` undoes action `t`.
        mask: `(batch, samples, steps)` bool; False past a trajectory's end.
        log_behaviour: `(batch, samples)` log probability, in nats, of the trajectory under the
            distribution it was really drawn from (tempered, mixed with uniform); None if unknown.
        choices: what a policy that goes its own ways chose on them and the latent does not tell (a
            tree under a sentence), leading axes `(batch, samples)`; else None.
    """

    latent: Z
    states: list[State] | None = None
    actions: Int[Tensor, "batch samples steps"] | None = None
    backward_actions: Int[Tensor, "batch samples steps"] | None = None
    mask: Bool[Tensor, "batch samples steps"] | None = None
    log_behaviour: Float[Tensor, "batch samples"] | None = None
    choices: Any = None

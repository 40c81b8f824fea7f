"""Walks that may come back to where they have been, made acyclic by a clock."""

from __future__ import annotations

import math
from abc import abstractmethod
from dataclasses import dataclass
from typing import Any, Generic

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from gfnem.batched import Batched, State, X, Z
from gfnem.ranges import Count, Fact, Finite
from gfnem.space import LatentSpace
from gfnem.toys.cells import Cells
from gfnem.toys.reward import ToyReward


class Walk(LatentSpace[X, Z, State]):
    """A space whose states are visited again: it is no space by itself, but with a clock.

    Any state may be the last one. Masks say what can be done and undone without regard to how a
    state was reached.
    """

    @abstractmethod
    def reachable(self, state: State, steps: Tensor) -> Tensor:
        """`(batch, samples)` bool: whether the initial state leads there in exactly `steps` steps.

        Args:
            state: leading axes `(batch, samples)`.
            steps: `(batch, samples)` int64; negative numbers lead nowhere.
        """

    def is_final(self, state: State) -> Tensor:
        """Never: the clock says when."""
        return torch.zeros_like(self.forward_mask(state)[..., 0])

    def is_initial(self, state: State) -> Tensor:
        """Whether no step at all leads there."""
        return self.reachable(state, torch.zeros_like(self.is_final(state), dtype=torch.long))


@dataclass
class Stamped(Batched, Generic[State]):
    """A state and when it is visited.

    Attributes:
        state: leading axes `(batch, samples)`.
        time: `(batch, samples)` int64 steps taken.
    """

    state: State
    time: Tensor


class TimeStamped(LatentSpace[X, Z, Stamped[State]]):
    """A walk of exactly so many steps, the number of steps taken being a part of its state.

    That makes any space with cycles a directed acyclic graph. Undoings that no walk of the right
    length has behind it are masked out.

    Args:
        space: the walk.
        steps: its length.
    """

    def __init__(self, space: Walk, steps: Count = 10):
        self.space, self.steps = space, steps

    def initial_state(self, x: X, samples: int) -> Stamped[State]:
        """The walk's, at time 0."""
        state = self.space.initial_state(x, samples)
        return Stamped(state, torch.zeros_like(self.space.is_final(state), dtype=torch.long))

    def final_state(self, x: X, z: Z) -> Stamped[State]:
        """The walk's, at the end of time."""
        state = self.space.final_state(x, z)
        time = torch.full_like(self.space.is_final(state), self.steps, dtype=torch.long)
        return Stamped(state, time)

    def to_latent(self, x: X, state: Stamped[State]) -> Z:
        """As the walk has it."""
        return self.space.to_latent(x, state.state)

    def is_final(self, state: Stamped[State]) -> Tensor:
        """Whether the time is up."""
        return state.time >= self.steps

    def is_initial(self, state: Stamped[State]) -> Tensor:
        """Whether no time has passed."""
        return state.time <= 0

    def forward_mask(self, state: Stamped[State]) -> Tensor:
        """The walk's until the time is up."""
        return self.space.forward_mask(state.state) & ~self.is_final(state)[..., None]

    def backward_mask(self, state: Stamped[State]) -> Tensor:
        """The walk's, where it leads to a state that can be reached in one step less."""
        allowed = self.space.backward_mask(state.state)
        parents = [
            self.space.unstep(state.state, torch.full_like(state.time, undoing))
            for undoing in range(allowed.shape[2])
        ]
        time = (state.time - 1).repeat(1, len(parents))
        there = self.space.reachable(Batched.cat(parents), time)
        return allowed & there.unflatten(1, (len(parents), -1)).transpose(1, 2)

    def step(self, state: Stamped[State], action: Tensor) -> Stamped[State]:
        """A step of the walk, and of the clock."""
        return Stamped(self.space.step(state.state, action), state.time + 1)

    def unstep(self, state: Stamped[State], action: Tensor) -> Stamped[State]:
        """Both back."""
        return Stamped(self.space.unstep(state.state, action), state.time - 1)

    def backward_action(self, state: Stamped[State], action: Tensor) -> Tensor:
        """The walk's."""
        return self.space.backward_action(state.state, action)

    def forward_action(self, state: Stamped[State], action: Tensor) -> Tensor:
        """The walk's."""
        return self.space.forward_action(state.state, action)

    def features(self, state: Stamped[State]) -> Tensor:
        """`(batch, samples, parts + 1)` int64: which time it is, and the walk's."""
        parts = self.space.features(state.state) + self.steps + 1  # pyright: ignore
        return torch.cat([state.time[..., None], parts], 2)


@dataclass
class Position(Batched):
    """Where a walk on a torus is.

    Attributes:
        cell: `(batch, samples, dimensions)` int64 coordinates from 0.
    """

    cell: Tensor


class TorusWalk(Cells, Walk[Tensor, Tensor, Position]):
    """A walk on a grid whose edges are joined: `z` is the cell `(dimensions,)` where it ends.

    Action 0 stays; actions `2 d + 1` and `2 d + 2` go forth and back along axis `d`. The backward
    action of the same number undoes it.

    Args:
        side: cells along each axis, at least 3, so that forth and back differ.
        dimensions: axes.
    """

    def __init__(self, side: Fact = None, dimensions: Fact = None):
        if side < 3:
            raise ValueError(f"side {side}: forth and back are the same on a torus of less than 3")
        self.side, self.dimensions = side, dimensions

    def initial_state(self, x: Tensor, samples: int) -> Position:
        """The origin."""
        shape = len(x), samples, self.dimensions
        return Position(torch.zeros(shape, dtype=torch.long, device=x.device))

    def final_state(self, x: Tensor, z: Tensor) -> Position:
        """There."""
        return Position(z)

    def reachable(self, state: Position, steps: Tensor) -> Tensor:
        """Whether the way is not too long: a walk may stay."""
        distance = torch.minimum(state.cell, self.side - state.cell).sum(2)
        return distance <= steps

    def forward_mask(self, state: Position) -> Tensor:
        """`(batch, samples, 2 dimensions + 1)`: everything."""
        shape = *state.cell.shape[:2], 2 * self.dimensions + 1
        return torch.ones(shape, dtype=torch.bool, device=state.cell.device)

    def backward_mask(self, state: Position) -> Tensor:
        """Everything."""
        return self.forward_mask(state)

    def _moved(self, state: Position, action: Tensor, by: int) -> Position:
        moves = one_hot(action, 2 * self.dimensions + 1)[..., 1:].unflatten(2, (-1, 2))
        return Position((state.cell + by * (moves[..., 0] - moves[..., 1])) % self.side)

    def step(self, state: Position, action: Tensor) -> Position:
        """Goes along an axis, or stays."""
        return self._moved(state, action, 1)

    def unstep(self, state: Position, action: Tensor) -> Position:
        """Goes back."""
        return self._moved(state, action, -1)


class TorusReward(ToyReward):
    """`log R = sharpness * sum_d cos(2 pi waves z_d / side)`: `waves ** dimensions` hills.

    Args:
        side: cells along each axis.
        dimensions: axes.
        sharpness: nats between the mean and the top along an axis.
        waves: hills along each axis.
    """

    def __init__(
        self,
        side: Count = 8,
        dimensions: Count = 2,
        sharpness: Finite = 1.0,
        waves: Count = 2,
    ):
        super().__init__()
        self.side, self.dimensions = side, dimensions
        self.sharpness, self.waves = sharpness, waves

    def facts(self) -> dict[str, Any]:
        """The size."""
        return {"side": self.side, "dimensions": self.dimensions}

    def log_reward(self, z: Tensor) -> Tensor:
        """`(...)` nats of cells `(..., dimensions)`."""
        angle = 2 * math.pi * self.waves / self.side * z
        return self.sharpness * angle.cos().sum(-1)

    def every(self, device: torch.device | str = "cpu") -> Tensor:
        """`(side ** dimensions, dimensions)` all cells, the first coordinate slowest."""
        axis = torch.arange(self.side, device=device)
        return torch.cartesian_prod(*[axis] * self.dimensions).reshape(-1, self.dimensions)

"""Everything that can be built: all trajectories of small instances, all states of larger ones."""

from __future__ import annotations

import math
from collections.abc import Hashable
from dataclasses import dataclass
from functools import partial
from typing import Any, Generic

import torch
from jaxtyping import Bool
from torch import Tensor

from gfnem.batched import Batched, State, X, Z, each, pick, tensors_of
from gfnem.space import LatentSpace, Trajectories
from gfnem.state_graph import StateGraph, fingerprints, state_keys

#: children that are made at a time
_CHUNK = 2**16


@dataclass
class Enumeration(Batched, Generic[Z, State]):
    """Every trajectory of every `x` of a batch.

    Attributes:
        trajectories: with `(batch, most)` columns, `most` the largest number of trajectories.
        valid: `(batch, most)` bool; the other columns of a row repeat its first trajectory.
    """

    trajectories: Trajectories[Z, State]
    valid: Bool[Tensor, "batch most"]


def enumerate_trajectories(
    space: LatentSpace[X, Z, State], x: X, limit: int = 100_000
) -> Enumeration[Z, State]:
    """Lists all trajectories from the initial states by exhaustive search.

    Args:
        space: the latent space.
        x: a batch of observations.
        limit: the largest number of trajectories of one `x`.

    Raises:
        ValueError: if there are more than `limit`.
    """
    states = [space.initial_state(x, 1)]
    final = space.is_final(states[0])
    valid = torch.ones_like(final)
    actions, undos, masks = [], [], []
    while not (final := space.is_final(states[-1])).all():
        allowed = space.forward_mask(states[-1])
        stuck = ~allowed.any(-1) & ~final
        assert not stuck.any(), "an incomplete state permits no action"
        allowed = allowed.clone()
        allowed[..., 0] |= final  # a finished trajectory is carried along by an action not taken
        branches = [(row & keep[:, None]).nonzero() for row, keep in zip(allowed, valid)]  # noqa: B905
        most = max(len(branch) for branch in branches)
        if most > limit:
            raise ValueError(f"more than {limit} trajectories")
        valid = torch.stack(
            [torch.arange(most, device=final.device) < len(branch) for branch in branches]
        )
        column, action = torch.stack(
            [torch.cat([b, b[:1].expand(most - len(b), 2)]) for b in branches]
        ).unbind(-1)

        states, actions, undos, masks, final = each(
            partial(pick, index=column), [states, actions, undos, masks, final]
        )
        actions.append(action)
        undos.append(space.backward_action(states[-1], action))
        masks.append(~final)
        states.append(states[-1].where(final, space.step(states[-1], action)))

    def stack(tensors: list[Tensor], dtype: torch.dtype) -> Tensor:
        return torch.stack(tensors, 2) if tensors else final.new_zeros(*final.shape, 0, dtype=dtype)

    return Enumeration(
        Trajectories(
            space.to_latent(x, states[-1]),
            states,
            stack(actions, torch.long),
            stack(undos, torch.long),
            stack(masks, torch.bool),
        ),
        valid,
    )


def enumerate_states(
    space: LatentSpace[X, Z, State], x: X, limit: int = 4_000_000
) -> StateGraph[State]:
    """Lists all states and the steps between them, level by level.

    Each state is listed once, however many trajectories lead to it: there are far fewer states than
    trajectories. Two states are the same if all their tensors are equal.

    Args:
        space: the latent space.
        x: one observation, of leading axis `(1,)`.
        limit: the largest number of states.

    Raises:
        ValueError: if there are more states than `limit`, more than one observation, or a state
            that can be reached from itself.
    """
    if len(x) != 1:
        raise ValueError(f"the states of one observation are listed at a time, not of {len(x)}")
    new = space.initial_state(x, 1)
    found, known = [new], fingerprints(state_keys(new)[0])  # known: in order of states
    parents, children, actions, undos = [], [], [], []
    start, count = 0, 1  # `new` are the states from number `start` on
    while start < count:
        pairs = (space.forward_mask(new) & ~space.is_final(new).unsqueeze(2))[0].nonzero()
        start, before, fresh = count, start, []
        for row, action in (part.unbind(1) for part in pairs.split(_CHUNK)):
            state = new.take(row[None])
            after = space.step(state, action[None])
            undos.append(space.backward_action(state, action[None])[0])
            prints = fingerprints(state_keys(after)[0])
            index, unseen = _placed(prints, known)
            known = torch.cat([known, prints[unseen]])
            fresh.append(after.take(unseen[None]))
            count += len(unseen)
            if count > limit:
                raise ValueError(f"more than {limit:,} states")
            parents.append(row + before)
            children.append(index)
            actions.append(action)
        if start < count:
            new = Batched.cat(fresh)
            found.append(new)

    def joined(parts: list[Tensor]) -> Tensor:
        return torch.cat(parts) if parts else torch.zeros(0, dtype=torch.long, device=known.device)

    return StateGraph(
        space, x, Batched.cat(found), joined(parents), joined(children), joined(actions),
        joined(undos),
    )  # fmt: skip


def _placed(prints: Tensor, known: Tensor) -> tuple[Tensor, Tensor]:
    """The number of each of `(n,)` fingerprints, and which entries are the first of new ones."""
    every = torch.cat([known, prints])
    _, group = every.unique(return_inverse=True)
    place = torch.arange(len(every), device=every.device)
    first = torch.full_like(place, len(every)).scatter_reduce(0, group, place, "amin")[group]
    unseen = (first == place)[len(known) :]
    number = torch.where(unseen, unseen.cumsum(0) - 1 + len(known), 0)
    number = torch.cat([place[: len(known)], number])
    return number[first[len(known) :]], unseen.nonzero()[:, 0]


def keys_of(structure: Any, shape: torch.Size) -> list[list[Hashable]]:
    """A hashable `[row][sample]` of what a state or latent of leading axes `shape` holds."""
    tensors = tensors_of(structure)
    flat = [t.reshape(*shape, math.prod(t.shape[2:])).tolist() for t in tensors]
    return [
        [tuple(tuple(f[row][sample]) for f in flat) for sample in range(shape[1])]
        for row in range(shape[0])
    ]

"""Everything that can be built: all trajectories of small instances, by exhaustive search."""

from __future__ import annotations

import math
from collections.abc import Hashable
from dataclasses import dataclass, fields, is_dataclass
from typing import Any

import torch
from torch import Tensor

from gfnem.space import LatentSpace, Trajectories, map_states, where


@dataclass
class Enumeration:
    """Every trajectory of every `x` of a batch.

    Attributes:
        trajectories: with `(batch, most)` columns, `most` the largest number of trajectories.
        valid: `(batch, most)` bool; the other columns of a row repeat its first trajectory.
    """

    trajectories: Trajectories
    valid: Tensor


def enumerate_trajectories(space: LatentSpace, x: Any, limit: int = 100_000) -> Enumeration:
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
    batch = torch.arange(len(final), device=final.device)[:, None]
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

        def pick(tensor: Tensor, column: Tensor = column) -> Tensor:
            return tensor[batch, column]

        states = [map_states(pick, state) for state in states]
        actions, undos, masks = ([pick(t) for t in ts] for ts in (actions, undos, masks))
        final = pick(final)
        actions.append(action)
        undos.append(space.backward_action(states[-1], action))
        masks.append(~final)
        states.append(where(final, states[-1], space.step(states[-1], action)))

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


def tensors_of(structure: Any) -> list[Tensor]:
    """The tensors, of any shape, of a tensor or of a dataclass (nested ones included)."""
    if isinstance(structure, Tensor):
        return [structure]
    if is_dataclass(structure):
        return [
            tensor for f in fields(structure) for tensor in tensors_of(getattr(structure, f.name))
        ]
    return []


def keys_of(structure: Any, shape: torch.Size) -> list[list[Hashable]]:
    """A hashable `[row][sample]` of what a state or latent of leading axes `shape` holds."""
    # what does not lead with (batch, samples), such as sentence lengths, is not the sample's own
    own = [t for t in tensors_of(structure) if t.shape[:2] == shape]
    flat = [t.reshape(*shape, math.prod(t.shape[2:])).tolist() for t in own]
    return [
        [tuple(tuple(f[row][sample]) for f in flat) for sample in range(shape[1])]
        for row in range(shape[0])
    ]

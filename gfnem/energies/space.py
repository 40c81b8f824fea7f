"""Assigning values to variables, one block after the other."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from gfnem.batched import Batched
from gfnem.mcmc import LocalMoves
from gfnem.ranges import Amount, Count, Fact
from gfnem.space import LatentSpace

#: most values that a block of variables may take together
LARGEST_BLOCK = 4096


@dataclass
class Assignment(Batched):
    """Which values are assigned so far.

    Attributes:
        value: `(batch, samples, variables)` int64, -1 where a variable is open.
        given: `(batch, samples, variables)` bool: observed, and so never open.
    """

    value: Tensor
    given: Tensor


class AssignmentSpace(LatentSpace[Tensor, Tensor, Assignment]):
    """Complete assignments of values to variables that agree with what is observed.

    An observation is a row `(visible,)` of int64 values with -1 for what is not known; variables
    beyond its end are latent. A structure is the whole assignment `(variables,)`, so a row of -1
    leaves everything to be built and a complete row without latents nothing.

    Forward action `block * options + code` writes all open variables of a block, where `code` is
    the block's values read as digits, the first variable the most significant. Backward action
    `block` opens a block again.

    Args:
        variables: how many variables there are, latent ones included.
        values: how many values each can take.
        block: variables that are written by one action; 1 if None and the data say nothing.
        order: "any" lets every open block be the next one, so that each assignment is reached in
            as many ways as its blocks can be ordered; "fixed" writes the first open block. "any" if
            None and the data say nothing.
        summed: so many variables, the first ones, are never written: where they are not observed
            they stay open, and the energy sums them out. None if None and the model says nothing.
        counts: how many of the values each variable can take, the first ones; all if None.

    Raises:
        ValueError: if the blocks do not fit the variables or have too many values together.
    """

    def __init__(
        self,
        variables: Fact = None,
        values: Fact = None,
        block: Count | None = None,
        order: str | None = None,
        summed: Amount | None = None,
        counts: list[Count] | None = None,
    ):
        block, summed = block or 1, summed or 0
        order = "any" if order is None else order
        if order not in ("any", "fixed"):
            raise ValueError(f"order is any or fixed, not {order!r}")
        if variables % block or summed % block:
            parts = f"{summed} and {variables - summed}" if summed else str(variables)
            raise ValueError(f"{parts} variables do not make blocks of {block} (dataset.block)")
        if values**block > LARGEST_BLOCK:
            raise ValueError(
                f"a block of {block} variables with {values} values takes {values**block} "
                f"values together; {LARGEST_BLOCK} is the most"
            )
        self.variables, self.values, self.block, self.order = variables, values, block, order
        self.blocks, self.options = variables // block, values**block
        self.summed, self.first, self.counts = summed, summed // block, counts
        self.unique_trajectory = order == "fixed"

    # ---------------------------------------------------------------- blocks

    def grouped(self, tensor: Tensor) -> Tensor:
        """`(..., variables)` as `(..., blocks, block)`."""
        return tensor.unflatten(-1, (self.blocks, self.block))

    def open(self, value: Tensor) -> Tensor:
        """`(..., blocks)` bool: which blocks of `(..., variables)` are still to be written."""
        open = (self.grouped(value) < 0).any(-1)
        if self.first:
            open[..., : self.first] = False
        return open

    def digits(self, device: torch.device) -> Tensor:
        """`(options, block)` the values that each code stands for."""
        return digits(self.values, self.block, device)

    def code(self, value: Tensor) -> Tensor:
        """`(..., blocks)` the codes of values `(..., variables)`; open ones count as 0."""
        if self.block == 1:
            return value.clamp(min=0)
        weight = self.values ** torch.arange(self.block - 1, -1, -1, device=value.device)
        return (self.grouped(value.clamp(min=0)) * weight).sum(-1)

    def possible(self, device: torch.device) -> Tensor:
        """`(blocks, options)` bool: codes of values that the variables can take."""
        most = limits(self.values, self.variables, self.counts, device)
        return (self.digits(device) < self.grouped(most)[:, None]).all(-1)

    def agrees(self, value: Tensor) -> Tensor:
        """`(..., blocks, options)` bool: possible codes that contradict nothing known."""
        known = self.grouped(value).unsqueeze(-2)
        agrees = ((known < 0) | (known == self.digits(value.device))).all(-1)
        return agrees if self.counts is None else agrees & self.possible(value.device)

    def written(self, state: Assignment) -> Tensor:
        """`(batch, samples, blocks)` bool: blocks written since the start."""
        built = (self.grouped(state.value) >= 0).all(-1)
        return self.grouped(~state.given).any(-1) & built

    # ---------------------------------------------------------------- states

    def known(self, x: Tensor) -> Tensor:
        """`(batch, variables)` what rows `(batch, visible)` say; -1 for the rest."""
        return torch.nn.functional.pad(x, (0, self.variables - x.shape[1]), value=-1)

    def initial_state(self, x: Tensor, samples: int) -> Assignment:
        """What is observed."""
        value = self.known(x)[:, None].expand(-1, samples, -1)
        return Assignment(value, value >= 0)

    def final_state(self, x: Tensor, z: Tensor) -> Assignment:
        """Everything assigned that is to be."""
        return Assignment(z, (self.known(x) >= 0)[:, None].expand(z.shape))

    def to_latent(self, x: Tensor, state: Assignment) -> Tensor:
        """`(batch, samples, variables)` int64."""
        return state.value

    def is_final(self, state: Assignment) -> Tensor:
        """Whether nothing is open."""
        return ~self.open(state.value).any(-1)

    def is_initial(self, state: Assignment) -> Tensor:
        """Whether nothing but the observation is assigned."""
        return ((state.value < 0) | state.given).all(-1)

    def forward_mask(self, state: Assignment) -> Tensor:
        """`(batch, samples, blocks * options)`: values of open blocks, of the first if fixed."""
        open = self.open(state.value)
        if self.unique_trajectory:
            open = open & (open.cumsum(-1) == 1)
        return (open.unsqueeze(-1) & self.agrees(state.value)).flatten(-2)

    def backward_mask(self, state: Assignment) -> Tensor:
        """`(batch, samples, blocks)`: what was written, the last of it if fixed."""
        written = self.written(state)
        if self.unique_trajectory:
            after = written.flip(-1).cumsum(-1).flip(-1)
            written = written & (after == 1)
        return written

    def step(self, state: Assignment, action: Tensor) -> Assignment:
        """Writes the open variables of a block."""
        code = self.digits(action.device)[action % self.options].unsqueeze(-2)
        place = (action // self.options)[..., None, None].expand_as(code)
        value = self.grouped(state.value)
        before = value.gather(-2, place)
        value = value.scatter(-2, place, torch.where(before < 0, code, before))
        return Assignment(value.flatten(-2), state.given)

    def unstep(self, state: Assignment, action: Tensor) -> Assignment:
        """Opens a block again, but for what is observed of it."""
        value, given = self.grouped(state.value), self.grouped(state.given)
        place = action[..., None, None].expand(*action.shape, 1, self.block)
        kept = torch.where(given.gather(-2, place), value.gather(-2, place), -1)
        return Assignment(value.scatter(-2, place, kept).flatten(-2), state.given)

    def backward_action(self, state: Assignment, action: Tensor) -> Tensor:
        """The block."""
        return action // self.options

    def forward_action(self, state: Assignment, action: Tensor) -> Tensor:
        """The block with the values it has now."""
        code = self.code(state.value).gather(-1, action.unsqueeze(-1)).squeeze(-1)
        return action * self.options + code

    # ---------------------------------------------------------------- without observations

    def free(self, x: Tensor) -> Tensor:
        """One row of which nothing is known."""
        return torch.full_like(x[:1], -1)

    def released(self, z: Tensor) -> Tensor:
        """What would not have been built is open again."""
        return torch.cat([torch.full_like(z[..., : self.summed], -1), z[..., self.summed :]], -1)

    def moves(self) -> LocalMoves:
        """A new value for a variable drawn at random."""
        return Changes(self)


class Changes(LocalMoves[Tensor, Tensor]):
    """Gives a variable that is not observed, drawn uniformly, another value, drawn uniformly."""

    def __init__(self, space: AssignmentSpace):
        self.space = space

    def initial(self, x: Tensor, samples: int) -> Tensor:
        """Uniform values where nothing is observed, `(batch, samples, variables)`."""
        state = self.space.initial_state(x, samples)
        random = random_values(state.value, self.space.values, self.space.counts)
        return torch.where(to_write(x, self.space)[:, None], random, state.value)

    def propose(self, x: Tensor, z: Tensor) -> tuple[Tensor, Tensor]:
        """A symmetric proposal."""
        place, possible = drawn_place(self.space, x, z)
        most = limits(self.space.values, self.space.variables, self.space.counts, z.device)[place]
        step = 1 + (torch.rand(place.shape, device=z.device) * (most - 1)).long()
        value = (z.gather(2, place) + step) % most
        possible = possible & (most > 1)
        new = torch.where(possible, z.scatter(2, place, value), z)
        return new, torch.zeros_like(z[:, :, 0], dtype=torch.float).masked_fill(
            ~possible[..., 0], -torch.inf
        )


def drawn_place(space: AssignmentSpace, x: Tensor, z: Tensor) -> tuple[Tensor, Tensor]:
    """`(batch, samples, 1)` a variable drawn from those not observed, and bool whether any is."""
    free = to_write(x, space)[:, None].expand(z.shape)
    chance = torch.rand(z.shape, device=z.device).masked_fill(~free, -1.0)
    return chance.argmax(2, keepdim=True), free.any(2, keepdim=True)


def to_write(x: Tensor, of: Any) -> Tensor:
    """`(batch, variables)` bool: what rows `(batch, visible)` leave to be written.

    Args:
        x: the rows, -1 for what is not observed.
        of: a space or an energy, with `variables` and `summed`.
    """
    open = torch.nn.functional.pad(x, (0, of.variables - x.shape[1]), value=-1) < 0
    open[:, : of.summed] = False
    return open


def limits(
    values: int, variables: int, counts: Sequence[int] | None, device: torch.device
) -> Tensor:
    """`(variables,)` int64: how many values each variable can take; all if `counts` is None."""
    if counts is None:
        return torch.full((variables,), values, device=device)
    return torch.tensor(counts, device=device)


def random_values(like: Tensor, values: int, counts: Sequence[int] | None) -> Tensor:
    """Uniform values of variables, of the shape `(..., variables)` of another tensor."""
    most = limits(values, like.shape[-1], counts, like.device)
    return (torch.rand(like.shape, device=like.device) * most).long().clamp(max=most - 1)


@functools.lru_cache(maxsize=16)
def digits(values: int, length: int, device: torch.device) -> Tensor:
    """`(values ** length, length)` int64: every assignment of `length` variables, in order."""
    code = torch.arange(values**length, device=device)[:, None]
    return code // values ** torch.arange(length - 1, -1, -1, device=device) % values


def numbers_of(values: int) -> int:
    """How many numbers `as_numbers` makes of a variable with so many values."""
    return 1 if values == 2 else values


def as_numbers(value: Tensor, values: int) -> Tensor:
    """`(..., variables * numbers_of(values))` int64 of `(..., variables)`, as networks see them.

    Two values are -1 and 1; of more one of `values` is 1. All are 0 where a variable is open, -1.
    """
    if values == 2:
        return torch.where(value < 0, 0, 2 * value - 1)
    return one_hot(value + 1, values + 1)[..., 1:].flatten(-2)

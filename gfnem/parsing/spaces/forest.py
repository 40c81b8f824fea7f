"""Bottom-up forests: merge two neighbouring roots and label the result."""

from __future__ import annotations

import functools
from dataclasses import dataclass

import torch
from torch import Tensor

from gfnem.batched import Batched
from gfnem.parsing.spaces.moves import TreeMoves
from gfnem.parsing.text.sentences import Sentences
from gfnem.parsing.trees.trees import Trees
from gfnem.ranges import Fact
from gfnem.space import LatentSpace


@dataclass
class ForestState(Batched):
    """A forest over a sentence, kept by *gaps*.

    Gap `g` lies between words `g` and `g + 1`. Merging two neighbouring roots closes the one gap
    between them, and every internal node closes exactly one gap (its split point is `g + 1`), so
    nodes need no other name.

    Attributes:
        left, right: `(batch, samples, gaps)` int64, the span `[left, right)` in tokens of the node
            that closed the gap; 0 while it is open.
        label: `(batch, samples, gaps)` int64, its label; -1 while the gap is open.
        lengths: `(batch, samples)` int64 tokens of the sentence.
    """

    left: Tensor
    right: Tensor
    label: Tensor
    lengths: Tensor

    def gaps(self) -> Tensor:
        """`(gaps,)` int64: 0, 1, 2, ..."""
        return torch.arange(self.label.shape[2], device=self.label.device)

    def open(self) -> Tensor:
        """`(batch, samples, gaps)` bool: gaps between two roots of the forest."""
        return (self.label < 0) & (self.gaps() < (self.lengths - 1).unsqueeze(2))

    @functools.cached_property
    def neighbours(self) -> tuple[Tensor, Tensor]:
        """The two roots beside each gap, `(batch, samples, gaps)` int64.

        The left end of the root that ends at the gap, and the right end of the one that begins
        there. (Of the root that covers it, where the gap is closed.)
        """
        gaps = self.gaps()
        is_open = self.label < 0
        start = torch.where(is_open, gaps + 1, 0)  # a root begins behind every open gap
        # the last open gap before this one
        left = torch.nn.functional.pad(start, (1, 0))[..., :-1].cummax(2).values
        last = self.label.shape[2]
        end = torch.where(is_open, gaps + 1, last + 1)
        end = torch.minimum(end, self.lengths.unsqueeze(2))
        after = torch.nn.functional.pad(end, (0, 1), value=last + 1)[..., 1:]
        right = after.flip(2).cummin(2).values.flip(2)
        return left, torch.minimum(right, self.lengths.unsqueeze(2))

    @functools.cached_property
    def roots(self) -> Tensor:
        """`(batch, samples, gaps)` bool: gaps closed by a node that is a root of the forest."""
        left, right = self.neighbours
        return (self.label >= 0) & (self.left == left) & (self.right == right)


class ForestSpace(LatentSpace[Sentences, Trees, ForestState]):
    """Builds a tree from its words upwards (Hu et al. 2023, section 5.1).

    A forward action `gap * N + label` merges the two roots beside an open gap; a backward action
    `gap` takes a root apart again. A tree has as many trajectories as its nodes have orders in
    which children precede parents: the backward policy matters.

    Args:
        nonterminals: how many labels there are (`N`).
    """

    unique_trajectory = False

    def __init__(self, nonterminals: Fact = None):
        self.nonterminals = nonterminals

    def initial_state(self, x: Sentences, samples: int) -> ForestState:
        """Every word a root of its own."""
        shape = (len(x), samples, max(x.max_length - 1, 1))
        zeros = x.lengths.new_zeros(shape)
        return ForestState(zeros, zeros, zeros - 1, x.lengths[:, None].expand(-1, samples))

    def final_state(self, x: Sentences, z: Trees) -> ForestState:
        """Every gap closed by the node that splits there."""
        state = self.initial_state(x, z.samples)
        if z.left.shape[2] == 0:
            return state
        place = torch.arange(z.left.shape[2], device=z.split.device)
        order = torch.where(z.mask(), z.split - 1, place)
        left, right, label = (
            torch.zeros_like(part).scatter(2, order, part) for part in (z.left, z.right, z.label)
        )
        mask = z.mask()
        return ForestState(left * mask, right * mask, torch.where(mask, label, -1), state.lengths)

    def to_latent(self, x: Sentences, state: ForestState) -> Trees:
        """The nodes, put into preorder."""
        gaps = state.gaps()
        real = gaps < (state.lengths - 1).unsqueeze(2)
        big = state.label.shape[2] + 2
        key = torch.where(real, state.left * big + big - state.right, big * big)
        order = key.sort(dim=2, stable=True).indices
        parts = (state.left, state.right, gaps.expand_as(state.left) + 1, state.label)
        parts = ((part * real).gather(2, order) for part in parts)
        return Trees(*parts, state.lengths).resized(x.max_length - 1)

    def is_final(self, state: ForestState) -> Tensor:
        """One root left."""
        return ~state.open().any(2)

    def is_initial(self, state: ForestState) -> Tensor:
        """Nothing merged yet."""
        return (state.label < 0).all(2)

    def forward_mask(self, state: ForestState) -> Tensor:
        """Any open gap, any label."""
        return state.open().repeat_interleave(self.nonterminals, 2)

    def backward_mask(self, state: ForestState) -> Tensor:
        """Any root that is more than a word."""
        return state.roots

    def step(self, state: ForestState, action: Tensor) -> ForestState:
        """Merges the roots beside a gap."""
        left, right = state.neighbours
        hit = state.gaps() == (action // self.nonterminals).unsqueeze(2)
        return ForestState(
            torch.where(hit, left, state.left),
            torch.where(hit, right, state.right),
            torch.where(hit, (action % self.nonterminals).unsqueeze(2), state.label),
            state.lengths,
        )

    def unstep(self, state: ForestState, action: Tensor) -> ForestState:
        """Opens a gap again."""
        hit = state.gaps() == action.unsqueeze(2)
        return ForestState(
            state.left.masked_fill(hit, 0),
            state.right.masked_fill(hit, 0),
            state.label.masked_fill(hit, -1),
            state.lengths,
        )

    def moves(self) -> TreeMoves:
        """Rotations and relabelings."""
        return TreeMoves(self.nonterminals)

    def backward_action(self, state: ForestState, action: Tensor) -> Tensor:
        """The gap that was closed."""
        return action // self.nonterminals

    def forward_action(self, state: ForestState, action: Tensor) -> Tensor:
        """The gap and the label its node had."""
        label = state.label.gather(2, action.unsqueeze(2)).squeeze(2).clamp(min=0)
        return action * self.nonterminals + label

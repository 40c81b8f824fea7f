"""Unlabelled trees from left to right: shift the next word, or reduce the two topmost items."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from gfnem.batched import Batched
from gfnem.parsing.spaces.moves import TreeMoves
from gfnem.parsing.text.sentences import Sentences
from gfnem.parsing.trees.derivations import preorder
from gfnem.parsing.trees.trees import Trees
from gfnem.ranges import Count
from gfnem.space import LatentSpace

SHIFT, REDUCE = 0, 1


@dataclass
class ShiftReduceState(Batched):
    """A stack of trees over the words read so far.

    Attributes:
        left, right: `(batch, samples, n)` int64, the span of the node that is split at each place,
            both 0 where there is no such node (yet).
        read: `(batch, samples)` int64 words shifted.
        lengths: `(batch, samples)` int64 tokens of the sentence.
    """

    left: Tensor
    right: Tensor
    read: Tensor
    lengths: Tensor

    def starts(self) -> Tensor:
        """`(batch, samples, n)` bool: where an item of the stack begins."""
        places = torch.arange(self.left.shape[2], device=self.left.device)
        return (self.right == 0) & (places < self.read.unsqueeze(2))

    def focus(self) -> tuple[Tensor, Tensor]:
        """`(batch, samples)` where the topmost item begins, and the one below it; 0 for none."""
        places = torch.arange(self.left.shape[2], device=self.left.device)
        starts = places * self.starts()
        top = starts.amax(2)
        return top, torch.where(starts < top.unsqueeze(2), starts, 0).amax(2)

    def completed(self) -> Trees:
        """A complete tree on whose way this state lies: all the rest is reduced in the end."""
        places = torch.arange(self.left.shape[2], device=self.left.device)
        lengths = self.lengths.unsqueeze(2)
        missing = (self.right == 0) & (places > 0) & (places < lengths)
        last = (places * missing).cummax(2).values
        before = torch.nn.functional.pad(last, (1, -1))
        left = torch.where(missing, before, self.left)
        left, right, split = preorder(left, torch.where(missing, lengths, self.right))
        return Trees(left, right, split, torch.zeros_like(left), self.lengths)


class ShiftReduceSpace(LatentSpace[Sentences, Trees, ShiftReduceState]):
    """Builds an unlabelled binary tree as a shift-reduce parser does; every tree in one way.

    Action 0 pushes the next word onto a stack, action 1 joins the two topmost items. A sentence of
    `n` words takes `2 n - 1` actions.

    Args:
        nonterminals: labels of the model's trees, of which there can be but one.
    """

    unique_trajectory = True

    def __init__(self, nonterminals: Count | None = None):
        if nonterminals not in (None, 1):
            raise ValueError(f"it builds trees without labels, and the model has {nonterminals}")
        self.nonterminals = 1

    def initial_state(self, x: Sentences, samples: int) -> ShiftReduceState:
        """An empty stack."""
        left, right = x.lengths.new_zeros(2, len(x), samples, x.max_length)
        lengths = x.lengths[:, None].expand(-1, samples)
        return ShiftReduceState(left, right, torch.zeros_like(lengths), lengths)

    def final_state(self, x: Sentences, z: Trees) -> ShiftReduceState:
        """One item on the stack."""
        state = self.initial_state(x, z.samples)
        # entries past a tree's nodes are 0, and so is what they write: no node is split at 0
        state.left.scatter_(2, z.split, z.left)
        state.right.scatter_(2, z.split, z.right)
        return ShiftReduceState(state.left, state.right, state.lengths, state.lengths)

    def to_latent(self, x: Sentences, state: ShiftReduceState) -> Trees:
        """The nodes in preorder."""
        left, right, split = preorder(state.left, state.right)
        return Trees(left, right, split, torch.zeros_like(left), state.lengths)

    def is_final(self, state: ShiftReduceState) -> Tensor:
        """All words read and joined."""
        return (state.read == state.lengths) & (state.focus()[0] == 0)

    def is_initial(self, state: ShiftReduceState) -> Tensor:
        """No word read."""
        return state.read == 0

    def forward_mask(self, state: ShiftReduceState) -> Tensor:
        """SHIFT while there are words, REDUCE while there are two items."""
        return torch.stack([state.read < state.lengths, state.focus()[0] > 0], 2)

    def backward_mask(self, state: ShiftReduceState) -> Tensor:
        """One way back."""
        return ~self.is_initial(state).unsqueeze(2)

    def step(self, state: ShiftReduceState, action: Tensor) -> ShiftReduceState:
        """Shifts or reduces."""
        top, under = state.focus()
        places = torch.arange(state.left.shape[2], device=top.device)
        joined = (places == top.unsqueeze(2)) & (action == REDUCE).unsqueeze(2)
        return ShiftReduceState(
            torch.where(joined, under.unsqueeze(2), state.left),
            torch.where(joined, state.read.unsqueeze(2), state.right),
            state.read + (action == SHIFT),
            state.lengths,
        )

    def unstep(self, state: ShiftReduceState, action: Tensor) -> ShiftReduceState:
        """Takes the topmost item apart, or gives the word back."""
        top, _ = state.focus()
        whole = (state.left == top.unsqueeze(2)) & (state.right == state.read.unsqueeze(2))
        return ShiftReduceState(
            state.left.masked_fill(whole, 0),
            state.right.masked_fill(whole, 0),
            state.read - (state.read - top == 1).long(),
            state.lengths,
        )

    def backward_action(self, state: ShiftReduceState, action: Tensor) -> Tensor:
        """The only way back."""
        return torch.zeros_like(action)

    def forward_action(self, state: ShiftReduceState, action: Tensor) -> Tensor:
        """An item of one word was shifted, others reduced."""
        return (state.read - state.focus()[0] > 1).long()

    def moves(self) -> TreeMoves:
        """Rotations."""
        return TreeMoves(self.nonterminals)

"""Top-down trees: choose the root's label, then expand node after node."""

from __future__ import annotations

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
class TopDownState(Batched):
    """A partial tree; nodes `0 .. done - 2` (preorder) are expanded.

    Attributes:
        left, right, split, label: `(batch, samples, nodes)` int64 as in `Trees`; an open node has
            its span and label but split 0; nodes not yet known are all 0.
        done: `(batch, samples)` int64 steps taken.
        lengths: `(batch, samples)` int64 tokens of the sentence.
    """

    left: Tensor
    right: Tensor
    split: Tensor
    label: Tensor
    done: Tensor
    lengths: Tensor

    def open(self) -> Tensor:
        """`(batch, samples, nodes)` bool: nodes with span and label, not yet expanded."""
        return (self.right > 0) & (self.split == 0)

    def trees(self) -> Trees:
        """The nodes so far, where `Trees` has them."""
        return Trees(self.left, self.right, self.split, self.label, self.lengths)


class TopDownSpace(LatentSpace[Sentences, Trees, TopDownState]):
    """Builds a tree from its root, always expanding the first open node of the preorder.

    Every tree has exactly one trajectory, so there is nothing to learn backwards. The first action
    is the root's label `A` in `0..N-1`; each later one expands a node and reads
    `(split - 1) * N * N + B * N + C` with the labels of both children (0 for a one-word child). A
    sentence of `n` words takes `n` actions, one of one word none.

    Args:
        nonterminals: how many labels there are (`N`).
    """

    unique_trajectory = True
    recordable = True

    def __init__(self, nonterminals: Fact = None):
        self.nonterminals = nonterminals

    def initial_state(self, x: Sentences, samples: int) -> TopDownState:
        """Nothing but the sentence."""
        shape = (len(x), samples, max(x.max_length - 1, 1))
        zeros = [x.lengths.new_zeros(shape) for _ in range(4)]
        lengths = x.lengths[:, None].expand(-1, samples)
        return TopDownState(*zeros, lengths.new_zeros(lengths.shape), lengths)

    def final_state(self, x: Sentences, z: Trees) -> TopDownState:
        """All nodes expanded."""
        z = z.resized(max(x.max_length - 1, 1))
        done = torch.where(z.lengths > 1, z.lengths, 0)
        return TopDownState(z.left, z.right, z.split, z.label, done, z.lengths)

    def states(self, x: Sentences, z: Trees) -> list[TopDownState]:
        """The states on the only way to each tree; a shorter tree stays at its final state."""
        final = self.final_state(x, z)
        place = torch.arange(final.left.shape[2], device=final.left.device)
        # a node becomes known with its parent's expansion: one step for each node before it
        parent = torch.full_like(final.left, -1)
        for child in final.trees().child_index():
            parent = parent.scatter_reduce(
                2, child.clamp(min=0), torch.where(child > 0, place, -1), "amax"
            )
        states = []
        for step in range(x.max_length + 1 if x.max_length > 1 else 1):
            done = final.done.clamp(max=step)
            limit = (done - 1).unsqueeze(2)
            known, expanded = parent < limit, place < limit
            parts = [torch.where(known, part, 0) for part in (final.left, final.right, final.label)]
            left, right, label = parts
            split = torch.where(expanded, final.split, 0)
            states.append(TopDownState(left, right, split, label, done, final.lengths))
        return states

    def to_latent(self, x: Sentences, state: TopDownState) -> Trees:
        """The nodes as they are."""
        return state.trees().resized(x.max_length - 1)

    def is_final(self, state: TopDownState) -> Tensor:
        """All nodes expanded."""
        return (state.done == state.lengths) | (state.lengths == 1)

    def is_initial(self, state: TopDownState) -> Tensor:
        """Not even the root's label chosen."""
        return state.done == 0

    def focus(self, state: TopDownState) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """The node to expand next and its left end, right end and label, `(batch, samples)` each.

        Meaningless (but in range) in rows that have no open node.
        """
        node = (state.done - 1).clamp(0, state.left.shape[2] - 1)
        at = node.unsqueeze(2)
        return node, *(
            part.gather(2, at).squeeze(2) for part in (state.left, state.right, state.label)
        )

    def forward_mask(self, state: TopDownState) -> Tensor:
        """Labels first; then splits inside the node's span, label 0 for one-word children."""
        n = state.left.shape[2] + 1
        labels = self.nonterminals
        device = state.left.device
        _, left, right, _ = (part[..., None, None, None] for part in self.focus(state))
        split = torch.arange(1, n, device=device)[:, None, None]
        label = torch.arange(labels, device=device)
        inside = (split > left) & (split < right)
        fits = inside & ((split - left > 1) | (label[:, None] == 0))
        fits = fits & ((right - split > 1) | (label == 0))
        fits = fits.flatten(2)
        first = torch.arange(fits.shape[2], device=device) < labels
        mask = torch.where((state.done == 0).unsqueeze(2), first, fits)
        return mask & ~self.is_final(state).unsqueeze(2)

    def backward_mask(self, state: TopDownState) -> Tensor:
        """One way back."""
        return ~self.is_initial(state).unsqueeze(2)

    def step(self, state: TopDownState, action: Tensor) -> TopDownState:
        """Labels the root, or expands the first open node."""
        labels = self.nonterminals
        nodes = state.left.shape[2]
        node, left, right, _ = self.focus(state)
        at_root = state.done == 0
        split = action // labels**2 + 1
        first, second = action // labels % labels, action % labels
        index = torch.arange(nodes, device=node.device)

        def put(tensor: Tensor, where: Tensor, value: Tensor, when: Tensor) -> Tensor:
            hit = (index == where.unsqueeze(2)) & when.unsqueeze(2)
            return torch.where(hit, value.unsqueeze(2), tensor)

        zero = torch.zeros_like(node)
        lefts, rights, splits, names = state.left, state.right, state.split, state.label
        rights = put(rights, zero, state.lengths, at_root)
        names = put(names, zero, action, at_root)
        splits = put(splits, node, split, ~at_root)
        for child, begin, end, name in (
            (node + 1, left, split, first),
            (node + split - left, split, right, second),
        ):
            wide = ~at_root & (end - begin > 1)
            lefts = put(lefts, child, begin, wide)
            rights = put(rights, child, end, wide)
            names = put(names, child, name, wide)
        return TopDownState(lefts, rights, splits, names, state.done + 1, state.lengths)

    def unstep(self, state: TopDownState, action: Tensor) -> TopDownState:
        """Closes the node expanded last, or forgets the root's label."""
        nodes = state.left.shape[2]
        node = (state.done - 2).clamp(0, nodes - 1)
        at_root = state.done <= 1
        at = node.unsqueeze(2)
        left, split, right = (part.gather(2, at) for part in (state.left, state.split, state.right))
        index = torch.arange(nodes, device=node.device)
        children = (index == at + 1) & (split - left > 1)
        children |= (index == at + split - left) & (right - split > 1)
        forget = torch.where(at_root.unsqueeze(2), index == 0, children)
        return TopDownState(
            state.left.masked_fill(forget, 0),
            state.right.masked_fill(forget, 0),
            state.split.masked_fill((index == at) & ~at_root.unsqueeze(2), 0),
            state.label.masked_fill(forget, 0),
            state.done - 1,
            state.lengths,
        )

    def moves(self) -> TreeMoves:
        """Rotations and relabelings."""
        return TreeMoves(self.nonterminals)

    def backward_action(self, state: TopDownState, action: Tensor) -> Tensor:
        """The only way back."""
        return torch.zeros_like(action)

    def forward_action(self, state: TopDownState, action: Tensor) -> Tensor:
        """Reads the last expansion off the state."""
        labels = self.nonterminals
        last = state.left.shape[2] - 1
        node = (state.done - 2).clamp(0, last).unsqueeze(2)
        left, split = state.left.gather(2, node), state.split.gather(2, node)
        right = state.right.gather(2, node)

        def label(child: Tensor, wide: Tensor) -> Tensor:
            return torch.where(wide, state.label.gather(2, child.clamp(0, last)), 0)

        first = label(node + 1, split - left > 1)
        second = label(node + split - left, right - split > 1)
        expansion = ((split - 1) * labels + first) * labels + second
        return torch.where(state.done <= 1, state.label[..., 0], expansion.squeeze(2))

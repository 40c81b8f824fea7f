"""Growing trees from their roots, many open nodes of all trees at a time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from gfnem.batched import Batched
from gfnem.parsing.trees.trees import Trees

#: nodes are expanded together with the widest ones if so many times their words are more
_SHARE = 1.5


@dataclass
class Nodes(Batched):
    """Nodes of many trees, packed: every field is `(count,)` int64.

    Attributes:
        slot: where each stands in the flattened `(batch, samples, nodes)` of `Trees`.
        row: its sentence.
        left, right: its span in tokens.
        label: its nonterminal.
    """

    slot: Tensor
    row: Tensor
    left: Tensor
    right: Tensor
    label: Tensor

    def __getitem__(self, index: Tensor) -> Nodes:
        """Some of the nodes, by their numbers: one copy for all fields."""
        packed = torch.stack([self.slot, self.row, self.left, self.right, self.label])
        return Nodes(*packed.index_select(1, index))

    def part(self, at: slice) -> Nodes:
        """Neighbouring nodes, which are not copied."""
        return Nodes(self.slot[at], self.row[at], self.left[at], self.right[at], self.label[at])


def grow_trees(
    lengths: Tensor,
    max_length: int,
    roots: Tensor,
    choose: Callable[[Nodes], tuple[Tensor, Tensor, Tensor]],
) -> Trees:
    """Builds trees from their roots, open nodes of like width of all trees at a time.

    The widest go first, and narrow ones wait for those of their width. That takes no more turns
    than the longest sentence has words, and what is padded to the widest is padded little.

    Args:
        lengths: `(batch,)` int64 sentence lengths in tokens.
        max_length: the padded length; the trees get `max_length - 1` node places.
        roots: `(batch, samples)` int64 labels of the roots (unused for one-word sentences).
        choose: given packed nodes of three words or more, returns the split point and both child
            labels of each, three `(count,)` int64 (a one-word child's label is ignored).
    """
    batch, samples = roots.shape
    places = max_length - 1
    trees = torch.arange(batch * samples, device=roots.device)
    slot, row = trees * places, trees.div(samples, rounding_mode="floor")
    below = torch.stack([slot, row, torch.zeros_like(row), lengths[row], roots.flatten()])
    made, splits = [below], []
    waiting = below[:, :0]
    while True:
        width = below[3] - below[2]
        waiting = torch.cat([waiting, below.index_select(1, (width > 2).nonzero().squeeze(1))], 1)
        if not waiting.shape[1]:
            break
        width = waiting[3] - waiting[2]
        now = width * _SHARE > width.amax()
        nodes = Nodes(*waiting.index_select(1, now.nonzero().squeeze(1)))
        waiting = waiting.index_select(1, now.logical_not_().nonzero().squeeze(1))
        middle, first, second = choose(nodes)
        slot, row, left, right = nodes.slot, nodes.row, nodes.left, nodes.right
        splits.append(torch.stack([slot, middle]))
        # Preorder places the left child next and the right one behind the left one's subtree.
        below = torch.stack(
            [slot + 1, slot + middle - left, row, row, left, middle, middle, right, first, second]
        ).view(5, -1)  # all left ones, then all right ones
        made.append(below)
    found = roots.new_zeros(4, batch * samples * places)
    every = torch.cat(made, 1)  # words, too, which stand at no place of a tree
    inner = (every[3] - every[2] > 1).nonzero().squeeze(1)
    slot, _, left, right, label = every.index_select(1, inner)
    found[:, slot] = torch.stack([left, right, left + 1, label])  # as two words are split
    if splits:
        slot, split = torch.cat(splits, 1)
        found[2, slot] = split
    shape = (batch, samples, places)
    left, right, split, label = (part.view(shape) for part in found)
    return Trees(left, right, split, label, lengths[:, None].expand(batch, samples))

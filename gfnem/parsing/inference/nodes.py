"""Growing trees from their roots, all open nodes of all trees at a time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from gfnem.batched import Batched
from gfnem.parsing.trees.trees import Trees


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


def grow_trees(
    lengths: Tensor,
    max_length: int,
    roots: Tensor,
    choose: Callable[[Nodes], tuple[Tensor, Tensor, Tensor]],
) -> Trees:
    """Builds trees from their roots, all open nodes of all trees at a time, level by level.

    Args:
        lengths: `(batch,)` int64 sentence lengths in tokens.
        max_length: the padded length; the trees get `max_length - 1` node places.
        roots: `(batch, samples)` int64 labels of the roots (unused for one-word sentences).
        choose: given packed nodes, returns the split point and both child labels of each, three
            `(count,)` int64 (a one-word child's label is ignored).
    """
    batch, samples = roots.shape
    places = max_length - 1
    left, right, split, label = roots.new_zeros(4, batch * samples * places)
    trees = torch.arange(batch * samples, device=roots.device)
    trees = trees[lengths.repeat_interleave(samples) > 1]
    slot, row = trees * places, trees.div(samples, rounding_mode="floor")
    nodes = Nodes(slot, row, torch.zeros_like(row), lengths[row], roots.reshape(-1)[trees])
    while len(nodes.slot):
        middle, first, second = choose(nodes)
        left[nodes.slot], right[nodes.slot] = nodes.left, nodes.right
        split[nodes.slot], label[nodes.slot] = middle, nodes.label
        # Preorder places the left child next and the right one behind the left one's subtree.
        children = Nodes(
            torch.cat([nodes.slot + 1, nodes.slot + middle - nodes.left]),
            torch.cat([nodes.row, nodes.row]),
            torch.cat([nodes.left, middle]),
            torch.cat([middle, nodes.right]),
            torch.cat([first, second]),
        )
        nodes = children[(children.right - children.left > 1).nonzero().squeeze(1)]
    shape = (batch, samples, places)
    parts = (part.view(shape) for part in (left, right, split, label))
    return Trees(*parts, lengths[:, None].expand(batch, samples))

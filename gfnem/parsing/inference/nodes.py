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

    def __getitem__(self, index: Tensor) -> Nodes:
        """Some of the nodes, by their numbers: one copy for all fields."""
        packed = torch.stack([self.slot, self.row, self.left, self.right, self.label])
        return Nodes(*packed.index_select(1, index))


def grow_padded(
    lengths: Tensor,
    max_length: int,
    roots: Tensor,
    choose: Callable[[Nodes, int], tuple[Tensor, Tensor, Tensor]],
) -> Trees:
    """As `grow_trees`, place after place of all trees: sizes do not depend on what is chosen.

    In preorder a node stands behind its parent. At place `m` it has at most `max_length - m` words.

    Args:
        lengths, max_length, roots: as in `grow_trees`.
        choose: given the nodes at one place of all trees, and how many words they have at most,
            returns as in `grow_trees`. What is no node, or has two words, is asked for too: any
            answer will do, but its split, one word behind its left end.
    """
    batch, samples = roots.shape
    count, places = batch * samples, max_length - 1
    trees = torch.arange(count, device=roots.device)
    row = trees.div(samples, rounding_mode="floor")
    # left, right, split, label of each place; one more takes what is no node
    table = roots.new_zeros(4, (places + 1) * count)
    table[1, :count] = torch.where(lengths > 1, lengths, 0)[row]
    table[3, :count] = roots.flatten()
    for place in range(places):
        at = slice(place * count, (place + 1) * count)
        left, right, label = (table[part, at].clone() for part in (0, 1, 3))
        nodes = Nodes(trees * places + place, row, left, right, label)
        middle, first, second = choose(nodes, max_length - place)
        middle = torch.where(right > left, middle, 0)
        table[2, at] = middle
        begin, end = torch.stack([left, middle]), torch.stack([middle, right])
        below = torch.stack([torch.full_like(left, place + 1), place + middle - left])
        below = torch.where(end - begin > 1, below, places) * count + trees
        children = torch.stack([begin, end, torch.zeros_like(end), torch.stack([first, second])])
        table.index_copy_(1, below.flatten(), children.flatten(1))
    shape = (batch, samples, places)
    parts = table.view(4, places + 1, count)[:, :places].transpose(1, 2).contiguous()
    return Trees(*(part.view(shape) for part in parts), lengths[:, None].expand(batch, samples))


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
    trees = torch.arange(batch * samples, device=roots.device)
    trees = trees[lengths.repeat_interleave(samples) > 1]
    slot, row = trees * places, trees.div(samples, rounding_mode="floor")
    nodes = Nodes(slot, row, torch.zeros_like(row), lengths[row], roots.reshape(-1)[trees])
    grown = []
    while len(nodes.slot):
        middle, first, second = choose(nodes)
        slot, row, left, right = nodes.slot, nodes.row, nodes.left, nodes.right
        grown.append(torch.stack([slot, left, right, middle, nodes.label]))
        # Preorder places the left child next and the right one behind the left one's subtree.
        children = torch.stack(
            [slot + 1, slot + middle - left, row, row, left, middle, middle, right, first, second]
        )
        children = children.view(5, -1)  # all left ones, then all right ones
        inner = (children[3] - children[2] > 1).nonzero().squeeze(1)
        nodes = Nodes(*children.index_select(1, inner))
    found = roots.new_zeros(4, batch * samples * places)
    if grown:
        grown = torch.cat(grown, 1)
        found[:, grown[0]] = grown[1:]
    shape = (batch, samples, places)
    parts = (part.view(shape) for part in found)
    return Trees(*parts, lengths[:, None].expand(batch, samples))

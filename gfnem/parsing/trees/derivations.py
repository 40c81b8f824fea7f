"""Binary trees read as shift-reduce derivations."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from gfnem.parsing.trees.trees import Trees


@dataclass
class Derivations:
    """What stands on the stack, and when, as trees are built from left to right.

    SHIFT pushes the next word, REDUCE joins the two topmost items into one. Every word and every
    node of a tree is pushed once; these are its *items*: nodes first, in preorder, then words.
    What lies below an item depends only on its left end `i`: the left child of the one node that
    is split at `i`, or nothing where `i` is 0. Right after an item is pushed, a left child is
    followed by SHIFT, a right child by REDUCE, and the root by the end.

    Attributes:
        first, second: `(batch, samples, nodes)` int64, which items a node joins.
        below: `(batch, samples, n)` int64, the item below those that begin at each word; -1: none.
        depth: `(batch, samples, n)` int64, how many items lie below those that begin at each word.
        height: `(batch, samples, nodes)` int64, levels of nodes in a subtree, at least 1; 0 past a
            tree's nodes.
        begin, end: `(batch, samples, items)` int64, the span of each item.
        shifts: `(batch, samples, items)` bool: left children.
        item_mask: `(batch, samples, items)` bool: which entries are items.
    """

    first: Tensor
    second: Tensor
    below: Tensor
    depth: Tensor
    height: Tensor
    begin: Tensor
    end: Tensor
    shifts: Tensor
    item_mask: Tensor

    @classmethod
    def from_trees(cls, z: Trees, n: int) -> Derivations:
        """Reads trees over sentences padded to `n` words, without any loop."""
        batch, samples, nodes = z.left.shape
        device = z.left.device
        words = torch.arange(n, device=device)
        node_mask = z.mask()
        first, second = (
            torch.where(index < 0, nodes + start, index)
            for index, start in zip(z.child_index(), (z.left, z.split), strict=True)
        )
        # entries past a tree's nodes write to a place of their own, which is cut off again
        below = torch.full((batch, samples, n + 1), -1, device=device)
        below.scatter_(2, torch.where(node_mask, z.split, n), first)
        shifts = torch.zeros(batch, samples, nodes + n + 1, dtype=torch.bool, device=device)
        shifts.scatter_(2, torch.where(node_mask, first, nodes + n), True)

        real = node_mask[..., None]
        covers = (z.left[..., None] <= words) & (words < z.right[..., None]) & real
        right_of = (z.split[..., None] <= words) & covers
        above = covers.sum(2)  # (batch, samples, n) nodes above each word
        around = covers.gather(3, z.left[..., None, :].expand(-1, -1, nodes, -1))
        around &= z.right[..., None] >= z.right[..., None, :]
        deepest = torch.where(covers, above[:, :, None], 0).amax(3)
        height = torch.where(node_mask, deepest - around.sum(2) + 1, 0)
        word_mask = words < z.lengths.unsqueeze(2)
        return cls(
            first,
            second,
            below[..., :n],
            right_of.sum(2),
            height,
            torch.cat([z.left, words.expand(batch, samples, -1)], 2),
            torch.cat([z.right, words.expand(batch, samples, -1) + 1], 2),
            shifts[..., :-1],
            torch.cat([node_mask, word_mask], 2),
        )


def preorder(left: Tensor, right: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Sorts nodes that are listed by their split point, of which each node has one of its own.

    Args:
        left, right: `(..., n)` int64, the span of the node split at 0, 1, ...; both 0 for none.

    Returns:
        Left ends, right ends and splits in preorder, each `(..., n - 1)` int64; 0 past the nodes.
    """
    n = left.shape[-1]
    places = torch.arange(n, device=left.device)
    key = torch.where(right > 0, left * (n + 1) + n - right, n * (n + 1))
    order = key.argsort(-1)
    known = places < (right > 0).sum(-1, keepdim=True)
    parts = (part.gather(-1, order) for part in (left, right, places.expand_as(left)))
    return tuple((part * known)[..., : n - 1] for part in parts)

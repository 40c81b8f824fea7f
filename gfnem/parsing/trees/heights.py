"""Nodes of many trees in the order of their heights, for what reads trees upwards."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from gfnem.parsing.trees.trees import Trees


@dataclass
class Level:
    """All nodes of one height of a batch of trees; every field is `(count,)` int64.

    Attributes:
        slot: where each stands in the flattened `(batch, samples, nodes)` of `Trees`.
        first, second: its children, counted through the nodes of all levels from the lowest
            upwards; -1 for a child of one word.
    """

    slot: Tensor
    first: Tensor
    second: Tensor


def by_height(trees: Trees) -> tuple[list[Level], Tensor]:
    """The nodes of all trees, those above two words first.

    Returns:
        The levels, and `(batch, samples, nodes)` int64 where each node stands when the levels are
        put one behind the other; -1 past a tree's nodes.
    """
    first, second = trees.child_index()
    batch, samples, nodes = first.shape
    height = _heights(trees, first, second).flatten()
    order = height.argsort(stable=True)  # padding, of height -1, comes first
    counts = torch.bincount(height + 1, minlength=1).tolist()
    place = torch.empty_like(order)
    place[order] = torch.arange(-counts[0], len(order) - counts[0], device=order.device)
    base = torch.arange(batch * samples, device=order.device).view(batch, samples, 1) * nodes
    order = order[counts[0] :]
    children = [
        torch.where(child < 0, -1, place[(child + base).clamp(min=0)]).flatten()[order]
        for child in (first, second)
    ]
    parts = zip(*(part.split(counts[1:]) for part in (order, *children)), strict=True)
    place = place.masked_fill(height < 0, -1).view(batch, samples, nodes)
    return [Level(*part) for part in parts], place


def _heights(trees: Trees, first: Tensor, second: Tensor) -> Tensor:
    """`(batch, samples, nodes)` int64: 0 above two words, else one more than the higher child.

    -1 past a tree's nodes.
    """
    children = torch.stack([first, second]).flatten(1, 2)
    base = torch.arange(children.shape[1], device=first.device)[:, None] * first.shape[2]
    last = first.numel()  # one entry more, for words
    index = torch.where(children < 0, last, children + base).flatten(1)
    known = first.new_zeros(last + 1)
    known[-1] = -1
    while True:  # heights up to one more are right after each turn
        height = known[index].amax(0) + 1
        if torch.equal(height, known[:-1]):
            return torch.where(trees.mask(), height.view(first.shape), -1)
        known[:-1] = height


#: how the children of a node are told apart
WORD_LEFT, WORD_RIGHT, PHRASES = range(3)


@dataclass
class Different:
    """The different subtrees of all samples of each sentence, the lowest first.

    Those of one height come by the kind of their children: those with a word on the left, those
    with a word on the right, those with two phrases. Above two words all are of the first kind.

    Attributes:
        slot: `(count,)` int64, a node of each, as a place in the flattened
            `(batch, samples, nodes)` of `Trees`.
        first, second: `(count,)` int64, the places of its children among the different ones; -1 for
            a child of one word.
        sizes: how many there are of each kind, height after height.
        place: `(batch, samples, nodes)` int64, which of them each node heads; -1 past a tree's
            nodes.
    """

    slot: Tensor
    first: Tensor
    second: Tensor
    sizes: list[list[int]]
    place: Tensor


def different_subtrees(trees: Trees) -> Different:
    """The different bracketings of parts of each sentence, whatever the labels.

    Two subtrees of a sentence are the same where they have the same spans. They are told apart by
    sums of 64-bit numbers, one a span: a batch of 5,000 nodes takes two for the same with a
    probability of less than 1e-12.
    """
    children = trees.child_index()
    height = _heights(trees, *children).flatten()
    slots = (height >= 0).nonzero().squeeze(1)
    keys = _keys(trees).flatten()[slots]
    different, same = keys.unique(return_inverse=True)
    chosen = torch.empty_like(different).scatter_(0, same, slots)
    size = trees.left.shape[2]
    tree = chosen.div(size, rounding_mode="floor") * size
    first, second = (child.flatten()[chosen] for child in children)
    level = height[chosen]
    kind = torch.where(first < 0, WORD_LEFT, torch.where(second < 0, WORD_RIGHT, PHRASES))
    group = level * 3 + torch.where(level == 0, WORD_LEFT, kind)
    order = group.argsort(stable=True)
    heights = int(level.max()) + 1 if len(level) else 0
    sizes = torch.bincount(group, minlength=3 * heights).view(-1, 3).tolist()
    rank = torch.empty_like(order).scatter_(0, order, torch.arange(len(order), device=order.device))
    place = torch.full_like(height, -1).scatter_(0, slots, rank[same])
    below = (
        torch.where(child < 0, -1, place[(tree + child).clamp(min=0)])[order]
        for child in (first, second)
    )
    return Different(chosen[order], *below, sizes, place.view(trees.left.shape))


def _keys(trees: Trees) -> Tensor:
    """`(batch, samples, nodes)` int64, the same for the same spans of the same sentence."""
    batch, _, nodes = trees.left.shape
    device = trees.left.device
    row = torch.arange(batch, device=device)[:, None, None]
    spans = _mixed((nodes + 1) * (nodes + 2) + batch, device)
    parts = spans[trees.left * (nodes + 2) + trees.right] * trees.mask()
    # in preorder, the nodes of a subtree follow its top
    sums = torch.nn.functional.pad(parts.cumsum(2), (1, 0))
    start = torch.arange(nodes, device=device)
    end = (start + (trees.right - trees.left - 1).clamp(min=0)).clamp(max=nodes)
    return sums.gather(2, end) - sums[:, :, :-1] + spans[row - batch]


def _mixed(count: int, device: torch.device) -> Tensor:
    """`(count,)` int64 numbers that look random and are the same in each run.

    SplitMix64 (Steele, Lea and Flood 2014, "Fast splittable pseudorandom number generators",
    section 4).
    """
    number = torch.arange(1, count + 1, device=device) * _signed(0x9E3779B97F4A7C15)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        number = (number ^ _shifted(number, shift)) * _signed(factor)
    return number ^ _shifted(number, 31)


def _signed(number: int) -> int:
    """A 64-bit number as the signed one of the same bits."""
    return number - (1 << 64) if number >= 1 << 63 else number


def _shifted(numbers: Tensor, by: int) -> Tensor:
    """The bits of 64-bit numbers moved down, with zeros above."""
    return (numbers >> by) & ((1 << (64 - by)) - 1)

"""Nodes of many trees in the order of their heights, for networks that read trees upwards."""

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
    height = torch.zeros_like(first)
    for node in range(first.shape[2] - 1, -1, -1):
        below = torch.stack([first[:, :, node], second[:, :, node]], 2)
        child = torch.where(below < 0, -1, height.gather(2, below.clamp(min=0)))
        height[:, :, node] = child.amax(2) + 1
    return torch.where(trees.mask(), height, -1)

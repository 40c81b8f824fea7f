"""Partial trees: the rules they have used, and the look-ahead of what they leave open."""

from __future__ import annotations

import torch
from torch import Tensor

from gfnem.parsing.spaces.forest import ForestState
from gfnem.parsing.spaces.topdown import TopDownState
from gfnem.parsing.trees.trees import Trees


def partial_trees(state: TopDownState | ForestState) -> tuple[Trees, Tensor]:
    """The nodes of a state, and which of its rules are already chosen.

    Returns:
        `Trees` in which a chosen node, its children and their labels stand where `Trees` has them
        (a forest's trees one behind the other); other places hold anything. And
        `(batch, samples, 1 + nodes)` bool: whether the root's label (a one-word sentence's only
        entry, always chosen) and the rule of each node are.
    """
    one_word = state.lengths == 1
    if isinstance(state, TopDownState):
        place = torch.arange(state.left.shape[2], device=state.left.device)
        root = (state.done > 0) | one_word
        chosen = place < (state.done - 1).unsqueeze(2)
        parts = state.left, state.right, state.split, state.label
    else:
        root = ~state.open().any(2)
        closed = state.label >= 0
        width = state.label.shape[2] + 2
        # preorder within each tree; open gaps last
        key = torch.where(closed, state.left * width - state.right, width * width)
        order = key.sort(dim=2, stable=True).indices
        split = (state.gaps() + 1).expand_as(state.left)
        parts = [
            torch.where(closed, part, 0).gather(2, order)
            for part in (state.left, state.right, split, state.label)
        ]
        chosen = closed.gather(2, order)
    return Trees(*parts, state.lengths), torch.cat([root.unsqueeze(2), chosen], 2)


def opened_values(nodes: Tensor, trees: Trees) -> Tensor:
    """`(batch, samples, 1 + nodes)` what each top-down step adds to the open nodes' look-ahead.

    The root's label opens the root; expanding a node closes it and opens its children of two words
    or more. Summed over a tree they come to 0.

    Args:
        nodes: `(batch, samples, nodes)` look-ahead of each node, 0 past a tree's nodes.
        trees: whole trees.
    """
    if nodes.shape[2] == 0:
        return nodes.new_zeros(*nodes.shape[:2], 1)
    children = [
        torch.where(index < 0, 0.0, nodes.gather(2, index.clamp(min=0)))
        for index in trees.child_index()
    ]
    return torch.cat([nodes[:, :, :1], children[0] + children[1] - nodes], 2)

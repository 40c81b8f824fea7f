"""Bracketings: trees whose labels are summed out."""

from __future__ import annotations

from collections.abc import Callable
from functools import singledispatch
from typing import Protocol

import torch
from torch import Tensor

from gfnem.fixed_shapes import fixed_shapes
from gfnem.parsing.inference.bracketing_heights import Height, node_values
from gfnem.parsing.inference.bracketing_padded import top_values
from gfnem.parsing.inference.potentials import (
    Potentials,
    full_precision,
    relative,
    safe_log,
    too_far_apart,
)
from gfnem.parsing.inference.rule_potentials import RulePotentials
from gfnem.parsing.trees.heights import different_subtrees
from gfnem.parsing.trees.trees import Trees


def bracketing_log_joint(potentials: Potentials, trees: Trees) -> Tensor:
    """Log weight of each tree's bracketing, summed over all ways to label it, differentiable.

    The inside algorithm on a fixed bracketing: nodes are valued from the words upwards, all nodes
    of equal height of all trees at once. What the samples of a sentence have in common, subtree by
    subtree, is valued once.

    Returns:
        `(batch, samples)` nats: log of the sum over labels of `p(x, z)`.
    """
    with full_precision(potentials.root):
        batch, labels = len(trees.lengths), potentials.labels
        single = potentials.single[:, None].expand(-1, trees.samples)
        if potentials.max_length == 1:
            return single
        if potentials.one_table and fixed_shapes(single):
            top = (top_values(potentials, trees) + potentials.roots[:, None]).logsumexp(2)
            return torch.where(trees.lengths > 1, top, single)
        if not (trees.lengths > 1).any():
            return single
        found = different_subtrees(trees)
        row = found.slot.div(trees.left[0].numel(), rounding_mode="floor")
        left = trees.left.flatten()[found.slot] * batch + row
        last = (trees.right.flatten()[found.slot] - 1) * batch + row
        counts = [sum(sizes) for sizes in found.sizes]
        parts = (part.split(counts) for part in (found.first, found.second, left, last))
        heights = [Height(*part) for part in zip(*parts, found.sizes, strict=True)]
        roots = found.place[:, :, 0].clamp(min=0).flatten()
        values = _values(potentials, heights)
        if too_far_apart(values):
            values = _values(potentials.double(), heights)
        top = values.index_select(0, roots).view(batch, -1, labels)
        top = (top + potentials.roots[:, None]).logsumexp(2)
        return torch.where(trees.lengths > 1, top.to(single), single)


def _values(potentials: Potentials, heights: list[Height]) -> Tensor:
    """`(nodes, N)` log weights of all nodes, height after height, under the top context."""
    if potentials.one_table:
        return node_values(potentials, heights)
    blocks, values = blocks_of(potentials), []
    for each in heights:
        below = torch.cat(values, 1) if values else None
        values.append(blocks.value(each.first, each.second, each.left, each.last, below))
    return torch.cat(values, 1)[potentials.top]


class Blocks(Protocol):
    """The rules of one kind of potentials, as nodes of a bracketing need them."""

    def value(
        self, first: Tensor, second: Tensor, left: Tensor, last: Tensor, below: Tensor | None
    ) -> Tensor:
        """`(K, count, N)` log weight of nodes of one height under each context and label.

        Args:
            first, second: `(count,)` children's places in `below`, -1 for a word.
            left, last: `(count,)` first and last word, `position * batch + row`.
            below: `(K, values so far, N)`; None where all children are words.
        """
        ...


@singledispatch
def blocks_of(potentials: RulePotentials) -> Blocks:
    """The rules where they are a dense table."""
    return _DenseBlocks(potentials)


def by_kind(
    first: Tensor, second: Tensor, axis: int, *makers: Callable[[Tensor], Tensor]
) -> Tensor:
    """Values of nodes, made apart for each kind of children and put in the nodes' order.

    Args:
        first, second: `(count,)` children's places, -1 for a word.
        axis: of nodes in what is made.
        makers: make the values of some nodes, named by `(some,)` numbers: of those with two
            phrases, with a word on the left, with a word on the right.
    """
    cases = ((first >= 0) & (second >= 0), first < 0, second < 0)
    chosen = [case.nonzero().squeeze(1) for case in cases]
    made = [make(some) for make, some in zip(makers, chosen, strict=True)]
    return torch.cat(made, axis).index_select(axis, torch.cat(chosen).argsort())


class _DenseBlocks:
    """Rules in exp space, block by block, with the group of the expanded label leading."""

    def __init__(self, potentials: RulePotentials):
        self.groups, self.by_label = potentials.groups, potentials.by_label
        self.both_leaves = potentials.both_leaves.transpose(0, 1).flatten(0, 1)
        self.words, self.word_peaks = (table.flatten(1, 2) for table in potentials.word_weights)
        self.rules = potentials.by_group(potentials.rules)
        self.word_first = potentials.by_group(potentials.word_first)
        self.word_second = potentials.by_group(potentials.word_second)

    def value(
        self, first: Tensor, second: Tensor, left: Tensor, last: Tensor, below: Tensor | None
    ) -> Tensor:
        """See `Blocks`."""
        if below is None:
            return self.both_leaves.index_select(0, left).transpose(0, 1)

        def child(index: Tensor) -> tuple[Tensor, Tensor]:
            return relative(below[: self.groups].index_select(1, index))

        def word(index: Tensor) -> tuple[Tensor, Tensor]:
            return self.words.index_select(1, index), self.word_peaks.index_select(1, index)

        found = by_kind(
            first,
            second,
            1,
            lambda some: self._join(self.rules, child(first[some]), child(second[some])),
            lambda some: self._join(self.word_first, word(left[some]), child(second[some])),
            lambda some: self._join(self.word_second, word(last[some]), child(first[some])),
        )
        return self.by_label(found).transpose(0, 1)

    def _join(self, rules, one, other) -> Tensor:
        """`(G, count, N / G * K)` log weights: two children's `(G, count, size)` and maxima."""
        weights, tops = rules
        half = (one[0] @ weights).unflatten(2, (-1, tops.shape[2]))
        total = (other[0][:, :, None] @ half).squeeze(2)
        return safe_log(total) + (one[1] + other[1])[..., None] + tops

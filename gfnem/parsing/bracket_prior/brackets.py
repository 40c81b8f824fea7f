"""Bracketings: a treebank's brackets, and the binary trees that agree with them."""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any

import torch
from torch import Tensor

from gfnem.batched import Batched
from gfnem.errors import UserError
from gfnem.parsing.inference.draws import sample_trees
from gfnem.parsing.inference.inside import unlabelled_inside
from gfnem.parsing.inference.potentials import IMPOSSIBLE, GivenPotentials
from gfnem.parsing.text.corpus import read_corpus
from gfnem.parsing.trees.treebank import NotTrees
from gfnem.parsing.trees.trees import Trees

#: sentences of up to so many words have few enough binary trees (1,430) to list them all
LISTED = 9


@dataclass
class Brackets(Batched):
    """The spans of many n-ary trees.

    A tree with nodes of more than two children leaves open which binary tree is meant: every
    binary tree that contains its spans agrees with it. Where one is needed, it is drawn uniformly
    from these. (To choose, say, the right-branching one would teach a prior a preference that the
    treebank never expressed.)

    Attributes:
        spans: `(count, n, n + 1)` bool, `[row, left, right]`; `n` is the longest sentence.
        lengths: `(count,)` int64 sentence lengths in tokens.
    """

    spans: Tensor
    lengths: Tensor

    @classmethod
    def from_spans(cls, spans: list[set[tuple[int, int]]], lengths: list[int]) -> Brackets:
        """From sets of half-open `(left, right)`."""
        n = max(lengths)
        table = torch.zeros(len(spans), n, n + 1, dtype=torch.bool)
        places = [(row, *span) for row, own in enumerate(spans) for span in own]
        if places:
            table[tuple(torch.tensor(places).T)] = True
        return cls(table, torch.tensor(lengths))

    def __getitem__(self, index: Any) -> Brackets:
        """The trees at `index`, without room for longer sentences."""
        lengths = self.lengths[index]
        n = int(lengths.max()) if len(lengths) else 1
        return Brackets(self.spans[index][:, :n, : n + 1], lengths)

    @property
    def crossed(self) -> Tensor:
        """`(count, n, n + 1)` bool: the spans `[i, j)` that cross one of the tree's."""
        return _crossing(self.spans)

    @cached_property
    def log_counts(self) -> Tensor:
        """`(count, n, n + 1)` log number of binary trees over each span that agree.

        `IMPOSSIBLE` for a span that crosses one of the tree's.
        """
        return torch.cat([_log_counts(spans) for spans in self.spans.split(1000)])

    def binarised(self, index: Tensor) -> Trees:
        """For each tree at `index` a binary tree drawn uniformly from those that agree with it.

        `(len(index), 1, n - 1)`, unlabelled (every label is 0).
        """
        lengths = self.lengths[index]
        n = int(lengths.max())
        values = self.log_counts[index, :n, : n + 1].view(len(index), n, n + 1, 1, 1)
        zeros = values.new_zeros
        weights = GivenPotentials(
            zeros(1),
            zeros(1, 1, 1, 1),
            zeros(n, len(index), 1, 1, 1),
            zeros(n, len(index), 1, 1, 1),
            zeros(len(index), max(n - 1, 0), 1, 1),
            zeros(len(index)),
            lengths,
        )
        return sample_trees(weights, values, 1)[0]


def read_brackets(path: str | os.PathLike, max_length: int) -> tuple[Brackets, str]:
    """The trees of a treebank with 3 to `max_length` tokens, punctuation removed.

    Returns:
        The brackets, and a line for people that says what was read and skipped.

    Raises:
        UserError: if the treebank cannot be read, or this is text without trees.
    """
    try:
        corpus = read_corpus(path, format="trees", min_length=3, max_length=max_length)
    except NotTrees as error:
        raise UserError(f"{error.reason}; brackets are learned from trees") from error
    if any(spans is None for spans in corpus.spans):
        raise UserError(f"{path}: no trees in it: a prior over bracketings is learned from trees")
    lengths = [len(tokens) for tokens in corpus.tokens]
    return Brackets.from_spans(corpus.spans, lengths), f"{corpus.source}: {corpus.summary()}"


@cache
def _splits(left: int, right: int) -> tuple[tuple[tuple[int, int, int], ...], ...]:
    if right - left < 2:
        return ((),)
    return tuple(
        ((left, right, split), *first, *second)
        for split in range(left + 1, right)
        for first in _splits(left, split)
        for second in _splits(split, right)
    )


@cache
def all_bracketings(n: int) -> Trees:
    """Every binary tree over `n >= 2` words, unlabelled, `(1, how many, n - 1)`.

    Catalan numbers: 1, 2, 5, 14, 42, 132, 429, 1430 for 2 to 9 words.
    """
    table = torch.tensor(_splits(0, n), device="cpu")
    left, right, split = table.unsqueeze(0).unbind(-1)
    return Trees(left, right, split, torch.zeros_like(left), torch.full_like(left[..., 0], n))


def agreeing(brackets: Brackets) -> Tensor:
    """`(count, how many)` bool: which of `all_bracketings(n)` agree with each tree of `n` words.

    Args:
        brackets: trees of one length `n`.
    """
    count, n, ends = brackets.spans.shape
    device = brackets.spans.device
    shapes = all_bracketings(n).to(device)
    place = shapes.left[0] * ends + shapes.right[0]
    held = torch.zeros(len(place), n * ends, device=device).scatter_(1, place, 1.0)
    wide = torch.arange(ends, device=device) - torch.arange(n, device=device)[:, None] > 1
    wanted = (brackets.spans & wide).view(count, -1).float()
    return wanted @ held.T > wanted.sum(1, keepdim=True) - 0.5


def _log_counts(spans: Tensor) -> Tensor:
    """Of `Brackets.log_counts`, by dynamic programming over widths."""
    crossing = _crossing(spans)
    counts = unlabelled_inside(crossing * IMPOSSIBLE)
    end = torch.arange(spans.shape[2], device=spans.device)
    return counts.masked_fill(crossing | (end <= end[:-1, None]), IMPOSSIBLE)


def _crossing(spans: Tensor) -> Tensor:
    """`(count, n, n + 1)` bool: which `[i, j)` cross one of a tree's spans `[l, r)`."""
    _, n, ends = spans.shape
    table = spans.int()
    start = torch.arange(n, device=spans.device)[:, None]
    end = torch.arange(ends, device=spans.device)
    # l < i < r < j: the span begins before i, and ends inside
    before = (table.cumsum(1) - table) * (end > start)
    from_left = before.cumsum(2) - before
    # i < l < j < r: it begins inside, and ends after j
    after = (table.flip(2).cumsum(2).flip(2) - table) * (end > start)
    from_right = after.flip(1).cumsum(1).flip(1) - after
    return (from_left > 0) | (from_right > 0)

"""Minimum-risk decoding: the tree whose spans are most probable on the whole."""

from __future__ import annotations

import torch
from torch import Tensor

from gfnem.parsing.inference.nodes import Nodes, grow_trees
from gfnem.parsing.trees.trees import Trees


@torch.no_grad()
def max_span_tree(span_scores: Tensor, lengths: Tensor) -> Trees:
    """The binary tree that maximises the sum of its spans' scores.

    With posterior span probabilities as scores it has the largest expected number of correct
    spans (Goodman, 1996, "Parsing algorithms and metrics", section 3.2).

    Args:
        span_scores: `(batch, n, n + 1)` score of each span `[i, j)`; widths 0 and 1 are ignored.
        lengths: `(batch,)` int64 sentence lengths in tokens.

    Returns:
        One tree per sentence (one sample), all labels 0. Among equal trees the leftmost split wins.
    """
    batch, n, _ = span_scores.shape
    device = span_scores.device
    split_of = torch.zeros(batch, n, n + 1, dtype=torch.long, device=device)
    # Best scores by start and width, and by end and (falling) width: splits are plain slices.
    starts = span_scores.new_zeros(batch, n + 1, n + 1)
    ends = span_scores.new_zeros(batch, n + 1, n + 1)
    for width in range(2, n + 1):
        count = n - width + 1
        lefts, rights = starts[:, :count, 1:width], ends[:, width:, n - width + 1 : n]
        best, cut = (lefts + rights).max(-1)
        best = best + span_scores.diagonal(width, 1, 2)
        starts[:, :count, width] = best
        ends[:, width:, n - width] = best
        split_of.diagonal(width, 1, 2).copy_(cut + 1 + torch.arange(count, device=device))

    def choose(nodes: Nodes) -> tuple[Tensor, Tensor, Tensor]:
        split = split_of[nodes.row, nodes.left, nodes.right]
        return split, nodes.label, nodes.label

    return grow_trees(lengths, n, lengths.new_zeros(batch, 1), choose)


#: what is left of the probability of a span that crosses a pause; from 0.2 to 0.05 trees of a
#: development set were alike
CROSSING = 0.1


def crossing(pauses: Tensor, lengths: Tensor) -> Tensor:
    """`(batch, n, n + 1)` bool: which spans have a pause inside and an end in the midst of words.

    A span that holds whole stretches between pauses, or is a part of one, crosses none.

    Args:
        pauses: `(batch, n)` bool, behind which words the text pauses, before its last one.
        lengths: `(batch,)` int64 sentence lengths in tokens.
    """
    before = torch.nn.functional.pad(pauses, (1, 0))  # at each place between words
    count = before.cumsum(1)
    place = torch.arange(before.shape[1], device=pauses.device)
    starts = (before | (place == 0))[:, :-1, None]
    ends = (before | (place == lengths[:, None]))[:, None]
    inside = (count - before.long())[:, None] > count[:, :-1, None]
    return inside & ~(starts & ends)


def heeding(spans: Tensor, pauses: Tensor | None, lengths: Tensor) -> Tensor:
    """`(batch, n, n + 1)` what spans count whose probabilities, or sums of such, are these.

    Args:
        spans: `(batch, n, n + 1)`.
        pauses, lengths: see `crossing`; spans that cross a pause count `CROSSING` of theirs.
    """
    if pauses is None or not pauses.any():
        return spans
    return torch.where(crossing(pauses, lengths), CROSSING * spans, spans)


def minimum_risk(
    spans: Tensor, lengths: Tensor, pauses: Tensor | None = None
) -> tuple[Trees, Tensor]:
    """The best tree for `(batch, n, n + 1, N)` span posteriors, each span with its best label.

    Args:
        spans: how probable each span is with each label.
        lengths: `(batch,)` int64 sentence lengths in tokens.
        pauses: see `heeding`.

    Returns:
        The trees, and `(batch, n, n + 1)` how probable each span is, whatever its label.
    """
    whatever = spans.sum(3)
    trees = max_span_tree(heeding(whatever, pauses, lengths), lengths)
    row = torch.arange(len(lengths), device=lengths.device)[:, None, None]
    trees.label = spans[row, trees.left, trees.right].argmax(3) * trees.mask()
    return trees, whatever


def span_counts(trees: Trees, weights: Tensor | None = None, labels: int | None = None) -> Tensor:
    """How often each span occurs among a sentence's trees.

    Args:
        trees: sampled trees.
        weights: `(batch, samples)` weight of each tree. Default: one over the number of samples,
            so that the counts are frequencies.
        labels: the number `N` of nonterminals, to count spans by label.

    Returns:
        `(batch, n, n + 1)`, or `(batch, n, n + 1, N)` if `labels` is given.
    """
    batch, samples, nodes = trees.left.shape
    n, bins = nodes + 1, labels or 1
    if weights is None:
        weights = torch.full((batch, samples), 1 / samples, device=trees.left.device)
    row = torch.arange(batch, device=trees.left.device)[:, None, None]
    place = ((row * n + trees.left) * (n + 1) + trees.right) * bins
    if labels is not None:
        place = place + trees.label
    amounts = weights[..., None] * trees.mask()
    counts = weights.new_zeros(batch * n * (n + 1) * bins)
    counts = counts.index_add(0, place.flatten(), amounts.flatten())
    shape = (batch, n, n + 1)
    return counts.view(shape if labels is None else (*shape, bins))

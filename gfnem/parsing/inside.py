"""Exact inference: the inside algorithm, the best tree, span posteriors.

Labels run over nonterminals; the weights are `RulePotentials`, preterminals already summed out.
"""

from __future__ import annotations

import torch
from torch import Tensor

from gfnem.parsing.choices import Nodes, grow_trees
from gfnem.parsing.potentials import (
    IMPOSSIBLE,
    RulePotentials,
    at_least_float,
    full_precision,
    safe_log,
)
from gfnem.parsing.trees import Trees


def inside(potentials: RulePotentials, span_potentials: Tensor | None = None) -> Tensor:
    """Log inside value of every span and label (Baker, 1979; Lari and Young, 1990, eq. 6).

    Splits are summed first, in exp space relative to detached maxima, then the rules are applied
    once, `X[B, C] = sum_k I[i, k, B] I[k, j, C]` and `I[i, j, A] = sum_{B, C} R[A, B, C] X[B, C]`:
    for each width one batched product and one with the `(N^2, N)` rule matrix. In float32 a term
    about 87 nats below the largest conceivable one of its span and label counts as 0.

    Args:
        potentials: the rules' weights.
        span_potentials: `(batch, n, n + 1, N)` nats, added for each node `[i, j)` labelled `A` of
            a tree. Default: none.

    Returns:
        `(batch, n, n + 1, N)` nats. Differentiable. Where `[i, j)` is shorter than two words or
        passes the sentence's end the entry is the constant `IMPOSSIBLE`; what the grammar cannot
        derive is about that low or lower.
    """
    with full_precision(potentials.rules):
        batch, n, labels, _ = potentials.left_leaf.shape
        device = potentials.rules.device
        widths = [potentials.both_leaves.new_full((batch, 1, labels), IMPOSSIBLE)]
        for chart in _widths(potentials, span_potentials):
            widths.append(chart)
        # Packed by width: width w starts behind entry 0 and the n, n - 1, ... spans below it.
        start = torch.arange(n, device=device)[:, None]
        end = torch.arange(n + 1, device=device)
        width = end - start
        offset = (width - 2) * (2 * n - width + 1) // 2
        place = torch.where(width >= 2, 1 + offset + start, 0)
        chart = torch.cat(widths, 1).index_select(1, place.flatten())
        outside = end > potentials.lengths[:, None]
        return chart.view(batch, n, n + 1, labels).masked_fill(
            outside[:, None, :, None], IMPOSSIBLE
        )


def _widths(potentials: RulePotentials, span_potentials: Tensor | None):
    """Yields the log inside values `(batch, n - width + 1, N)` for widths 2, 3, ..., n."""
    batch, n, labels, _ = potentials.left_leaf.shape
    if n < 2:
        return
    rule_peaks = potentials.rules.detach().amax((1, 2))
    rules = (potentials.rules - rule_peaks[:, None, None]).exp().reshape(labels, -1).t()
    left_peaks = potentials.left_leaf.detach().amax(-1)
    left_leaf = (potentials.left_leaf - left_peaks[..., None]).exp()
    right_peaks = potentials.right_leaf.detach().amax(-1)
    right_leaf = (potentials.right_leaf - right_peaks[..., None]).exp()
    # Exp-space values and maxima of the last two widths. `starts` and `ends` hold the same of all
    # narrower spans by start (narrowest first) and by end (widest first, ends from `width` on), so
    # that the interior splits of a span pair up column by column.
    older = last = None
    empty = left_leaf.new_empty(batch, n, 0, labels), left_leaf.new_empty(batch, n, 0)
    starts, ends = empty, [table[:, 2:] for table in empty]
    for width in range(2, n + 1):
        count = n - width + 1
        if width == 2:
            log = potentials.both_leaves
        else:
            values, peaks = last
            # The left child is the first word; the right child is the last word.
            terms = [
                (left_leaf[:, :count] @ values[:, 1:, :, None]).squeeze(-1),
                (right_leaf[:, width - 1 :] @ values[:, :-1, :, None]).squeeze(-1),
            ]
            scales = [
                left_peaks[:, :count] + peaks[:, 1:, None],
                right_peaks[:, width - 1 :] + peaks[:, :-1, None],
            ]
            if width > 3:
                starts = [
                    torch.cat([old[:, :count], new[:, :count, None]], 2)
                    for old, new in zip(starts, older, strict=True)
                ]
                ends = [
                    torch.cat([new[:, 2:, None], old[:, 1:]], 2)
                    for old, new in zip(ends, older, strict=True)
                ]
                split_peaks = starts[1] + ends[1]
                top = split_peaks.amax(-1, keepdim=True)
                scaled = starts[0] * (split_peaks - top).exp()[..., None]
                pairs = scaled.transpose(-1, -2) @ ends[0]
                terms.append(pairs.view(batch, count, labels * labels) @ rules)
                scales.append(top + rule_peaks)
            peak = torch.stack(scales).amax(0)
            total = sum(
                term * (scale - peak).exp() for term, scale in zip(terms, scales, strict=True)
            )
            log = safe_log(total) + peak
        if span_potentials is not None:
            extra = at_least_float(span_potentials).diagonal(width, 1, 2)
            log = log + extra.transpose(1, 2)
        yield log
        peaks = log.detach().amax(-1)
        older, last = last, ((log - peaks[..., None]).exp(), peaks)


def log_partition(potentials: RulePotentials, chart: Tensor | None = None) -> Tensor:
    """Log probability (log weight) of each sentence, `(batch,)` nats, all its trees summed.

    Args:
        potentials: the rules' weights.
        chart: `inside(potentials)`, computed if absent.
    """
    chart = inside(potentials) if chart is None else chart
    lengths = potentials.lengths
    place = torch.arange(len(lengths), device=lengths.device) * chart.shape[2] + lengths
    whole = chart[:, 0].flatten(0, 1).index_select(0, place)
    total = torch.logsumexp(potentials.root + whole, -1)
    return torch.where(lengths == 1, potentials.single, total)


@torch.no_grad()
def viterbi(potentials: RulePotentials) -> tuple[Trees, Tensor]:
    """The best tree of each sentence, and its log weight.

    "Best" is over labelled binary trees with preterminals summed out. Without autograd.

    Returns:
        The trees (one sample) and `(batch,)` log p(x, z) in nats.
    """
    with full_precision(potentials.rules):
        return _viterbi(potentials.detach())


def _viterbi(potentials: RulePotentials) -> tuple[Trees, Tensor]:
    batch, n, labels, _ = potentials.left_leaf.shape
    device, lengths = potentials.rules.device, potentials.lengths
    rules = potentials.rules.reshape(labels, -1)
    best = potentials.rules.new_full((batch, n, n + 1, labels), IMPOSSIBLE)
    # Split, left label and right label of the best choice at each span and label.
    back = torch.zeros(3, batch, n, n + 1, labels, dtype=torch.long, device=device)
    if n > 1:
        best.diagonal(2, 1, 2).copy_(potentials.both_leaves.transpose(1, 2))
        back[0].diagonal(2, 1, 2).copy_(torch.arange(1, n, device=device))
    rows_at_once = max(1, 2**22 // labels**3)
    for width in range(3, n + 1):
        count = n - width + 1
        start = torch.arange(count, device=device)
        end = start + width
        scores, second = (
            potentials.left_leaf[:, :count] + best[:, start + 1, end][:, :, None]
        ).max(-1)
        split = (start + 1)[:, None].expand_as(second)
        first = torch.zeros_like(second)
        choice = torch.stack([split, first, second])
        by_right, labels_left = (
            potentials.right_leaf[:, width - 1 :] + best[:, start, end - 1][:, :, None]
        ).max(-1)
        split = (end - 1)[:, None].expand_as(first)
        other = torch.stack([split, labels_left, torch.zeros_like(first)])
        choice = torch.where(by_right > scores, other, choice)
        scores = torch.maximum(scores, by_right)
        if width > 3:
            middle = start[:, None] + torch.arange(2, width - 1, device=device)
            lefts = best[:, start[:, None], middle]
            rights = best[:, middle, end[:, None]]
            pairs, cuts = (lefts[..., None] + rights[..., None, :]).max(2)
            pairs = pairs.view(-1, 1, labels * labels)
            found = [(chunk + rules).max(-1) for chunk in pairs.split(rows_at_once)]
            inner = torch.cat([chunk.values for chunk in found]).view(batch, count, labels)
            pair = torch.cat([chunk.indices for chunk in found]).view(batch, count, labels)
            cut = cuts.view(batch, count, -1).gather(2, pair) + 2 + start[:, None]
            other = torch.stack([cut, pair // labels, pair % labels])
            choice = torch.where(inner > scores, other, choice)
            scores = torch.maximum(scores, inner)
        best.diagonal(width, 1, 2).copy_(scores.transpose(1, 2))
        back.diagonal(width, 2, 3).copy_(choice.transpose(2, 3))
    whole = potentials.root + best[torch.arange(batch, device=device), 0, lengths]
    score, roots = whole.max(-1)

    def choose(nodes: Nodes) -> tuple[Tensor, Tensor, Tensor]:
        split, first, second = back[:, nodes.row, nodes.left, nodes.right, nodes.label]
        return split, first, second

    trees = grow_trees(lengths, n, roots[:, None], choose)
    return trees, torch.where(lengths == 1, potentials.single, score)


def span_marginals(potentials: RulePotentials) -> Tensor:
    """Posterior probability that `[i, j)` is a node labelled `A`, without autograd.

    It is the gradient of the log partition in additive span potentials (Eisner, 2016,
    "Inside-outside and forward-backward algorithms are just backprop", section 4).

    Returns:
        `(batch, n, n + 1, N)` probabilities; a sentence's entries sum to its nodes, `length - 1`.
    """
    batch, n, labels, _ = potentials.left_leaf.shape
    potentials = potentials.detach()
    with torch.enable_grad():
        extra = potentials.rules.new_zeros(batch, n, n + 1, labels, requires_grad=True)
        total = log_partition(potentials, inside(potentials, extra)).sum()
        if n == 1:  # no node, hence no dependence on span potentials
            return torch.zeros_like(extra)
        return torch.autograd.grad(total, extra)[0]

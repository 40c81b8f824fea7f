"""Exact inference: the inside algorithm, the best tree, span posteriors.

Labels run over nonterminals; the weights are `RulePotentials`, preterminals already summed out.
"""

from __future__ import annotations

import torch
from torch import Tensor

from gfnem.parsing.inference.choices import Nodes, grow_trees
from gfnem.parsing.inference.potentials import (
    IMPOSSIBLE,
    RulePotentials,
    at_least_float,
    full_precision,
    safe_log,
)
from gfnem.parsing.trees.trees import Trees


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
def inside_outside(potentials: RulePotentials) -> tuple[Tensor, Tensor]:
    """Posterior span probabilities and log partition by the inside-outside algorithm.

    The probabilities are the gradient of the log partition in additive span potentials (Eisner,
    2016, "Inside-outside and forward-backward algorithms are just backprop", section 4). Here the
    gradient is written out, which takes half the time that autograd does: tables lead with the
    position, so that slices of them are not copied, and the outside pass goes over the spans once,
    widest first.

    Returns:
        `(batch, n, n + 1, N)` posterior probability that `[i, j)` is a node labelled `A`, and
        `(batch,)` log p(x) in nats.
    """
    with full_precision(potentials.rules):
        return _inside_outside(potentials.detach())


def _inside_outside(potentials: RulePotentials) -> tuple[Tensor, Tensor]:
    batch, n, labels, _ = potentials.left_leaf.shape
    lengths = potentials.lengths
    rules, rule_peaks = _relative(potentials.rules.flatten(1), 1)
    columns = rules.t().contiguous()
    leaves = []  # both leaf tables by position, `[A, other child]` and turned round, and maxima
    for table in (potentials.left_leaf, potentials.right_leaf):
        weights, peaks = _relative(table.transpose(0, 1).contiguous(), 3)
        leaves.append((weights, weights.transpose(2, 3).contiguous(), peaks))
    # Spans by start and width, and by end and falling width, as in `max_span_tree`: the splits of
    # a span are slices. Exp-space values relative to their maxima; maxima; then probabilities.
    starts, ends, inner, outer = potentials.rules.new_zeros(4, n + 1, batch, n + 1, labels)
    start_peaks, end_peaks = potentials.rules.new_zeros(2, n + 1, batch, n + 1)
    whole = potentials.root.new_zeros(batch, labels)
    steps = []  # of each width: how much each way to divide a span counts, and the scaled splits

    def product(rows: Tensor, tables: Tensor) -> Tensor:
        return (rows.reshape(-1, 1, labels) @ tables.reshape(-1, labels, labels)).view(rows.shape)

    def splits(width: int, *tables: Tensor) -> list[Tensor]:
        """Left and right parts of every split of spans of a width: `(count, batch, K, ...)`."""
        by_start, by_end = tables
        last = n - width + 1
        return [by_start[:last, :, 2 : width - 1], by_end[width:, :, last + 1 : n - 1]]

    for width in range(2, n + 1):
        count = n - width + 1
        if width == 2:
            log, step = potentials.both_leaves.transpose(0, 1), ()
        else:
            last, last_peaks = starts[:, :, width - 1], start_peaks[:, :, width - 1, None]
            terms = [
                product(last[1 : count + 1], leaves[0][1][:count]),
                product(last[:count], leaves[1][1][width - 1 :]),
            ]
            scales = [
                leaves[0][2][:count] + last_peaks[1 : count + 1],
                leaves[1][2][width - 1 :] + last_peaks[:count],
            ]
            scaled = None
            if width > 3:
                first, second = splits(width, starts, ends)
                split_peaks = sum(splits(width, start_peaks, end_peaks))
                top = split_peaks.amax(2, keepdim=True)
                scaled = (first * (split_peaks - top).exp()[..., None]).flatten(0, 1)
                pairs = scaled.transpose(1, 2) @ second.flatten(0, 1)
                terms.append((pairs.flatten(1) @ columns).view(count, batch, labels))
                scales.append(top + rule_peaks)
            peak = torch.stack(scales).amax(0)
            shares = [(scale - peak).exp_() for scale in scales]
            total = sum(term * share for term, share in zip(terms, shares, strict=True))
            log = safe_log(total) + peak
            over = (1 / total.clamp(min=torch.finfo(total.dtype).tiny)).masked_fill_(total <= 0, 0)
            step = ([share.mul_(over) for share in shares], scaled)
        steps.append(step)
        values, peaks = _relative(log, 2)
        starts[:count, :, width] = ends[width:, :, n - width] = values
        start_peaks[:count, :, width] = end_peaks[width:, :, n - width] = peaks
        whole = torch.where((lengths == width)[:, None], log[0], whole)

    root = potentials.root + whole
    partition = torch.where(lengths == 1, potentials.single, root.logsumexp(1))
    rows = (lengths > 1).nonzero().squeeze(1)
    inner[0, rows, lengths[rows]] = root[rows].softmax(1)
    marginals = inner.new_zeros(batch, n, n + 1, labels)
    for width in range(n, 1, -1):
        count = n - width + 1
        found = inner[:count, :, width] + outer[width:, :, n - width]
        marginals.diagonal(width, 1, 2).copy_(found.permute(1, 2, 0))
        if width == 2:
            break
        shares, scaled = steps.pop()
        last, below = starts[:, :, width - 1], inner[:, :, width - 1]
        second = product(found * shares[0], leaves[0][0][:count])
        first = product(found * shares[1], leaves[1][0][width - 1 :])
        below[1 : count + 1] += last[1 : count + 1] * second
        below[:count] += last[:count] * first
        if width > 3:
            pairs = ((found * shares[2]).flatten(0, 1) @ rules).view(-1, labels, labels)
            to_first, to_second = splits(width, inner, outer)
            second = splits(width, starts, ends)[1]
            to_first += (scaled * (second.flatten(0, 1) @ pairs.mT)).view(to_first.shape)
            to_second += second * (scaled @ pairs).view(second.shape)
    return marginals, partition


def _relative(logs: Tensor, axis: int) -> tuple[Tensor, Tensor]:
    """Weights over their largest along an axis, in exp space, and the log of the largest."""
    peaks = logs.amax(axis, keepdim=True)
    return (logs - peaks).exp_(), peaks.squeeze(axis)


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

    Returns:
        `(batch, n, n + 1, N)` probabilities; a sentence's entries sum to its nodes, `length - 1`.
    """
    return inside_outside(potentials)[0]

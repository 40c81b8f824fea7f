"""Exact inference: the inside algorithm, the best tree, span posteriors.

Labels run over nonterminals; the weights are `Potentials`, preterminals already summed out. With
labels in `G` groups, whose children stand under the context of their parent's group, splits are
summed once for each group, `M_g[B, C] = sum_k I[i, k, g, B] I[k, j, g, C]`, and then
`I[i, j, p, A] = sum_{B, C} R[p, A, B, C] M_g(A)[B, C]` for every context `p`: one batched product
`(G, spans, N^2) @ (G, N^2, (N / G) K)`. A symbol together with its context is the symbol of a
larger context-free grammar (parent annotation; Johnson, 1998, "PCFG models of linguistic tree
representations"); where `G = K = 1` this is the inside algorithm of a PCFG.
"""

from __future__ import annotations

from functools import singledispatch

import torch
from torch import Tensor

from gfnem.parsing.inference.potentials import (
    IMPOSSIBLE,
    Potentials,
    at_least_float,
    full_precision,
    relative,
    safe_log,
    safe_over,
    too_far_apart,
)


def by_label(spans: Tensor, labels: int) -> Tensor:
    """Weights of spans `(batch, n, n + 1)` as span potentials, alike for every label."""
    return spans.unsqueeze(3).expand(-1, -1, -1, labels)


def inside(potentials: Potentials, span_potentials: Tensor | None = None) -> Tensor:
    """Log inside value of every span and label (Baker, 1979; Lari and Young, 1990, eq. 6).

    In exp space relative to detached maxima. Where labels of a span are further apart than float32
    can hold, the chart is of float64.

    Args:
        potentials: the rules' weights.
        span_potentials: `(batch, n, n + 1, N)` nats, added for each node `[i, j)` labelled `A` of
            a tree, whatever its context. Default: none.

    Returns:
        `(batch, n, n + 1, K, N)` nats, `[b, i, j, k, A]`. Differentiable once. Where `[i, j)` is
        shorter than two words or passes the sentence's end the entry is the constant `IMPOSSIBLE`;
        what the grammar cannot derive is about that low or lower.
    """
    with full_precision(potentials.root):
        if span_potentials is not None:
            span_potentials = at_least_float(span_potentials)
        chart = inside_pass(potentials, span_potentials)
        if not too_far_apart(chart):
            return chart
        extra = None if span_potentials is None else span_potentials.double()
        return inside_pass(potentials.double(), extra)


@singledispatch
def inside_pass(potentials: Potentials, extra: Tensor | None) -> Tensor:
    """What `inside` returns, as it is computed where rules are a dense table."""
    (left, left_peaks), (right, right_peaks) = potentials.leaf_weights
    tables = [potentials.rules, left, right, potentials.both_leaves, extra]
    if not torch.is_grad_enabled():
        tables = [table if table is None else table.detach() for table in tables]
    return _Inside.apply(*tables, left_peaks, right_peaks, potentials.lengths)


def unlabelled_inside(spans: Tensor) -> Tensor:
    """`(batch, n, n + 1)` log sum, over all binary trees over `[i, j)`, of their spans' weights.

    0 for widths 0 and 1.

    Args:
        spans: `(batch, n, n + 1)` log weights in nats; widths 0 and 1 are ignored.
    """
    batch, n, _ = spans.shape
    # by start and width, and by end and (falling) width: splits are plain slices
    starts, ends = spans.new_zeros(2, batch, n + 1, n + 1)
    table = torch.zeros_like(spans)
    for width in range(2, n + 1):
        count = n - width + 1
        both = starts[:, :count, 1:width] + ends[:, width:, count:n]
        total = both.logsumexp(2) + spans.diagonal(width, 1, 2)
        starts[:, :count, width] = ends[:, width:, n - width] = total
        table.diagonal(width, 1, 2).copy_(total)
    return table


def uniform_inside(spans: Tensor) -> Tensor:
    """`(batch, n, n + 1)` log mean of what the spans of trees over `[i, j)` count together.

    The mean is over trees each of whose spans is cut at a split point drawn uniformly.

    Args:
        spans: `(batch, n, n + 1)` log weights in nats; widths 0 and 1 are ignored.
    """
    end = torch.arange(spans.shape[2], device=spans.device)
    ways = (end - end[:-1, None] - 1).clamp(min=1)
    return unlabelled_inside(spans - ways.log())


class _Inside(torch.autograd.Function):
    """The chart, and its gradient written out: the outside pass.

    It is what autograd does (Eisner, 2016, "Inside-outside and forward-backward algorithms are just
    backprop"), in half the time.

    Tables lead with the position, so that slices of them are not copied. Spans stand by start and
    width, and by end and falling width: the splits of a span are slices of both.
    """

    @staticmethod
    def forward(ctx, rules, left, right, both_leaves, extra, left_peaks, right_peaks, lengths):
        n, batch, groups, _, labels = left.shape
        contexts = rules.shape[0]
        # (G, N / G * K, N^2)
        rules = rules.unflatten(1, (groups, -1)).permute(1, 2, 0, 3, 4).flatten(3).flatten(1, 2)
        rules, rule_peaks = relative(rules)
        starts, ends = rules.new_zeros(2, n + 1, batch, groups, n + 1, labels)
        start_peaks, end_peaks = rules.new_zeros(2, n + 1, batch, groups, n + 1)
        chart = rules.new_full((batch, n, n + 1, contexts, labels), IMPOSSIBLE)
        saves = any(ctx.needs_input_grad)
        steps = []  # of each width: how much each way to divide a span counts, and scaled splits
        for width in range(2, n + 1):
            count = n - width + 1
            if width == 2:
                log = both_leaves.transpose(0, 1)
            else:
                last, last_peaks = starts[:, :, :, width - 1], start_peaks[:, :, :, width - 1, None]
                terms = [
                    _times(left[:count], last[1 : count + 1]),
                    _times(right[width - 1 :], last[:count]),
                ]
                scales = [
                    left_peaks[:count] + last_peaks[1 : count + 1],
                    right_peaks[width - 1 :] + last_peaks[:count],
                ]
                scaled = None
                if width > 3:
                    first, second = splits(width, starts, ends)
                    split_peaks = torch.add(*splits(width, start_peaks, end_peaks))
                    top = split_peaks.amax(3, keepdim=True)
                    scaled = (first * (split_peaks - top).exp_()[..., None]).flatten(0, 2)
                    terms.append(_by_group(scaled.mT @ second.flatten(0, 2), rules, top.shape))
                    scales.append(top + rule_peaks)
                peak = torch.stack(scales).amax(0)
                shares = [(scale - peak).exp_() for scale in scales]
                total = terms[0].mul_(shares[0])
                for term, share in zip(terms[1:], shares[1:], strict=True):
                    total.addcmul_(term, share)
                log = safe_log(total).add_(peak)
                log = log.unflatten(3, (-1, contexts)).permute(0, 1, 4, 2, 3).flatten(3)
                if saves:
                    over = safe_over(total)
                    steps.append(([share.mul_(over) for share in shares], scaled))
            if extra is not None:
                log = log + extra.diagonal(width, 1, 2).permute(2, 0, 1).unsqueeze(2)
            values, peaks = relative(log[:, :, :groups])
            starts[:count, :, :, width] = ends[width:, :, :, n - width] = values
            start_peaks[:count, :, :, width] = end_peaks[width:, :, :, n - width] = peaks
            chart.diagonal(width, 1, 2).copy_(log.permute(1, 2, 3, 0))
        outside = beyond(n, lengths)
        chart.masked_fill_(outside[..., None, None], IMPOSSIBLE)
        if saves:
            ctx.kept = rules, left, right, starts, ends, steps, outside
        return chart

    @staticmethod
    def backward(ctx, gradient):
        with full_precision(gradient):
            return _Inside.outside(ctx, gradient)

    @staticmethod
    def outside(ctx, gradient):
        rules, left, right, starts, ends, steps, outside = ctx.kept
        batch, n, _, contexts, labels = gradient.shape
        groups, size, _ = rules.shape
        gradient = gradient.masked_fill(outside[..., None, None], 0)
        wants_rules, wants_leaves, _, wants_both, wants_extra, *_ = ctx.needs_input_grad
        # gradients in log values, of spans as left and as right parts and in all
        inner, outer = torch.zeros_like(starts), torch.zeros_like(starts)
        of_rules = torch.zeros_like(rules) if wants_rules else None
        of_extra = gradient.new_zeros(batch, n, n + 1, labels) if wants_extra else None
        of_both = gradient.new_zeros(batch, 0, contexts, labels)
        if wants_leaves:  # by word and width, or falling width; all are used at once in the end
            by_left, by_right = gradient.new_zeros(2, n, batch, groups, n + 1, size)
        for width in range(n, 1, -1):
            count = n - width + 1
            found = gradient.diagonal(width, 1, 2).permute(3, 0, 1, 2).contiguous()
            found[:, :, :groups] += inner[:count, :, :, width]
            found[:, :, :groups] += outer[width:, :, :, n - width]
            if wants_extra:
                of_extra.diagonal(width, 1, 2).copy_(found.sum(2).permute(1, 2, 0))
            if width == 2:
                of_both = found.transpose(0, 1)
                break
            found = found.unflatten(3, (groups, -1)).permute(0, 1, 3, 4, 2).flatten(3)
            shares, scaled = steps[width - 3]
            last, below = starts[:, :, :, width - 1], inner[:, :, :, width - 1]
            first, second = found * shares[0], found * shares[1]
            if wants_leaves:
                by_left[:count, :, :, width - 1] = first
                by_right[width - 1 :, :, :, n - width + 1] = second
            after = slice(1, count + 1)
            below[after].addcmul_(last[after], _times(left[:count].mT, first))
            below[:count].addcmul_(last[:count], _times(right[width - 1 :].mT, second))
            if width > 3:
                part = (found * shares[2]).flatten(0, 1)  # spans, G, N / G * K
                pairs = (part.transpose(0, 1) @ rules).transpose(0, 1)
                pairs = pairs.reshape(-1, labels, labels)
                second = splits(width, starts, ends)[1]
                flat = second.flatten(0, 2)
                if wants_rules:
                    whole = (scaled.mT @ flat).view(-1, groups, labels * labels)
                    of_rules.baddbmm_(part.permute(1, 2, 0), whole.transpose(0, 1))
                to_first, to_second = splits(width, inner, outer)
                shape = second.shape
                # BLAS is slow where the second of many small matrices is the transposed one
                by_first = (pairs @ flat.mT).mT.unflatten(0, shape[:3])
                to_first.addcmul_(scaled.view(shape), by_first)
                to_second.addcmul_(second, (scaled @ pairs).view(shape))
        of_left = of_right = None
        if wants_leaves:
            of_left = _leaf_gradient(by_left[..., :n, :], starts[1:, :, :, :n]).view_as(left)
            of_right = _leaf_gradient(by_right, ends[:n]).view_as(right)
        if wants_rules:
            of_rules = of_rules.mul_(rules).view(groups, -1, contexts, labels, labels)
            of_rules = of_rules.permute(2, 0, 1, 3, 4).flatten(1, 2)
        of_both = of_both if wants_both else None
        return of_rules, of_left, of_right, of_both, of_extra, None, None, None


def _times(table: Tensor, values: Tensor) -> Tensor:
    """`(..., X)` products of many `(..., X, Y)` matrices with a vector `(..., Y)` each."""
    rows = values.reshape(-1, 1, values.shape[-1])
    return (rows @ table.flatten(0, 2).mT).view(*table.shape[:3], -1)


def _by_group(pairs: Tensor, rules: Tensor, shape: tuple) -> Tensor:
    """`(spans, batch, G, N / G * K)`: pairs of labels `(spans * batch * G, N, N)` times rules."""
    # with the few rows on the left, BLAS takes half the time that it takes with few columns
    pairs = pairs.view(-1, rules.shape[0], rules.shape[2]).permute(1, 2, 0)
    return (rules @ pairs).permute(2, 0, 1).reshape(*shape[:3], -1)


def splits(width: int, by_start: Tensor, by_end: Tensor, axis: int = 3) -> list[Tensor]:
    """Left and right parts of every split of spans of a width that leaves no word alone.

    Args:
        width: of the spans.
        by_start: a table of spans by where they start and, at `axis`, by their width.
        by_end: the same by where they end, and by falling width.
        axis: of widths.

    Returns:
        Two views, of the spans' places at axis 0 and of their splits at `axis`.
    """
    last, count = len(by_start) - width, width - 3
    return [by_start[:last].narrow(axis, 2, count), by_end[width:].narrow(axis, last + 1, count)]


def _leaf_gradient(found: Tensor, values: Tensor) -> Tensor:
    """Gradient of `(n * batch * G, N / G * K, N)` rules with a word, summed over widths."""
    return found.flatten(0, 2).mT @ values.flatten(0, 2)


def beyond(n: int, lengths: Tensor) -> Tensor:
    """`(batch, n, n + 1)` bool: `[i, j)` is shorter than two words or passes the sentence's end."""
    end = torch.arange(n + 1, device=lengths.device)
    short = end - end[:n, None] < 2
    return short | (end > lengths[:, None, None])


def root_values(potentials: Potentials, chart: Tensor) -> Tensor:
    """`(batch, N)` log weight of each root label."""
    lengths, (batch, n, ends, contexts, _) = potentials.lengths, chart.shape
    row = torch.arange(batch, device=lengths.device)
    place = (row * n * ends + lengths) * contexts + potentials.top
    return potentials.root + chart.flatten(0, 3).index_select(0, place)


def log_partition(potentials: Potentials, chart: Tensor | None = None) -> Tensor:
    """Log probability (log weight) of each sentence, `(batch,)` nats, all its trees summed.

    Args:
        potentials: the rules' weights.
        chart: `inside(potentials)`, computed if absent.
    """
    chart = inside(potentials) if chart is None else chart
    total = torch.logsumexp(root_values(potentials, chart), -1)
    return torch.where(potentials.lengths == 1, potentials.single, total.to(potentials.single))


def span_marginals(potentials: Potentials, spans: Tensor | None = None) -> Tensor:
    """Posterior probability that `[i, j)` is a node labelled `A`, without autograd.

    The gradient of the log partition in additive span potentials (Eisner, 2016, section 4).

    Args:
        potentials: the rules' weights.
        spans: `(batch, n, n + 1)` nats, added for each node of a tree. Default: none.

    Returns:
        `(batch, n, n + 1, N)` probabilities; a sentence's entries sum to its nodes, `length - 1`.
    """
    return marginals_and_chart(potentials, spans)[0]


def marginals_and_chart(
    potentials: Potentials, spans: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """What `span_marginals` returns, and the inside chart that it takes.

    Span potentials may also depend on the label, `(batch, n, n + 1, N)`.
    """
    potentials = potentials.detach()
    batch, n = len(potentials.lengths), potentials.max_length
    with torch.enable_grad():
        shape = (batch, n, n + 1, potentials.labels)
        extra = potentials.root.new_zeros(shape)
        if spans is not None:
            extra = extra + (spans if spans.dim() == 4 else spans.unsqueeze(3))
        extra.requires_grad_()
        chart = inside(potentials, extra)
        total = log_partition(potentials, chart).sum()
        return torch.autograd.grad(total, extra)[0], chart.detach()

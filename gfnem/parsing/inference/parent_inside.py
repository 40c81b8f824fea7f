"""Exact inference where a symbol's expansion depends on its parent: inside, best tree, posterior.

A symbol together with its parent's label is the symbol of a larger context-free grammar (parent
annotation; Johnson, 1998, "PCFG models of linguistic tree representations"). Its rules are sparse:
the children of `A` under `P` are annotated with `A` alone. So splits are summed once for each
parent, `M_A[B, C] = sum_k I[i, k, B | A] I[k, j, C | A]`, and then
`I[i, j, A | P] = sum_{B, C} R[P, A, B, C] M_A[B, C]`.
"""

from __future__ import annotations

import torch
from torch import Tensor

from gfnem.parsing.inference.choices import Nodes, grow_trees
from gfnem.parsing.inference.parent_potentials import ParentPotentials
from gfnem.parsing.inference.potentials import IMPOSSIBLE, at_least_float, full_precision, safe_log
from gfnem.parsing.trees.trees import Trees


def parent_inside(potentials: ParentPotentials, span_potentials: Tensor | None = None) -> Tensor:
    """Log inside value of every span and label under every parent.

    In exp space relative to detached maxima of each span and parent. In float32 a term about 87
    nats below the largest conceivable one counts as 0.

    Args:
        potentials: the rules' weights.
        span_potentials: `(batch, n, n + 1, N)` nats, added for each node `[i, j)` labelled `A`,
            whatever its parent. Default: none.

    Returns:
        `(batch, n, n + 1, N + 1, N)` nats, `[b, i, j, P, A]`, differentiable. `IMPOSSIBLE` where
        `[i, j)` is shorter than two words or passes the sentence's end.
    """
    with full_precision(potentials.rules):
        batch, n, parents, _ = potentials.words.shape
        labels = potentials.labels
        device = potentials.rules.device
        none = potentials.rules.new_full((batch, 1, parents, labels), IMPOSSIBLE)
        chart = torch.cat([none, *_widths(potentials, span_potentials)], 1)
        # packed by width: width w starts behind entry 0 and the n - 1, n - 2, ... spans below it
        start = torch.arange(n, device=device)[:, None]
        end = torch.arange(n + 1, device=device)
        width = end - start
        offset = (width - 2) * (2 * n - width + 1) // 2
        place = torch.where(width >= 2, 1 + offset + start, 0)
        chart = chart.index_select(1, place.flatten()).view(batch, n, n + 1, parents, labels)
        outside = end > potentials.lengths[:, None]
        return chart.masked_fill(outside[:, None, :, None, None], IMPOSSIBLE)


def _widths(potentials: ParentPotentials, span_potentials: Tensor | None):
    """Yields the log inside values `(batch, n - width + 1, N + 1, N)` for widths 2, 3, ..., n."""
    batch, n, parents, _ = potentials.words.shape
    labels = potentials.labels
    rule_peaks = potentials.rules.detach().amax((2, 3))
    rules = (potentials.rules - rule_peaks[..., None, None]).exp()
    rules = rules.permute(1, 2, 3, 0).reshape(labels, labels * labels, parents)
    left_leaf, right_leaf = _LeafRules(potentials.left_leaf), _LeafRules(potentials.right_leaf)
    older = last = None  # (batch, spans, parent, label) and maxima of the last two widths
    empty = rules.new_empty(batch, n, 0, labels, labels), rules.new_empty(batch, n, 0, labels)
    # narrower spans by start (narrowest first) and by end (widest first): splits pair up in columns
    starts, ends = empty, [table[:, 2:] for table in empty]
    for width in range(2, n + 1):
        count = n - width + 1
        if width == 2:
            log = potentials.both_leaves
        else:
            values, peaks = last
            terms = [
                left_leaf.times(0, values[:, 1:]),
                right_leaf.times(width - 1, values[:, :-1]),
            ]
            scales = [
                left_leaf.peaks[:, :count] + peaks[:, 1:, :, None],
                right_leaf.peaks[:, width - 1 :] + peaks[:, :-1, :, None],
            ]  # all (batch, spans, A, P)
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
                top = split_peaks.amax(2, keepdim=True)
                scaled = starts[0] * (split_peaks - top).exp()[..., None]
                pairs = torch.einsum("bikxy,bikxz->xbiyz", scaled, ends[0])
                inner = pairs.reshape(labels, batch * count, -1) @ rules
                terms.append(inner.view(labels, batch, count, parents).permute(1, 2, 0, 3))
                scales.append(top.squeeze(2)[..., None] + rule_peaks.T)
            peak = torch.stack(scales).amax(0)
            total = sum(
                term * (scale - peak).exp() for term, scale in zip(terms, scales, strict=True)
            )
            log = (safe_log(total) + peak).transpose(2, 3)
        if span_potentials is not None:
            extra = at_least_float(span_potentials).diagonal(width, 1, 2)
            log = log + extra.transpose(1, 2)[:, :, None]
        yield log
        below = log[:, :, :labels]
        peaks = below.detach().amax(-1)
        older, last = last, ((below - peaks[..., None]).exp(), peaks)


class _LeafRules:
    """Rules with one word in exp space; the gradients of all widths are summed in place.

    These are the largest tables there are, and every width uses a part of them: left to autograd,
    each part's gradient would be copied into a table of full size.

    Args:
        logs: `(batch, n, A, P, C)` in nats.
    """

    def __init__(self, logs: Tensor):
        self.peaks = logs.detach().amax(-1)
        table = (logs - self.peaks[..., None]).exp().transpose(0, 1).contiguous()
        self.table, self.gradient = table.detach(), None
        self.token = _Collect.apply(table, self)

    def times(self, start: int, values: Tensor) -> Tensor:
        """`(batch, spans, A, P)`: rules of words `start, start + 1, ...` with the other child.

        Args:
            start: the first word.
            values: `(batch, spans, A, C)` the other child's, one span for each word.
        """
        values = values.transpose(0, 1).contiguous()
        return _Times.apply(self.token, values, self, start).transpose(0, 1)


class _Collect(torch.autograd.Function):
    """Stands for the table in autograd's graph; hands it the gradient that `_Times` summed."""

    @staticmethod
    def forward(ctx, table: Tensor, rules: _LeafRules) -> Tensor:
        ctx.rules = rules
        return table.new_zeros(())

    @staticmethod
    def backward(ctx, _):
        gradient, ctx.rules.gradient = ctx.rules.gradient, None
        return gradient, None


class _Times(torch.autograd.Function):
    """`(spans, batch, A, P)` products of a part of the table with `(spans, batch, A, C)` values."""

    @staticmethod
    def forward(ctx, token: Tensor, values: Tensor, rules: _LeafRules, start: int) -> Tensor:
        ctx.save_for_backward(values)
        ctx.rules, ctx.at = rules, slice(start, start + len(values))
        return (rules.table[ctx.at] @ values[..., None]).squeeze(-1)

    @staticmethod
    def backward(ctx, gradient: Tensor):
        (values,) = ctx.saved_tensors
        rules = ctx.rules
        gradient = gradient.contiguous()
        if ctx.needs_input_grad[0]:
            if rules.gradient is None:
                rules.gradient = torch.zeros_like(rules.table)
            rows = rules.gradient[ctx.at].flatten(0, 2)
            rows.baddbmm_(gradient.flatten(0, 2)[..., None], values.flatten(0, 2)[:, None])
        below = (gradient[..., None, :] @ rules.table[ctx.at]).squeeze(-2)
        return gradient.new_zeros(()), below, None, None


def _roots(potentials: ParentPotentials, chart: Tensor) -> Tensor:
    """`(batch, N)` log weight of each root label."""
    lengths = potentials.lengths
    row = torch.arange(len(lengths), device=lengths.device)
    return potentials.root + chart[row, 0, lengths, potentials.labels]


def parent_log_partition(potentials: ParentPotentials, chart: Tensor | None = None) -> Tensor:
    """Log probability of each sentence, `(batch,)` nats, all its trees summed.

    Args:
        potentials: the rules' weights.
        chart: `parent_inside(potentials)`, computed if absent.
    """
    chart = parent_inside(potentials) if chart is None else chart
    total = _roots(potentials, chart).logsumexp(-1)
    return torch.where(potentials.lengths == 1, potentials.single, total)


def parent_span_marginals(potentials: ParentPotentials) -> Tensor:
    """Posterior probability that `[i, j)` is a node labelled `A`, without autograd.

    The gradient of the log partition in additive span potentials (Eisner, 2016).

    Returns:
        `(batch, n, n + 1, N)` probabilities; a sentence's entries sum to its nodes, `length - 1`.
    """
    (batch, n), labels = potentials.words.shape[:2], potentials.labels
    potentials = potentials.detach()
    with torch.enable_grad():
        extra = potentials.rules.new_zeros(batch, n, n + 1, labels, requires_grad=True)
        if n == 1:
            return torch.zeros_like(extra)
        total = parent_log_partition(potentials, parent_inside(potentials, extra)).sum()
        return torch.autograd.grad(total, extra)[0]


def _grow(lengths: Tensor, n: int, roots: Tensor, labels: int, choose) -> Trees:
    """Trees grown over annotated symbols `P * N + A`, and then named by `A`."""
    trees = grow_trees(lengths, n, labels * labels + roots, choose)
    trees.label = trees.label % labels
    return trees


@torch.no_grad()
def parent_viterbi(potentials: ParentPotentials) -> tuple[Trees, Tensor]:
    """The best labelled tree of each sentence (one sample), and `(batch,)` log p(x, z) in nats."""
    with full_precision(potentials.rules):
        return _viterbi(potentials.detach())


def _viterbi(potentials: ParentPotentials) -> tuple[Trees, Tensor]:
    batch, n, parents, _ = potentials.words.shape
    labels = potentials.labels
    device, lengths = potentials.rules.device, potentials.lengths
    rules = potentials.rules.flatten(2)
    best = rules.new_full((batch, n, n + 1, parents, labels), IMPOSSIBLE)
    back = torch.zeros(3, *best.shape, dtype=torch.long, device=device)  # split, left, right label
    for width in range(2, n + 1):
        start = torch.arange(n - width + 1, device=device)
        end = start + width
        if width == 2:
            best[:, start, end] = potentials.both_leaves
            back[0][:, start, end] = (start + 1)[:, None, None]
            continue
        middle = start[:, None] + torch.arange(2, width - 1, device=device)
        for label in range(labels):  # one parent of the children at a time, to bound memory
            scores, second = (
                potentials.left_leaf[:, : len(start), label] + best[:, start + 1, end, label, None]
            ).max(-1)
            split = (start + 1)[:, None].expand_as(second)
            choice = torch.stack([split, torch.zeros_like(second), second])
            by_right, first = (
                potentials.right_leaf[:, width - 1 :, label] + best[:, start, end - 1, label, None]
            ).max(-1)
            split = (end - 1)[:, None].expand_as(first)
            other = torch.stack([split, first, torch.zeros_like(first)])
            choice = torch.where(by_right > scores, other, choice)
            scores = torch.maximum(scores, by_right)
            if width > 3:
                lefts = best[:, start[:, None], middle, label]
                rights = best[:, middle, end[:, None], label]
                pairs, cuts = (lefts[..., None] + rights[..., None, :]).max(2)
                inner, pair = (pairs.flatten(2)[:, :, None] + rules[:, label]).max(-1)
                cut = cuts.flatten(2).gather(2, pair) + 2 + start[:, None]
                other = torch.stack([cut, pair // labels, pair % labels])
                choice = torch.where(inner > scores, other, choice)
                scores = torch.maximum(scores, inner)
            best[:, start, end, :, label] = scores
            back[:, :, start, end, :, label] = choice
    score, roots = _roots(potentials, best).max(-1)

    def choose(nodes: Nodes) -> tuple[Tensor, Tensor, Tensor]:
        parent, label = nodes.label // labels, nodes.label % labels
        split, first, second = back[:, nodes.row, nodes.left, nodes.right, parent, label]
        return split, label * labels + first, label * labels + second

    trees = _grow(lengths, n, roots[:, None], labels, choose)
    return trees, torch.where(lengths == 1, potentials.single, score)

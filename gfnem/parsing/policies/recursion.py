"""Look-ahead that is built from narrow spans to wide ones, with few products instead of rules."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from gfnem.parsing.inference.inside import beyond, splits
from gfnem.parsing.inference.potentials import (
    IMPOSSIBLE,
    Potentials,
    full_precision,
    relative,
    safe_log,
    safe_over,
)

#: steps of these weights over those of other parameters: there are few of them, and they go far
_STRIDE = 8.0


class Recursion(nn.Module):
    """The inside recursion with learned weights of low rank where both children are phrases.

    A span is worth what its parts are worth, as in the inside algorithm (Baker, 1979). Rules one of
    whose children is a word count as the target has them. The others, `N^3` numbers, are

        R[A, B, C] = m[A] sum_r U[A, r] P[r, B] Q[r, C],

    with `m` the target's total weight of such rules and all else learned, each of `U`, `P` and `Q`
    summing to 1 over its last axis (a canonical decomposition, as in Cohen, Satta and Collins 2013,
    "Approximate PCFG parsing using tensor decomposition", section 4). So a span of `n` words costs
    `n r + 3 N r` operations in place of `n N^2 + N^3`, and follows the grammar as it learns.

    Args:
        labels: how many labels (`N`), under one context.
        rank: how many products (`r`).
    """

    def __init__(self, labels: int, rank: int):
        super().__init__()
        # one start for all ranks would keep them alike
        self.of_parent = nn.Parameter(torch.randn(labels, rank) / _STRIDE)
        self.of_left = nn.Parameter(torch.randn(rank, labels) / _STRIDE)
        self.of_right = nn.Parameter(torch.randn(rank, labels) / _STRIDE)

    def forward(self, potentials: Potentials, spans: Tensor | None = None) -> Tensor:
        """`(batch, n, n + 1, N)` look-ahead in nats; `IMPOSSIBLE` where there is no phrase.

        Differentiable in its own weights, not in the potentials.

        Args:
            potentials: the rules' weights, under one context.
            spans: `(batch, n, n + 1)` nats that each node's span counts besides; none if None.
        """
        parts = (
            (_STRIDE * weight).softmax(1)
            for weight in (self.of_parent, self.of_left, self.of_right)
        )
        return _Chart.apply(*parts, potentials, spans)


class _Chart(torch.autograd.Function):
    """The chart, and its gradient written out: spans from wide ones to narrow ones.

    As in `inside`, tables lead with the position; spans stand by start and width as left parts, and
    by end and falling width as right parts, so that the splits of a span are slices of both.
    """

    @staticmethod
    def forward(ctx, parent: Tensor, left: Tensor, right: Tensor, potentials: Potentials, spans):
        with full_precision(parent):
            return _Chart.upwards(ctx, parent, left, right, potentials, spans)

    @staticmethod
    def upwards(ctx, parent, left, right, potentials, spans):
        n, batch, labels = potentials.max_length, len(potentials.lengths), potentials.labels
        mass, (after, before) = potentials.phrase_mass(), potentials.beside_words()
        starts = parent.new_zeros(n + 1, batch, n + 1, len(left))
        ends, peaks = torch.zeros_like(starts), parent.new_zeros(2, n + 1, batch, n + 1)
        chart = parent.new_full((batch, n, n + 1, labels), IMPOSSIBLE)
        values: list[Tensor] = []  # of each width from 2, over their largest
        saves, steps = any(ctx.needs_input_grad), []
        for width in range(2, n + 1):
            count = n - width + 1
            if width == 2:
                log = potentials.both_leaves.squeeze(2).transpose(0, 1)
            else:
                last, level = values[-1], peaks[0, : count + 1, :, width - 1, None]
                words = slice(count), slice(width - 1, n)
                terms = [after.above(words[0], last[1:]), before.above(words[1], last[:count])]
                scales = [after.scale[words[0]] + level[1:], before.scale[words[1]] + level[:count]]
                weights = both = None
                if width > 3:
                    level = sum(splits(width, *peaks, axis=2))
                    top = level.amax(2)
                    weights = (level - top[..., None]).exp_()[..., None]
                    first, second = splits(width, starts, ends, axis=2)
                    both = (first * weights).mul_(second).sum(2)
                    terms.append(both @ parent.T)
                    scales.append(top[..., None] + mass)
                peak = torch.stack(scales).amax(0)
                shares = [(scale - peak).exp_() for scale in scales]
                total = sum(term.mul_(share) for term, share in zip(terms, shares, strict=True))
                log = safe_log(total) + peak
                if saves:
                    over = safe_over(total)
                    steps.append(([share.mul_(over) for share in shares], weights, both))
            if spans is not None:
                log = log + spans.diagonal(width, 1, 2).T[..., None]
            value, top = relative(log)
            values.append(value)
            starts[:count, :, width], ends[width:, :, n - width] = value @ left.T, value @ right.T
            peaks[0, :count, :, width] = peaks[1, width:, :, n - width] = top
            chart.diagonal(width, 1, 2).copy_(log.permute(1, 2, 0))
        outside = beyond(n, potentials.lengths)[..., None]
        chart.masked_fill_(outside, IMPOSSIBLE)
        if saves:
            ctx.kept = parent, left, right, after, before, starts, ends, values, steps, outside
        return chart

    @staticmethod
    def backward(ctx, gradient: Tensor):
        with full_precision(gradient):
            return *_Chart.downwards(ctx, gradient.masked_fill(ctx.kept[-1], 0)), None, None

    @staticmethod
    def downwards(ctx, gradient: Tensor) -> list[Tensor]:
        parent, left, right, after, before, starts, ends, values, steps, _ = ctx.kept
        n = gradient.shape[1]
        of_parent, of_left, of_right = (torch.zeros_like(part) for part in (parent, left, right))
        of_starts, of_ends = torch.zeros_like(starts), torch.zeros_like(ends)
        below: Tensor | None = None  # gradient of the values of the next width
        for width in range(n, 1, -1):
            count, value = n - width + 1, values[width - 2]
            first, second = of_starts[:count, :, width], of_ends[width:, :, n - width]
            of_left += first.flatten(0, 1).T @ value.flatten(0, 1)
            of_right += second.flatten(0, 1).T @ value.flatten(0, 1)
            if width == 2:
                break
            of_value = first @ left + second @ right
            if below is not None:
                of_value += below
            found = gradient.diagonal(width, 1, 2).permute(2, 0, 1) + value * of_value
            shares, weights, both = steps[width - 3]
            below = torch.zeros_like(values[width - 3])
            below[1:] += after.below(slice(count), found * shares[0])
            below[:count] += before.below(slice(width - 1, n), found * shares[1])
            if width > 3:
                found = found * shares[2]
                of_parent += found.flatten(0, 1).T @ both.flatten(0, 1)
                weighted = (found @ parent)[:, :, None] * weights
                first, second = splits(width, starts, ends, axis=2)
                to_first, to_second = splits(width, of_starts, of_ends, axis=2)
                to_first += weighted * second
                to_second += weighted.mul_(first)
        return [of_parent, of_left, of_right]

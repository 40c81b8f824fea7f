"""Sums of what a span's two ends and its width say, for all spans of a batch."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from gfnem.parsing.policies.dropout import dropped_of, random_bytes, scale_of


class SpanSums(nn.Module):
    """`relu(left[i] + right[j] + width[j - i])` for all spans `[i, j)`, with dropout in training.

    A sentence of 40 words has 820 spans, so that passes over them are what a sampler's network
    costs. This makes two, forwards and backwards: the sums of a start are written where they
    belong, and a random byte decides about each unit.

    Args:
        dropout: share of units dropped in training, rounded to a 256th.
    """

    def __init__(self, dropout: float = 0.0):
        super().__init__()
        self.dropped = dropped_of(dropout)

    def forward(self, left: Tensor, right: Tensor, width: Tensor, narrowest: int = 1) -> Tensor:
        """`(batch, spans, size)`, a vector for each of `span_list(n, narrowest)`.

        Args:
            left, right: `(batch, n + 1, size)` of the places between words.
            width: `(n + 1, size)` of the widths 0 to `n`.
            narrowest: the width of the narrowest spans.
        """
        dropped = self.dropped if self.training else 0
        if dropped:  # few numbers are scaled here, and many after the sum
            left, right, width = (part * scale_of(dropped) for part in (left, right, width))
        return _Sums.apply(left, right, width.to(left.dtype), narrowest, dropped)


class _Sums(torch.autograd.Function):
    """The sums, and their gradient without indices."""

    @staticmethod
    def forward(ctx, left: Tensor, right: Tensor, width: Tensor, narrowest: int, dropped: int):
        batch, ends, size = left.shape
        places = _places(ends - 1, narrowest)
        sums = left.new_empty(batch, places[-1][2] if places else 0, size)
        if dropped:
            units = random_bytes(sums.shape, sums.device)
        for start, first, last in places:
            part = sums[:, first:last]
            torch.add(right[:, start + narrowest :], width[narrowest : ends - start], out=part)
            part.add_(left[:, start, None]).relu_()
            if dropped:  # the derivative of a step: a product with a mask takes four times as long
                chance, above = units[:, first:last].to(part.dtype), dropped - 0.5
                torch.ops.aten.threshold_backward.grad_input(part, chance, above, grad_input=part)
        ctx.save_for_backward(sums)
        ctx.narrowest, ctx.ends = narrowest, ends
        return sums

    @staticmethod
    def backward(ctx, gradient: Tensor):
        (sums,) = ctx.saved_tensors
        narrowest, ends = ctx.narrowest, ctx.ends
        left = gradient.new_zeros(len(sums), ends, sums.shape[2])
        right, width = torch.zeros_like(left), gradient.new_zeros(ends, sums.shape[2])
        for start, first, last in _places(ends - 1, narrowest):
            at = slice(first, last)
            part = torch.ops.aten.threshold_backward(gradient[:, at], sums[:, at], 0)
            left[:, start] = part.sum(1)
            right[:, start + narrowest :] += part
            width[narrowest : ends - start] += part.sum(0)
        return left, right, width, None, None


def _places(n: int, narrowest: int) -> list[tuple[int, int, int]]:
    """Each start of spans with the places of its spans in `span_list`."""
    found, first = [], 0
    for start in range(n - narrowest + 1):
        last = first + n - narrowest + 1 - start
        found.append((start, first, last))
        first = last
    return found

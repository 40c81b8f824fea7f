"""Look-ahead that is built from narrow spans to wide ones, with few products instead of rules."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from gfnem.parsing.inference.inside import beyond
from gfnem.parsing.inference.potentials import IMPOSSIBLE, Potentials, full_precision, safe_log

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

        Args:
            potentials: the rules' weights, under one context.
            spans: `(batch, n, n + 1)` nats that each node's span counts besides; none if None.
        """
        with full_precision(potentials.root):
            return self._chart(potentials, spans)

    def _chart(self, potentials: Potentials, spans: Tensor | None) -> Tensor:
        parent, left, right = (
            (_STRIDE * weight).softmax(1)
            for weight in (self.of_parent, self.of_left, self.of_right)
        )
        mass = potentials.phrase_mass()
        after_word, before_word = potentials.beside_words()
        n, batch, labels = potentials.max_length, len(potentials.lengths), potentials.labels
        # of each width: values over their largest, its log, and what they are as either child
        values: list[tuple[Tensor, Tensor, Tensor, Tensor]] = []
        logs: list[Tensor] = []
        for width in range(2, n + 1):
            count = n - width + 1
            if width == 2:
                log = potentials.both_leaves.squeeze(2).transpose(0, 1)
            else:
                last, level = values[-1][0], values[-1][1][..., None]
                one, one_scale = after_word(slice(count), last[1:])
                other, other_scale = before_word(slice(width - 1, n), last[:count])
                terms = [one, other]
                scales = [one_scale + level[1:], other_scale + level[:count]]
                if width > 3:
                    splits = range(2, width - 1)
                    cuts = [(k, values[k - 2], values[width - k - 2]) for k in splits]
                    level = torch.stack([a[1][:count] + b[1][k : k + count] for k, a, b in cuts])
                    top = level.amax(0)
                    both = torch.stack([a[2][:count] * b[3][k : k + count] for k, a, b in cuts])
                    both = (both * (level - top).exp()[..., None]).sum(0)
                    terms.append(both @ parent.T)
                    scales.append(top[..., None] + mass)
                peak = torch.stack(scales).detach().amax(0)
                total = sum(t * (s - peak).exp() for t, s in zip(terms, scales, strict=True))
                log = safe_log(total) + peak
            if spans is not None:
                log = log + spans.diagonal(width, 1, 2).T[..., None]
            top = log.detach().amax(2)
            value = (log - top[..., None]).exp()
            values.append((value, top, value @ left.T, value @ right.T))
            logs.append(log)
        chart = mass.new_full((batch, n, n + 1, labels), IMPOSSIBLE)
        for width, log in enumerate(logs, 2):
            chart.diagonal(width, 1, 2).copy_(log.permute(1, 2, 0))
        return chart.masked_fill(beyond(n, potentials.lengths)[..., None], IMPOSSIBLE)

"""What spans are nearly worth where rules depend on the context, from a context-free chart."""

from __future__ import annotations

from functools import singledispatch

import torch
from torch import Tensor

from gfnem.parsing.inference.potentials import IMPOSSIBLE, Potentials, full_precision, safe_log
from gfnem.parsing.inference.rule_potentials import RulePotentials
from gfnem.parsing.policies.encoder import span_list


@torch.no_grad()
def expanded(potentials: Potentials, chart: Tensor) -> Tensor:
    """Every span and label expanded once by its own rules, its children worth what `chart` says.

    `V[i, j, p, A] = log sum_{k, B, C} R[p, A, B, C] exp(chart[i, k, B] + chart[k, j, C])`: one step
    of the recursion of `inside` with children that do not know their context, so splits are summed
    once for all labels and all widths at a time. Exact where no rule depends on the context, and
    for spans of two words.

    Args:
        potentials: the rules' weights.
        chart: `(batch, n, n + 1, N)` log values in nats, such as the inside values of the rules'
            average over the contexts.

    Returns:
        `(batch, n, n + 1, K, N)` nats, `[b, i, j, k, A]`. `IMPOSSIBLE` where `[i, j)` is shorter
        than two words or passes the sentence's end.
    """
    with full_precision(potentials.root):
        return one_step(potentials, chart)


@singledispatch
def one_step(potentials: RulePotentials, chart: Tensor) -> Tensor:
    """What `expanded` returns, as it is computed where rules are a dense table."""
    (batch, n), shape = potentials.words.shape[:2], (potentials.labels, potentials.contexts)
    starts, ends = span_list(n, chart.device)
    peaks = chart.amax(3)
    values = (chart - peaks[..., None]).exp()
    logs = torch.stack(
        [
            _two_phrases(potentials, values, peaks, starts, ends),
            _leaf_left(potentials, values, peaks)[:, starts, ends],
            _leaf_right(potentials, values, peaks)[:, starts, ends],
        ]
    ).logsumexp(0)
    width = ends - starts
    if n > 1:
        pairs = potentials.both_leaves.transpose(2, 3).flatten(2)
        pairs = pairs[:, starts.clamp(max=n - 2)]
        logs = torch.where((width == 2)[:, None], pairs, logs)
    outside = (width < 2) | (ends > potentials.lengths[:, None])
    logs = logs.masked_fill(outside[..., None], IMPOSSIBLE)
    whole = logs.new_full((batch, n, n + 1, *shape), IMPOSSIBLE)
    whole[:, starts, ends] = logs.unflatten(2, shape)
    return whole.transpose(3, 4)


def _two_phrases(potentials, values: Tensor, peaks: Tensor, starts: Tensor, ends: Tensor) -> Tensor:
    """`(batch, spans, A * K)` nats of rules both of whose children are two words or more."""
    rules = potentials.rules.permute(1, 0, 2, 3).flatten(0, 1).flatten(1)  # A * K, B * C
    tops = rules.amax(1)
    rules = (rules - tops[:, None]).exp()
    # children that end, or begin, at 1, 2, ..., n - 1; others than splits weigh nothing
    first, second = values[:, starts, 1:-1], values[:, 1:, ends].transpose(1, 2)
    scale = peaks[:, starts, 1:-1] + peaks[:, 1:, ends].transpose(1, 2)
    if not scale.shape[2]:
        return scale.new_full((*scale.shape[:2], len(tops)), IMPOSSIBLE)
    top = scale.amax(2, keepdim=True)
    first = first * (scale - top).exp()[..., None]
    pairs = (first.transpose(2, 3) @ second).flatten(2)
    return safe_log(pairs @ rules.T) + tops + top


def _by_word(potentials: RulePotentials, table: Tensor) -> tuple[Tensor, Tensor]:
    """Rules with one word, for each word: `(batch, n, C, A * K)` in exp space, and their log scale.

    Args:
        table: `(K, A, T, C)` rules in nats; `T` is the preterminal, `C` the other child.
    """
    words, peaks = potentials.word_weights  # G, n, batch, T
    weights, tops = potentials.by_group(table)
    found = (words.flatten(1, 2) @ weights).unflatten(2, (-1, tops.shape[2]))
    found = found.unflatten(1, words.shape[1:3]).permute(2, 1, 3, 0, 4)
    scale = (peaks[..., None] + tops[:, None]).permute(2, 1, 0, 3)
    return found.flatten(3), scale.flatten(2)


def _leaf_left(potentials: RulePotentials, values: Tensor, peaks: Tensor) -> Tensor:
    """`(batch, n, n + 1, A * K)` nats of rules whose left child is the first word of a span.

    Args:
        values, peaks: `(batch, n, n + 1, C)` and `(batch, n, n + 1)` of the chart.
    """
    rules, scale = _by_word(potentials, potentials.word_first)
    # the other child begins one word later; behind the last word nothing does
    values = torch.nn.functional.pad(values[:, 1:], (0, 0, 0, 0, 0, 1))
    peaks = torch.nn.functional.pad(peaks[:, 1:], (0, 0, 0, 1), value=IMPOSSIBLE)
    return safe_log(values @ rules) + scale[:, :, None] + peaks[..., None]


def _leaf_right(potentials: RulePotentials, values: Tensor, peaks: Tensor) -> Tensor:
    """The same where the right child is the last word."""
    rules, scale = _by_word(potentials, potentials.word_second)
    # [b, j - 1, i]: spans that end before the word `j - 1`
    values, peaks = values[:, :, :-1].transpose(1, 2), peaks[:, :, :-1].transpose(1, 2)
    logs = safe_log(values @ rules) + scale[:, :, None] + peaks[..., None]
    return torch.nn.functional.pad(logs.transpose(1, 2), (0, 0, 1, 0), value=IMPOSSIBLE)

"""What spans are nearly worth where rules depend on the parent, from a context-free chart."""

from __future__ import annotations

import torch
from torch import Tensor

from gfnem.parsing.inference.parent_potentials import ParentPotentials
from gfnem.parsing.inference.potentials import IMPOSSIBLE, full_precision, safe_log
from gfnem.parsing.policies.encoder import span_list


@torch.no_grad()
def expanded(potentials: ParentPotentials, chart: Tensor) -> Tensor:
    """Every span and label expanded once by its own rules, its children worth what `chart` says.

    `V[i, j, P, A] = log sum_{k, B, C} R[P, A, B, C] exp(chart[i, k, B] + chart[k, j, C])`: one step
    of the recursion of `parent_inside` with children that do not know their parent, so splits are
    summed once for all labels and all widths at a time. Exact where no rule depends on the parent,
    and for spans of two words.

    Args:
        potentials: the rules' weights.
        chart: `(batch, n, n + 1, N)` log values in nats, such as the inside values of the rules'
            average over the parents.

    Returns:
        `(batch, n, n + 1, N + 1, N)` nats, `[b, i, j, P, A]`. `IMPOSSIBLE` where `[i, j)` is
        shorter than two words or passes the sentence's end.
    """
    with full_precision(potentials.rules):
        (batch, n), labels = potentials.words.shape[:2], potentials.labels
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
        whole = logs.new_full((batch, n, n + 1, labels, labels + 1), IMPOSSIBLE)
        whole[:, starts, ends] = logs.unflatten(2, (labels, labels + 1))
        return whole.transpose(3, 4)


def _two_phrases(potentials, values: Tensor, peaks: Tensor, starts: Tensor, ends: Tensor) -> Tensor:
    """`(batch, spans, A * P)` nats of rules both of whose children are two words or more."""
    rules = potentials.rules.permute(1, 0, 2, 3).flatten(0, 1).flatten(1)  # A * P, B * C
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


def _by_word(potentials: ParentPotentials, table: Tensor) -> tuple[Tensor, Tensor]:
    """Rules with one word, for each word: `(batch, n, C, A * P)` in exp space, and their log scale.

    Args:
        table: `(P, A, T, C)` rules in nats; `T` is the preterminal, `C` the other child.
    """
    words, peaks = potentials.word_weights  # A, batch, n, T
    table = table.permute(1, 2, 3, 0)  # A, T, C, P
    tops = table.amax((1, 2))
    weights = (table - tops[:, None, None]).exp().flatten(2)
    found = (words.flatten(1, 2) @ weights).unflatten(2, (-1, table.shape[3]))
    found = found.permute(1, 2, 0, 3).flatten(2).unflatten(0, words.shape[1:3])
    scale = peaks.permute(1, 2, 0)[..., None] + tops
    return found, scale.flatten(2)


def _leaf_left(potentials: ParentPotentials, values: Tensor, peaks: Tensor) -> Tensor:
    """`(batch, n, n + 1, A * P)` nats of rules whose left child is the first word of a span.

    Args:
        values, peaks: `(batch, n, n + 1, C)` and `(batch, n, n + 1)` of the chart.
    """
    rules, scale = _by_word(potentials, potentials.word_first)
    # the other child begins one word later; behind the last word nothing does
    values = torch.nn.functional.pad(values[:, 1:], (0, 0, 0, 0, 0, 1))
    peaks = torch.nn.functional.pad(peaks[:, 1:], (0, 0, 0, 1), value=IMPOSSIBLE)
    return safe_log(values @ rules) + scale[:, :, None] + peaks[..., None]


def _leaf_right(potentials: ParentPotentials, values: Tensor, peaks: Tensor) -> Tensor:
    """The same where the right child is the last word."""
    rules, scale = _by_word(potentials, potentials.word_second)
    # [b, j - 1, i]: spans that end before the word `j - 1`
    values, peaks = values[:, :, :-1].transpose(1, 2), peaks[:, :, :-1].transpose(1, 2)
    logs = safe_log(values @ rules) + scale[:, :, None] + peaks[..., None]
    return torch.nn.functional.pad(logs.transpose(1, 2), (0, 0, 1, 0), value=IMPOSSIBLE)

"""The inside algorithm on given bracketings, height after height, its gradient written out."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from gfnem.parsing.inference.potentials import (
    Potentials,
    full_precision,
    safe_log,
    safe_over,
)


@dataclass
class Height:
    """Different nodes of one height, by the kind of their children.

    Those with a word on the left come first, then those with a word on the right, then those with
    two phrases. Above two words all are of one kind, and have `left` alone.

    Attributes:
        first, second: `(count,)` int64 children's places among all nodes; -1 for a word.
        left, last: `(count,)` int64 first and last word, as rows of the words' tables.
        sizes: how many of each kind.
    """

    first: Tensor
    second: Tensor
    left: Tensor
    last: Tensor
    sizes: list[int]

    def of_rows(self, place: Tensor) -> Height:
        """The same with other rows for words, of which `(words,)` says where they stand."""
        rows = (place.index_select(0, word) for word in (self.left, self.last))
        return Height(self.first, self.second, *rows, self.sizes)

    def beside_words(self) -> list[tuple[slice, Tensor, Tensor]]:
        """Of the first two kinds: where they stand, their words, and the other children."""
        one, two, _ = self.sizes
        left, right = slice(0, one), slice(one, one + two)
        return [
            (left, self.left[left], self.second[left]),
            (right, self.last[right], self.first[right]),
        ]

    def phrases(self) -> tuple[slice, Tensor, Tensor]:
        """Of the last kind: where they stand, and both children."""
        part = slice(len(self.first) - self.sizes[2], None)
        return part, self.first[part], self.second[part]


def node_values(potentials: Potentials, heights: list[Height]) -> Tensor:
    """`(nodes, N)` log weights of nodes under each label, height after height.

    Args:
        potentials: of rules that are a table and do not look at parents.
        heights: different nodes of trees, from the lowest on.
    """
    rules = potentials.rules[0]
    tops = rules.detach().amax((1, 2))
    rules = (rules - tops[:, None, None]).exp().permute(1, 2, 0).flatten(1)
    tables, place = potentials.leaf_rows
    leaves, scales = zip(*((part.squeeze(1) for part in table) for table in tables), strict=True)
    pairs = potentials.both_leaves.squeeze(2).transpose(0, 1).flatten(0, 1)
    if place is not None:
        heights = [heights[0], *(height.of_rows(place) for height in heights[1:])]
    return _Upwards.apply(rules, *leaves, pairs, tops, scales, heights)


class _Upwards(torch.autograd.Function):
    """Values from the words upwards.

    Of `rules` `(N, N * N)`, `[B, C * N + A]`, of two phrases, and two `leaves` `(words, N, N)`,
    `[w, A, C]`, of a word on one side, in exp space over maxima whose logs are `tops` `(N,)` and
    `scales` `(words, N)`; and `pairs` `(words, N)` nats of nodes above two words, by the first.
    """

    @staticmethod
    def forward(ctx, rules, left, right, pairs, tops, scales, heights):
        with full_precision(rules):
            return _Upwards.upwards(ctx, rules, (left, right), pairs, tops, scales, heights)

    @staticmethod
    def upwards(ctx, rules, leaves, pairs, tops, scales, heights: list[Height]) -> Tensor:
        logs = _scales(leaves, tops, scales, heights)
        values, peaks = torch.empty_like(logs), logs.new_zeros(len(logs) + 1)  # and one for words
        steps, start, labels = [], len(heights[0].first), len(tops)
        torch.index_select(pairs, 0, heights[0].left, out=logs[:start])
        _relative(logs[:start], values[:start], peaks[:start])
        for height in heights[1:]:
            totals = pairs.new_empty(len(height.first), labels)
            for (part, word, child), leaf in zip(height.beside_words(), leaves, strict=True):
                if len(word):
                    value = values.index_select(0, child)[..., None]
                    torch.bmm(leaf.index_select(0, word), value, out=totals[part, :, None])
            part, first, second = height.phrases()
            halves = None
            if len(first):
                half = values.index_select(0, first) @ rules
                halves = half.view(len(first), labels, labels)
                other = values.index_select(0, second)
                torch.bmm(other[:, None], halves, out=totals[part, None])
            steps.append((safe_over(totals), halves))
            at = slice(start, start + len(totals))
            start = at.stop
            log = logs[at].add_(safe_log(totals))
            log.add_((peaks[height.first] + peaks[height.second])[:, None])
            _relative(log, values[at], peaks[at])
        ctx.kept = rules, leaves, len(pairs), values, steps, heights
        return logs

    @staticmethod
    def backward(ctx, gradient: Tensor):
        with full_precision(gradient):
            return *_Upwards.downwards(ctx, gradient.clone()), None, None, None

    @staticmethod
    def downwards(ctx, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        rules, leaves, words, values, steps, heights = ctx.kept
        of_rules, of_leaves = torch.zeros_like(rules), [torch.zeros_like(leaf) for leaf in leaves]
        of_pairs = gradient.new_zeros(words, gradient.shape[1])
        end = len(gradient)
        for height, (over, halves) in zip(reversed(heights[1:]), reversed(steps), strict=True):
            end -= len(height.first)
            found = gradient[end : end + len(height.first)] * over
            for (part, word, child), leaf, of_leaf in zip(
                height.beside_words(), leaves, of_leaves, strict=True
            ):
                if not len(word):
                    continue
                value, share = values.index_select(0, child), found[part]
                of_leaf.index_add_(0, word, share[:, :, None] * value[:, None])
                below = torch.bmm(share[:, None], leaf.index_select(0, word)).squeeze(1)
                gradient.index_add_(0, child, below * value)
            part, first, second = height.phrases()
            if halves is None:
                continue
            share = found[part]
            one, other = (values.index_select(0, child) for child in (first, second))
            to_other = torch.bmm(halves, share[..., None]).squeeze(2)
            of_half = (other[:, :, None] * share[:, None]).flatten(1)
            of_rules.addmm_(one.T, of_half)
            gradient.index_add_(0, first, (of_half @ rules.T) * one)
            gradient.index_add_(0, second, to_other * other)
        of_pairs.index_add_(0, heights[0].left, gradient[:end])
        return of_rules, *of_leaves, of_pairs


def _scales(
    leaves: tuple[Tensor, Tensor], tops: Tensor, scales: list[Tensor], heights: list[Height]
) -> Tensor:
    """`(nodes, N)` log scales that nodes' rules are relative to; above two words, anything."""
    left, right = (len(leaf) for leaf in leaves)
    table = torch.cat([*scales, tops[None]])
    names = [torch.zeros_like(heights[0].left)]
    for height in heights[1:]:
        one, two, rest = height.sizes
        phrases = height.left.new_full((rest,), left + right)
        names += [height.left[:one], height.last[one : one + two] + left, phrases]
    return table.index_select(0, torch.cat(names))


def _relative(logs: Tensor, values: Tensor, peaks: Tensor) -> None:
    """`relative` of `(count, N)` logs, written to `(count, N)` values and `(count,)` peaks."""
    torch.amax(logs, -1, out=peaks)
    torch.sub(logs, peaks[:, None], out=values).exp_()

"""Exact inference where each sentence has rules of its own.

The rules are a dense table with a leading axis of sentences, `R[b, A, B, C]`, under one context.
Everything follows as in `inside`, `choices` and `bracketing`, with one matrix product for each
sentence where these have one for all; they are extended here to such potentials.
"""

from __future__ import annotations

import torch
from torch import Tensor

from gfnem.parsing.inference.bracketing import blocks_of, by_kind
from gfnem.parsing.inference.expansion import one_step
from gfnem.parsing.inference.inside import beyond, inside_pass
from gfnem.parsing.inference.one_context import OneContext
from gfnem.parsing.inference.potentials import (
    IMPOSSIBLE,
    full_precision,
    held,
    kept,
    relative,
    safe_log,
)
from gfnem.parsing.inference.rule_potentials import RulePotentials
from gfnem.parsing.inference.viterbi import BackPointers, viterbi_pass


class SentencePotentials(OneContext):
    """The potentials of a context-free grammar for each sentence.

    Attributes:
        start: `(batch, N + T)` log weights of the start symbol's child.
        productions: `(batch, N, N + T, N + T)`, `[b, A, B, C]` for A -> B C.
        words: `(batch, n, T)` log weight of each word under each preterminal.
        lengths: `(batch,)` int64 sentence lengths in tokens.
        origin: the same weights with gradient, whose tables then serve both.
    """

    def __init__(
        self,
        start: Tensor,
        productions: Tensor,
        words: Tensor,
        lengths: Tensor,
        origin: SentencePotentials | None = None,
    ):
        self.start, self.productions, self.words = start, productions, words
        self.lengths, self.origin = lengths, origin

    @classmethod
    def from_tables(
        cls, root: Tensor, rules: Tensor, words: Tensor, lengths: Tensor
    ) -> SentencePotentials:
        """Checks tables, whose entries may be minus infinity (see the attributes).

        Raises:
            ValueError: if the shapes do not agree.
        """
        batch, labels = rules.shape[:2]
        symbols = labels + words.shape[2]
        if root.shape != (batch, symbols) or rules.shape[2:] != (symbols, symbols):
            raise ValueError(
                f"root {tuple(root.shape)}, rules {tuple(rules.shape)} and words "
                f"{tuple(words.shape)} do not fit each other"
            )
        return cls(*held(root, rules, words), lengths)

    def detach(self) -> SentencePotentials:
        """The same weights without gradient."""
        tables = (self.start, self.productions, self.words)
        return SentencePotentials(*(table.detach() for table in tables), self.lengths, self)

    def double(self) -> SentencePotentials:
        """See `Potentials`."""
        tables = (self.start, self.productions, self.words)
        return SentencePotentials(*(table.double() for table in tables), self.lengths)

    def alone(self, row: int) -> RulePotentials:
        """Those of one sentence."""
        words = self.words[row : row + 1, :, None]
        productions = self.productions[row][None]
        return RulePotentials(self.start[row], productions, words, self.lengths[row : row + 1])

    @property
    def labels(self) -> int:
        """The number `N` of nonterminals."""
        return self.productions.shape[1]

    @kept
    def rules(self) -> Tensor:
        """`(batch, N, N, N)`."""
        return self.productions[:, :, : self.labels, : self.labels].contiguous()

    def phrase_mass(self) -> Tensor:
        """See `Potentials`."""
        return self.rules.logsumexp((2, 3))

    def rules_of(self, symbol: Tensor, row: Tensor) -> Tensor:
        """See `Potentials`."""
        return row * self.labels + symbol

    def heads(self, row: Tensor, first: Tensor, second: Tensor) -> Tensor:
        """See `Potentials`."""
        return self.rules.permute(0, 2, 3, 1)[row, first, second]

    @kept
    def leaf_tables(self) -> tuple[Tensor, Tensor]:
        """See `Potentials`."""
        if self.origin is not None:
            with torch.enable_grad():
                return tuple(table.detach() for table in self.origin.leaf_tables)
        labels = self.labels
        first = self.productions[:, :, labels:, :labels]
        return self._one_leaf(first), self._one_leaf(self.productions[:, :, :labels, labels:].mT)

    def _one_leaf(self, table: Tensor) -> Tensor:
        with full_precision(table):
            words, peaks = self.word_weights
            table = table.transpose(1, 2)  # batch, T, A, C
            tops = table.detach().amax(1, keepdim=True)
            logs = safe_log(words @ (table - tops).exp().flatten(2))
            logs = logs + peaks[..., None] + tops.flatten(2)
            return logs.unflatten(2, (self.labels, 1, -1)).transpose(0, 1)

    @kept
    def both_leaves(self) -> Tensor:
        """See `Potentials`."""
        if self.origin is not None:
            with torch.enable_grad():
                return self.origin.both_leaves.detach()
        with full_precision(self.productions):
            words, peaks = self.word_weights
            table = self.productions[:, :, self.labels :, self.labels :].permute(0, 2, 3, 1)
            tops = table.detach().amax((1, 2), keepdim=True)
            half = words[:, :-1] @ (table - tops).exp().flatten(2)
            half = half.unflatten(2, (-1, self.labels))
            both = safe_log((words[:, 1:, None] @ half).squeeze(2))
            return (both + (peaks[:, :-1] + peaks[:, 1:])[..., None] + tops[:, :, 0]).unsqueeze(2)

    def word_sides(self) -> list[Tensor]:
        """See `Potentials`."""
        return [table.logsumexp((3, 4)).transpose(0, 1) for table in self.leaf_tables]


@inside_pass.register(SentencePotentials)
def _(potentials: SentencePotentials, extra: Tensor | None) -> Tensor:
    n, labels, both = potentials.max_length, potentials.labels, potentials.both_leaves
    (left, left_peaks), (right, right_peaks) = (
        (weights.squeeze(2).transpose(0, 1), peaks.squeeze(2).transpose(0, 1))
        for weights, peaks in potentials.leaf_weights
    )
    rules, rule_peaks = relative(potentials.rules.flatten(2))  # batch, A, B * C
    chart = rules.new_full((len(rules), n, n + 1, labels), IMPOSSIBLE)
    # of each width from 2: values of spans `(batch, starts, N)` over their largest, and its log
    values, peaks = [both] * 2, [both] * 2
    for width in range(2, n + 1):
        count = n - width + 1
        if width == 2:
            log = both.squeeze(2)
        else:
            last, level = values[width - 1][..., None], peaks[width - 1][..., None]
            terms = [
                (left[:, :count] @ last[:, 1:]).squeeze(3),
                (right[:, width - 1 :] @ last[:, :count]).squeeze(3),
            ]
            scales = [
                left_peaks[:, :count] + level[:, 1:],
                right_peaks[:, width - 1 :] + level[:, :count],
            ]
            if width > 3:
                splits = range(2, width - 1)
                first, first_peaks = (
                    torch.stack([table[split][:, :count] for split in splits], 2)
                    for table in (values, peaks)
                )
                second, second_peaks = (
                    torch.stack([table[width - split][:, split:] for split in splits], 2)
                    for table in (values, peaks)
                )
                level = first_peaks + second_peaks
                top = level.amax(2, keepdim=True)
                first = first * (level - top).exp()[..., None]
                terms.append((first.mT @ second).flatten(2) @ rules.mT)
                scales.append(top + rule_peaks[:, None])
            peak = torch.stack(scales).amax(0)
            total = sum(t * (s - peak).exp() for t, s in zip(terms, scales, strict=True))
            log = safe_log(total) + peak
        if extra is not None:
            log = log + extra.diagonal(width, 1, 2).mT
        chart.diagonal(width, 1, 2).copy_(log.mT)
        for table, part in zip((values, peaks), relative(log), strict=True):
            table.append(part)
    return chart.masked_fill(beyond(n, potentials.lengths)[..., None], IMPOSSIBLE).unsqueeze(3)


@one_step.register(SentencePotentials)
def _(potentials: SentencePotentials, chart: Tensor) -> Tensor:
    rows = range(len(chart))
    return torch.cat([one_step(potentials.alone(row), chart[row : row + 1]) for row in rows])


@viterbi_pass.register(SentencePotentials)
def _(potentials: SentencePotentials, spans: Tensor) -> tuple[Tensor, BackPointers]:
    rows = range(len(spans))
    found = [viterbi_pass(potentials.alone(row), spans[row : row + 1]) for row in rows]

    def back(row: Tensor, left: Tensor, right: Tensor, context: Tensor, label: Tensor):
        choices = torch.zeros(3, len(row), dtype=torch.long, device=row.device)
        for each in row.unique().tolist():
            at = (row == each).nonzero().squeeze(1)
            nodes = (left[at], right[at], context[at], label[at])
            choices[:, at] = torch.stack(found[each][1](torch.zeros_like(at), *nodes))
        return tuple(choices)

    return torch.cat([best for best, _ in found]), back


@blocks_of.register(SentencePotentials)
class _SentenceBlocks:
    """See `Blocks`. Nodes are laid out by their sentences."""

    def __init__(self, potentials: SentencePotentials):
        self.batch = len(potentials.lengths)
        self.both_leaves = potentials.both_leaves.transpose(0, 1).flatten(0, 1)
        self.leaves = [
            (weights.flatten(0, 2), peaks.flatten(0, 2))
            for weights, peaks in potentials.leaf_weights
        ]
        rules = potentials.rules.permute(0, 2, 3, 1)  # batch, B, C, A
        self.tops = rules.detach().amax((1, 2))
        self.rules = (rules - self.tops[:, None, None]).exp().flatten(2)

    def value(
        self, first: Tensor, second: Tensor, left: Tensor, last: Tensor, below: Tensor | None
    ) -> Tensor:
        """See `Blocks`."""
        if below is None:
            return self.both_leaves.index_select(0, left).transpose(0, 1)
        values = below[0]
        return by_kind(
            first,
            second,
            0,
            lambda some: self._inner(left[some] % self.batch, values, first[some], second[some]),
            lambda some: self._leaf(0, left[some], values, second[some]),
            lambda some: self._leaf(1, last[some], values, first[some]),
        ).unsqueeze(0)

    def _leaf(self, side: int, word: Tensor, below: Tensor, child: Tensor) -> Tensor:
        weights, tops = (table.index_select(0, word) for table in self.leaves[side])
        values, peaks = relative(below.index_select(0, child))
        return safe_log((weights @ values[..., None]).squeeze(2)) + peaks[:, None] + tops

    def _inner(self, row: Tensor, below: Tensor, first: Tensor, second: Tensor) -> Tensor:
        if not len(row):
            return below[:0]
        counts = row.bincount(minlength=self.batch)
        order, most = row.argsort(stable=True), int(counts.max())
        rank = torch.arange(len(row), device=row.device) - (counts.cumsum(0) - counts)[row[order]]
        slot = torch.empty_like(row)
        slot[order] = row[order] * most + rank

        def laid_out(child: Tensor) -> tuple[Tensor, Tensor]:
            values, peaks = relative(below.index_select(0, child))
            whole = values.new_zeros(self.batch * most, values.shape[1])
            return whole.index_copy(0, slot, values).unflatten(0, (self.batch, most)), peaks

        (one, peaks), (other, more) = laid_out(first), laid_out(second)
        half = (one @ self.rules).unflatten(2, (other.shape[2], -1))
        total = (other[:, :, None] @ half).squeeze(2).flatten(0, 1).index_select(0, slot)
        return safe_log(total) + (peaks + more)[:, None] + self.tops.index_select(0, row)

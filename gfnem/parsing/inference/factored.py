"""Exact inference where a rule's two children are chosen apart.

The weight of `A -> B C` is `L[A, B] R[A, C]` (Liu et al., 2023, "Simple hardware-efficient PCFGs
with independent left and right productions", section 3). A span, a word too, then has a weight as
left and as right child of each label, `l[i, k, A] = sum_B L[A, B] I[i, k, B]` and likewise `r`, and

    I[i, j, A] = sum_k l[i, k, A] r[k, j, A]:

`n^3 N + n^2 N^2` steps, and no table with a cell for each pair of children. The rest follows as in
`inside`, `choices` and `bracketing`, which are extended here to such potentials.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import embedding, pad

from gfnem.parsing.inference.bracketing import blocks_of
from gfnem.parsing.inference.choices import Options, RuleChoices, options_of
from gfnem.parsing.inference.expansion import one_step
from gfnem.parsing.inference.inside import (
    beyond,
    inside_pass,
)
from gfnem.parsing.inference.nodes import Nodes
from gfnem.parsing.inference.one_context import OneContext
from gfnem.parsing.inference.potentials import (
    IMPOSSIBLE,
    BesideWords,
    full_precision,
    held,
    kept,
    relative,
    safe_log,
    safe_over,
)
from gfnem.parsing.inference.viterbi import BackPointers, viterbi_pass

#: how many numbers the best children of spans are looked for in at once
_CELLS = 2**24


class FactoredPotentials(OneContext):
    """The potentials of a context-free grammar whose rules choose their two children apart.

    Attributes:
        start: `(N + T,)` log weights of the start symbol's child.
        left, right: `(N, N + T)` log weights of each label's left and of its right child.
        words: `(batch, n, T)` log weight of each word under each preterminal.
        lengths: `(batch,)` int64 sentence lengths in tokens.
        origin: the same weights with gradient, whose tables then serve both.
    """

    def __init__(
        self,
        start: Tensor,
        left: Tensor,
        right: Tensor,
        words: Tensor,
        lengths: Tensor,
        origin: FactoredPotentials | None = None,
    ):
        self.start, self.left, self.right = start, left, right
        self.words, self.lengths, self.origin = words, lengths, origin

    @classmethod
    def from_tables(
        cls, root: Tensor, left: Tensor, right: Tensor, words: Tensor, lengths: Tensor
    ) -> FactoredPotentials:
        """Checks a grammar's tables, whose entries may be minus infinity (see the attributes).

        Raises:
            ValueError: if the shapes do not agree.
        """
        (labels, symbols), preterminals = left.shape, words.shape[-1]
        if (
            right.shape != left.shape
            or root.shape != (symbols,)
            or symbols != labels + preterminals
        ):
            raise ValueError(
                f"left {tuple(left.shape)} and right children {tuple(right.shape)} do not fit root "
                f"{tuple(root.shape)} and words {tuple(words.shape)}"
            )
        return cls(*held(root, left, right, words), lengths)

    def detach(self) -> FactoredPotentials:
        """The same weights without gradient."""
        tables = (self.start, self.left, self.right, self.words)
        return FactoredPotentials(*(table.detach() for table in tables), self.lengths, self)

    def double(self) -> FactoredPotentials:
        """See `Potentials`."""
        tables = (self.start, self.left, self.right, self.words)
        return FactoredPotentials(*(table.double() for table in tables), self.lengths)

    @property
    def labels(self) -> int:
        """The number `N` of nonterminals."""
        return self.left.shape[0]

    @kept
    def rules(self) -> Tensor:
        """See `Potentials`; for small grammars and for tests."""
        left, right = self.inner
        return (left[:, :, None] + right[:, None])[None]

    @property
    def inner(self) -> tuple[Tensor, Tensor]:
        """Two `(N, N)`: log weights of children of two words or more."""
        return self.left[:, : self.labels], self.right[:, : self.labels]

    def phrase_mass(self) -> Tensor:
        """See `Potentials`."""
        left, right = self.inner
        return left.logsumexp(1) + right.logsumexp(1)

    def children(self) -> tuple[Tensor, Tensor]:
        """See `Potentials`."""
        return self.left, self.right

    @kept
    def leaves(self) -> tuple[Tensor, Tensor]:
        """Two `(batch, n, N)`: log weights of each word as left and as right child of labels."""
        if self.origin is not None:
            with torch.enable_grad():
                return tuple(table.detach() for table in self.origin.leaves)
        with full_precision(self.words):
            words, peaks = self.word_weights
            tables = (table[:, self.labels :] for table in (self.left, self.right))
            return tuple(_children(words, peaks, table) for table in tables)

    @property
    def both_leaves(self) -> Tensor:
        """See `Potentials`."""
        first, second = self.leaves
        return (first[:, :-1] + second[:, 1:]).unsqueeze(2)

    def beside_words(self) -> list[BesideWords]:
        """See `Potentials`."""

        def beside(leaf: Tensor, other: Tensor) -> BesideWords:
            top = other.detach().amax(1)
            return BesideWords((other - top[:, None]).exp(), leaf.transpose(0, 1) + top)

        left, right = self.inner
        return [beside(self.leaves[0], right), beside(self.leaves[1], left)]

    def edge_rules(self, symbol: Tensor, row: Tensor, first: Tensor, last: Tensor) -> Tensor:
        """See `Potentials`."""
        sides = zip((first, last), self.leaves, reversed(self.inner), strict=True)
        return torch.stack(
            [
                embedding(symbol, other)
                + leaf.flatten(0, 1)[row * self.max_length + word, symbol][:, None]
                for word, leaf, other in sides
            ]
        )

    def leaf_rule(self, symbol: Tensor, row: Tensor, word: Tensor, child: Tensor, side: int):
        """See `Potentials`."""
        place = (row * self.max_length + word) * self.labels + symbol
        own = self.leaves[side].flatten().index_select(0, place)
        return own + _entries(self.inner[1 - side], symbol, child)

    def rule(self, symbol: Tensor, row: Tensor, first: Tensor, second: Tensor) -> Tensor:
        """See `Potentials`."""
        left, right = self.inner
        return _entries(left, symbol, first) + _entries(right, symbol, second)

    def heads(self, row: Tensor, first: Tensor, second: Tensor) -> Tensor:
        """See `Potentials`."""
        left, right = self.inner
        return embedding(first, left.T) + embedding(second, right.T)

    def leaf_heads(self, row: Tensor, word: Tensor, child: Tensor, side: int) -> Tensor:
        """See `Potentials`."""
        return self.leaves[side][row, word] + embedding(child, self.inner[1 - side].T)

    def word_sides(self) -> tuple[Tensor, Tensor]:
        """See `Potentials`."""
        return self.leaves


def _children(values: Tensor, peaks: Tensor, table: Tensor) -> Tensor:
    """`(..., N)` nats: what values `(..., X)`, relative to `(...)`, weigh as a child of labels."""
    top = table.detach().amax()
    return safe_log(values @ (table - top).exp().T) + (peaks + top)[..., None]


def _entries(table: Tensor, row: Tensor, column: Tensor) -> Tensor:
    """`(count,)` entries of a table."""
    return table.flatten().index_select(0, row * table.shape[1] + column)


# ---------------------------------------------------------------------------------------- charts


@inside_pass.register(FactoredPotentials)
def _(potentials: FactoredPotentials, extra: Tensor | None) -> Tensor:
    tables = [*potentials.inner, *potentials.leaves, extra]
    if not torch.is_grad_enabled():
        tables = [table if table is None else table.detach() for table in tables]
    return _Inside.apply(*tables, potentials.lengths)


class _Inside(torch.autograd.Function):
    """The chart, and its gradient written out (see `inside._Inside`).

    Spans stand by start and width, as left children, and by end and falling width, as right ones:
    the splits of a span are slices of both. Both are in exp space, over each span's largest value.
    """

    @staticmethod
    def forward(ctx, left, right, first_leaf, second_leaf, extra, lengths):
        batch, n, labels = first_leaf.shape
        tops = left.amax(), right.amax()
        left, right = ((table - top).exp() for table, top in zip((left, right), tops, strict=True))
        starts, ends, values = left.new_zeros(3, n + 1, batch, n + 1, labels)
        start_peaks, end_peaks = left.new_zeros(2, n + 1, batch, n + 1)
        starts[:n, :, 1], start_peaks[:n, :, 1] = relative(first_leaf.transpose(0, 1))
        ends[1:, :, n - 1], end_peaks[1:, :, n - 1] = relative(second_leaf.transpose(0, 1))
        chart = left.new_full((batch, n, n + 1, 1, labels), IMPOSSIBLE)
        saves = any(ctx.needs_input_grad)
        steps = []  # of each width: the scale of each split, and one over the sum
        for width in range(2, n + 1):
            count = n - width + 1
            first, second = _splits(n, width, starts, ends)
            peaks = sum(_splits(n, width, start_peaks, end_peaks))
            top = peaks.amax(2, keepdim=True)
            scales = (peaks - top).exp_()[..., None]
            total = (first * scales * second).sum(2)
            log = safe_log(total).add_(top)
            if saves:
                steps.append((scales, safe_over(total)))
            if extra is not None:
                log = log + extra.diagonal(width, 1, 2).permute(2, 0, 1)
            chart.diagonal(width, 1, 2)[:, 0].copy_(log.permute(1, 2, 0))
            value, peak = relative(log)
            values[:count, :, width] = value
            starts[:count, :, width], ends[width:, :, n - width] = value @ left.T, value @ right.T
            start_peaks[:count, :, width] = peak + tops[0]
            end_peaks[width:, :, n - width] = peak + tops[1]
        outside = beyond(n, lengths)
        chart.masked_fill_(outside[..., None, None], IMPOSSIBLE)
        if saves:
            ctx.kept = left, right, starts, ends, values, steps, outside
        return chart

    @staticmethod
    def backward(ctx, gradient):
        with full_precision(gradient):
            return _Inside.outside(ctx, gradient)

    @staticmethod
    def outside(ctx, gradient):
        left, right, starts, ends, values, steps, outside = ctx.kept
        batch, n, _, _, labels = gradient.shape
        gradient = gradient.masked_fill(outside[..., None, None], 0).squeeze(3)
        wants_rules, wants_leaves, wants_extra = (ctx.needs_input_grad[at] for at in (0, 2, 4))
        # gradients in log weights of spans as left and as right children
        inner, outer = torch.zeros_like(starts), torch.zeros_like(ends)
        of_left, of_right = torch.zeros_like(left), torch.zeros_like(right)
        of_extra = gradient.new_zeros(batch, n, n + 1, labels) if wants_extra else None
        for width in range(n, 1, -1):
            count = n - width + 1
            found = gradient.diagonal(width, 1, 2).permute(2, 0, 1)
            if width < n:
                value = values[:count, :, width]
                as_left = inner[:count, :, width] * safe_over(starts[:count, :, width])
                as_right = outer[width:, :, n - width] * safe_over(ends[width:, :, n - width])
                found = found + value * (as_left @ left + as_right @ right)
                if wants_rules:
                    value = value.flatten(0, 1)
                    of_left.addmm_(as_left.flatten(0, 1).T, value)
                    of_right.addmm_(as_right.flatten(0, 1).T, value)
            if wants_extra:
                of_extra.diagonal(width, 1, 2).copy_(found.permute(1, 2, 0))
            scales, over = steps[width - 2]
            first, second = _splits(n, width, starts, ends)
            shares = (first * scales * second) * (found * over).unsqueeze(2)
            to_first, to_second = _splits(n, width, inner, outer)
            to_first += shares
            to_second += shares
        leaves = (None, None)
        if wants_leaves:
            leaves = inner[:n, :, 1].transpose(0, 1), outer[1:, :, n - 1].transpose(0, 1)
        return of_left.mul_(left), of_right.mul_(right), *leaves, of_extra, None


def _splits(n: int, width: int, by_start: Tensor, by_end: Tensor) -> list[Tensor]:
    """Left and right parts of every split of spans of a width: `(count, batch, splits, ...)`."""
    last = n - width + 1
    return [by_start[:last, :, 1:width], by_end[width:, :, last:n]]


@one_step.register(FactoredPotentials)
def _(potentials: FactoredPotentials, chart: Tensor) -> Tensor:
    n = potentials.max_length
    word, end = torch.arange(n, device=chart.device), torch.arange(n + 1, device=chart.device)
    values, peaks = relative(chart)
    sides = []  # what spans weigh as left and as right children; a word's chart says nothing
    for table, leaf in zip(potentials.inner, potentials.leaves, strict=True):
        side = _children(values, peaks, table)
        side[:, word, word + 1] = leaf
        sides.append(side)
    first, second = sides
    whole = chart.new_full(chart.shape, IMPOSSIBLE)
    for width in range(2, n + 1):
        start = word[: n - width + 1]
        middle = start[:, None] + end[1:width]
        both = first[:, start[:, None], middle] + second[:, middle, (start + width)[:, None]]
        whole[:, start, start + width] = both.logsumexp(2)
    return whole.masked_fill(beyond(n, potentials.lengths)[..., None], IMPOSSIBLE).unsqueeze(3)


@viterbi_pass.register(FactoredPotentials)
def _(potentials: FactoredPotentials, spans: Tensor) -> tuple[Tensor, BackPointers]:
    batch, n, labels = potentials.leaves[0].shape
    best = spans.new_full((batch, n, n + 1, 1, labels), IMPOSSIBLE)
    # of spans as left and as right children of labels: log weights, and the spans' own labels
    firsts, seconds = spans.new_full((2, batch, n + 1, n + 1, labels), IMPOSSIBLE)
    first_label, second_label = torch.zeros(
        2, batch, n + 1, n + 1, labels, dtype=torch.long, device=spans.device
    )
    split_at = torch.zeros_like(first_label)
    firsts.diagonal(1, 1, 2).copy_(potentials.leaves[0].transpose(1, 2))
    seconds.diagonal(1, 1, 2).copy_(potentials.leaves[1].transpose(1, 2))
    rows_at_once = max(1, _CELLS // labels**2)
    for width in range(2, n + 1):
        start = torch.arange(n - width + 1, device=spans.device)
        middle = start[:, None] + torch.arange(1, width, device=spans.device)
        both = firsts[:, start[:, None], middle] + seconds[:, middle, (start + width)[:, None]]
        scores, cut = both.max(2)
        scores = scores + spans[:, start, start + width].unsqueeze(2)
        best[:, start, start + width, 0] = scores
        split_at[:, start, start + width] = cut + 1 + start[:, None]
        for table, values, chosen in (
            (potentials.inner[0], firsts, first_label),
            (potentials.inner[1], seconds, second_label),
        ):
            rows = scores.reshape(-1, 1, labels).split(rows_at_once)
            found = [(part + table).max(2) for part in rows]
            values[:, start, start + width] = torch.cat([f.values for f in found]).view_as(scores)
            chosen[:, start, start + width] = torch.cat([f.indices for f in found]).view_as(cut)

    def back(row: Tensor, left: Tensor, right: Tensor, _: Tensor, label: Tensor):
        split = split_at[row, left, right, label]
        return split, first_label[row, left, split, label], second_label[row, split, right, label]

    return best, back


# ------------------------------------------------------------------------ choices and bracketings


@options_of.register(FactoredPotentials)
def _(potentials: FactoredPotentials, choices: RuleChoices):
    children = _Children(potentials, choices)
    return lambda choices, nodes, groups: _FactoredOptions(children, choices, nodes)


class _Children:
    """What all spans weigh as left and as right children, at the temperature of some choices.

    Args:
        potentials: the rules' weights.
        choices: with a chart of look-ahead values.

    Attributes:
        weights: two `(batch * (n + 1)^2 * N,)` log weights by sentence, start, end and label; two
            tables that have gradients if the look-ahead has.
        rules: two `(N, N)` children's weights in exp space, over each label's largest.
    """

    def __init__(self, potentials: FactoredPotentials, choices: RuleChoices):
        heat = choices.temperature
        batch, n, labels = potentials.leaves[0].shape
        self.n, self.labels = n, labels
        starts, ends = torch.triu_indices(n, n + 1, 2, device=potentials.words.device)
        row = torch.arange(batch, device=starts.device)[:, None]
        word = torch.arange(n, device=starts.device)
        tables = [table / heat for table in potentials.inner]
        self.rules = [relative(table)[0] for table in tables]
        place = pad(torch.zeros(n, n, dtype=torch.long, device=starts.device), (1, 0))
        place[word, word + 1] = word
        place[starts, ends] = n + torch.arange(len(starts), device=starts.device)
        self.place, self.spans = place.flatten(), n + len(starts)
        with torch.enable_grad():  # whoever asks first
            rows = choices.look((row * n + starts) * (n + 1) + ends)
            relative_values, peaks = rows.relative, rows.peaks
            self.weights = [
                torch.cat([leaf / heat, _children(relative_values, peaks, table)], 1).flatten()
                for leaf, table in zip(potentials.leaves, tables, strict=True)
            ]

    def entries(self, side: int, row: Tensor, left: Tensor, right: Tensor, label: Tensor) -> Tensor:
        """Log weights of spans as left or right children of labels; any shape."""
        span = row * self.spans + self.place[left * (self.n + 1) + right]
        place = span * self.labels + label
        return self.weights[side].index_select(0, place.flatten()).view(place.shape)


class _FactoredOptions(Options):
    """Options where children are chosen apart, given the split."""

    def __init__(self, children: _Children, choices: RuleChoices, nodes: Nodes):
        self._children, self._choices, self._nodes = children, choices, nodes
        column = torch.arange(int((nodes.right - nodes.left).max()) - 1, device=nodes.left.device)
        row, left, right, label = (
            part[:, None] for part in (nodes.row, nodes.left, nodes.right, nodes.label)
        )
        cut = torch.minimum(left + 1 + column, right - 1)
        scores = children.entries(0, row, left, cut, label)
        scores = scores + children.entries(1, row, cut, right, label)
        self.scores = scores.masked_fill(column > right - left - 2, -math.inf)

    def _child(self, side: int, at: Tensor, left: Tensor, right: Tensor) -> Tensor:
        nodes, names = self._nodes, self._choices.row(self._nodes[at], left, right)
        rules = self._children.rules[side]
        return embedding(nodes.label[at], rules) * self._choices.look(names).relative.squeeze(1)

    def children(
        self, at: Tensor, column: Tensor, draw: Callable[[Tensor], Tensor]
    ) -> tuple[Tensor, Tensor]:
        """See `Options`."""
        left, right = self._nodes.left[at], self._nodes.right[at]
        cut = left + 1 + column
        first = self._child(0, at, left[:, None], cut[:, None])
        return draw(first), draw(self._child(1, at, cut[:, None], right[:, None]))


@blocks_of.register(FactoredPotentials)
class _FactoredBlocks:
    """See `Blocks`."""

    def __init__(self, potentials: FactoredPotentials):
        self.tables = potentials.inner
        self.leaves = [leaf.transpose(0, 1).flatten(0, 1) for leaf in potentials.leaves]

    def value(
        self, first: Tensor, second: Tensor, left: Tensor, last: Tensor, below: Tensor | None
    ) -> Tensor:
        """See `Blocks`."""
        total = 0.0
        for side, (child, word) in enumerate(((first, left), (second, last))):
            known = self.leaves[side].index_select(0, word)
            inner = (child >= 0).nonzero().squeeze(1)
            if below is not None and len(inner):
                values, peaks = relative(below[0].index_select(0, child[inner]))
                found = _children(values, peaks, self.tables[side])
                known = known.index_copy(0, inner, found)
            total = total + known
        return total.unsqueeze(0)

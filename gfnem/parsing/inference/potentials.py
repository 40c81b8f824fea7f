"""Log weights of a batch's grammar rules, preterminals summed out."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import embedding, pad

from gfnem.fixed_shapes import fixed_shapes
from gfnem.offers import optional

#: The log weight, in nats, of what cannot happen: finite, so that no gradient is ever nan, and so
#: low that `exp` of it is 0 in single and in double precision.
IMPOSSIBLE = -1e4


#: nats that weights of one row may differ by in float32, whose smallest number is 87 below 1: two
#: of them are multiplied
APART = 40.0


def full_precision(tensor: Tensor):
    """A context in which autocast is off on `tensor`'s device: charts need float32."""
    return torch.autocast(tensor.device.type, enabled=False)


def at_least_float(tensor: Tensor) -> Tensor:
    """`tensor` itself, or its float32 copy where it is of half precision."""
    return tensor.float() if tensor.dtype in (torch.float16, torch.bfloat16) else tensor


def held(*tables: Tensor) -> list[Tensor]:
    """Tables of log weights, in float32 at least, none of them below `IMPOSSIBLE`."""
    with full_precision(tables[0]):
        return [at_least_float(table).clamp(min=IMPOSSIBLE) for table in tables]


def relative(logs: Tensor) -> tuple[Tensor, Tensor]:
    """Weights over their largest along the last axis, in exp space, and the log of the largest.

    The latter is without gradient: what is made of both has the whole of it.
    """
    peaks = logs.detach().amax(-1)
    return (logs - peaks[..., None]).exp_(), peaks


def too_far_apart(logs: Tensor) -> bool:
    """Whether possible weights in a row, the last axis, differ by more than float32 can hold.

    The smaller ones are then lost, and may be those that count in the end. Not looked at where
    shapes are fixed, which no value may decide on.
    """
    if logs.dtype == torch.float64 or fixed_shapes(logs):
        return False
    logs = logs.detach()
    lowest = torch.where(logs > IMPOSSIBLE / 2, logs, torch.inf).amin(-1)
    return bool((logs.amax(-1) - lowest > APART).any())


def safe_log(weights: Tensor) -> Tensor:
    """Logarithm of non-negative weights, any shape, with finite values and gradients.

    A weight of exactly 0 becomes `IMPOSSIBLE` with gradient 0. Positive weights are held above
    the smallest normal number where there is a gradient, so that one over them does not overflow.
    """
    if not (weights.requires_grad and torch.is_grad_enabled()):
        return weights.log().clamp_(min=IMPOSSIBLE)  # a mask takes five times as long
    logs = weights.clamp(min=torch.finfo(weights.dtype).tiny).log()
    return logs.masked_fill(weights <= 0, IMPOSSIBLE)


def safe_over(weights: Tensor) -> Tensor:
    """1 over non-negative weights, any shape; 0 where they are 0. The derivative of `safe_log`.

    Without gradient.
    """
    return weights.reciprocal().nan_to_num_(nan=math.nan, posinf=0.0, neginf=0.0)


def first_of(numbers: Tensor) -> tuple[Tensor, Tensor]:
    """Where each different number stands, one place of it, and `(count,)` which of them each is."""
    different, which = numbers.unique(return_inverse=True)
    places = torch.arange(len(numbers), device=numbers.device)
    return torch.empty_like(different).scatter_(0, which, places), which


def groups_of(contexts: int) -> int:
    """The number of groups of labels where symbols stand under so many contexts."""
    return max(contexts - 1, 1)


#: how many numbers for each label there are in a word's profile
PROFILE = 4


@dataclass
class BesideWords:
    """What the other child of a word weighs as its parents, of rules under one context.

    Attributes:
        weights: `(n, batch, N, N)`, `[i, b, A, C]`, in exp space, of the rule of `A` with word `i`
            and the child `C`; `(N, N)` where it does not depend on the word.
        scale: `(n, batch, N)` the log scale that these are relative to.
    """

    weights: Tensor
    scale: Tensor

    def above(self, words: slice, values: Tensor) -> Tensor:
        """`(count, batch, N)` sums over children that have values `(count, batch, N)`."""
        if self.weights.dim() == 2:
            return values @ self.weights.T
        return (values[:, :, None] @ self.weights[words].mT).squeeze(2)

    def below(self, words: slice, gradient: Tensor) -> Tensor:
        """Gradient of the children, given that of their parents; shapes as in `above`."""
        if self.weights.dim() == 2:
            return gradient @ self.weights
        return (gradient[:, :, None] @ self.weights[words]).squeeze(2)


class Potentials:
    """Log weights of one batch's rules, preterminals summed out.

    The `N` labels (nonterminals) stand in `G` groups of `N / G` neighbours each. A symbol expands
    under one of `K` contexts, which is the group of its parent: the children of label `A` stand
    under context `A // (N / G)`. A context-free grammar has one group and one context; otherwise
    `K = G + 1`, and the last context is that of the symbol at the top. A label under a context is
    numbered `k * N + A`.

    Everything is in nats. The weights may be, but need not be, those of a normalised grammar. An
    event without any derivation has a weight of `IMPOSSIBLE` or lower, never minus infinity.

    Attributes:
        root: `(N,)` log p(A | start); `(batch, N)` where each sentence has rules of its own.
        rules: `(K, N, N, N)`, `[k, A, B, C]` for A -> B C under k, both children two words or more.
        leaf_tables: two `(n, batch, N, K, N)`, `[i, b, A, k, C]` = log sum_T p(A -> T C | k)
            p(w_i | T): the left child is word `i`; and the same where the right child is.
        both_leaves: `(batch, n - 1, K, N)`, `[b, i, k, A]` = log sum_{T, T'} p(A -> T T' | k)
            p(w_i | T) p(w_{i+1} | T').
        single: `(batch,)` log probability of the first word as a one-word sentence,
            log sum_T p(T | start) p(w_0 | T).
        lengths: `(batch,)` int64 sentence lengths in tokens.
    """

    root: Tensor
    rules: Tensor
    leaf_tables: tuple[Tensor, Tensor]
    both_leaves: Tensor
    single: Tensor
    lengths: Tensor

    @property
    def one_table(self) -> bool:
        """Whether rules are one table, the same for all sentences, and do not look at parents."""
        return self.contexts == 1

    @property
    def leaf_rows(self) -> tuple[list[tuple[Tensor, Tensor]], Tensor | None]:
        """The two `leaf_tables` in exp space, word by word.

        Each as `(rows, G, N / G * K, N)` weights and the `(rows, G, N / G * K)` log scale that they
        are relative to, without gradient; and `(n * batch,)` int64 which row word `i` of sentence
        `b` has, by `i * batch + b`, or None where rows are so numbered.
        """
        rows = (table.flatten(0, 1).unflatten(1, (self.groups, -1)) for table in self.leaf_tables)
        return [relative(table.flatten(2, 3)) for table in rows], None

    @property
    def leaf_weights(self) -> list[tuple[Tensor, Tensor]]:
        """`leaf_rows` of all words, for charts: `(n, batch, G, N / G * K, N)` and so on."""
        tables, place = self.leaf_rows
        shape = (self.max_length, len(self.lengths))
        return [
            tuple(
                (part if place is None else part.index_select(0, place)).unflatten(0, shape)
                for part in table
            )
            for table in tables
        ]

    def beside_words(self) -> list[BesideWords]:
        """Of words as left and as right child, under one context; see `BesideWords`."""
        return [BesideWords(*(part.squeeze(2) for part in pair)) for pair in self.leaf_weights]

    @property
    def labels(self) -> int:
        """The number `N` of nonterminals."""
        return self.root.shape[-1]

    @property
    def contexts(self) -> int:
        """The number `K` of contexts."""
        return self.rules.shape[0]

    @property
    def groups(self) -> int:
        """The number `G` of groups of labels."""
        return groups_of(self.contexts)

    @property
    def top(self) -> int:
        """The context of the symbol at the top."""
        return self.contexts - 1

    @property
    def max_length(self) -> int:
        """The padded width `n` of the batch, in tokens."""
        return self.both_leaves.shape[1] + 1

    @property
    def roots(self) -> Tensor:
        """`(batch, N)` nats: `root`, by sentence."""
        return self.root.expand(len(self.lengths), -1)

    def below(self, label: Tensor) -> Tensor:
        """The context of a label's children."""
        return label.div(self.labels // self.groups, rounding_mode="floor")

    def edge_rules(self, symbol: Tensor, row: Tensor, first: Tensor, last: Tensor) -> Tensor:
        """Log weights of the other child's label where one child is a given word.

        Args:
            symbol: `(count,)` int64, `k * N + A` of the node that is expanded.
            row: `(count,)` int64, its sentence.
            first, last: `(count,)` int64, the positions of a word that is the left child and of one
                that is the right child.

        Returns:
            `(2, count, N)` nats: the left child is a word, and the right one is.
        """
        places = self._leaf_row(symbol, row, torch.stack([first, last]))
        return torch.stack(
            [
                embedding(place, table.flatten(0, 3))
                for place, table in zip(places, self.leaf_tables, strict=True)
            ]
        )

    def leaf_rule(self, symbol: Tensor, row: Tensor, word: Tensor, child: Tensor, side: int):
        """`(count,)` nats: an entry of `edge_rules`, for one side, by the other child's label."""
        place = self._leaf_row(symbol, row, word) * self.labels + child
        return self.leaf_tables[side].flatten().index_select(0, place)

    def rules_of(self, symbol: Tensor, row: Tensor) -> Tensor:
        """Which entry of `rules`, its two leading axes taken as one, has the rules of a symbol.

        Args:
            symbol: int64, `k * N + A` of a node that is expanded.
            row: int64, its sentence.
        """
        return symbol

    def rule(self, symbol: Tensor, row: Tensor, first: Tensor, second: Tensor) -> Tensor:
        """`(count,)` nats of rules whose children are both two words or more.

        Args:
            symbol: `(count,)` int64, `k * N + A` of the node that is expanded.
            row: `(count,)` int64, its sentence.
            first, second: `(count,)` int64, its children's labels.
        """
        place = (self.rules_of(symbol, row) * self.labels + first) * self.labels + second
        return self.rules.flatten().index_select(0, place)

    def heads(self, row: Tensor, first: Tensor, second: Tensor) -> Tensor:
        """`(..., N)` nats: every label's rule with these two children, of two words or more.

        Of rules that do not look at parents.

        Args:
            row: int64 sentence, of a shape that goes with the labels'.
            first, second: int64 labels, any shape.
        """
        return self.rules[0].permute(1, 2, 0)[first, second]

    def leaf_heads(self, row: Tensor, word: Tensor, child: Tensor, side: int) -> Tensor:
        """`(..., N)` nats: every label's rule with a word and a child of two words or more.

        Of rules that do not look at parents.

        Args:
            row, word, child: int64 sentence, the word's position, and the other child's label; of
                shapes that go together.
            side: 0 if the word is the left child, 1 if it is the right one.
        """
        return self.leaf_tables[side].squeeze(3).mT[word, row, child]

    def _leaf_row(
        self, symbol: Tensor, row: Tensor, word: Tensor, rows: Tensor | None = None
    ) -> Tensor:
        place = word * len(self.lengths) + row
        if rows is not None:
            place = rows.index_select(0, place.flatten()).view(place.shape)
        place = place * self.labels
        if self.contexts == 1:
            return place + symbol
        context, label = symbol.div(self.labels, rounding_mode="floor"), symbol % self.labels
        return (place + label) * self.contexts + context

    @optional
    def children(self) -> tuple[Tensor, Tensor]:
        """Two `(N, N + T)` log weights of each label's left and of its right child, in nats.

        Of rules that do not look at parents, and that are a grammar's.
        """
        ...

    @optional
    def word_sides(self) -> Sequence[Tensor]:
        """Two `(batch, n, N)`: what each word weighs as left and as right child of each label.

        In nats, over all contexts and other children; of rules that are a grammar's.
        """
        ...

    def phrase_mass(self) -> Tensor:
        """`(N,)` nats: what each label's rules whose children are two phrases weigh together.

        Of rules that do not look at parents; `(batch, N)` where each sentence has its own.
        """
        return self.rules[0].logsumexp((1, 2))

    @abstractmethod
    def double(self) -> Potentials:
        """The same weights in float64, with gradient where they have one."""

    @optional
    def some(self, rows: Tensor) -> Potentials:
        """Those of some sentences, padded to the longest of them, with the same rules.

        Args:
            rows: `(count,)` int64.
        """
        ...

    def word_profiles(self) -> Tensor:
        """`(batch, n, PROFILE * N)` each word as the grammar sees it, known even of the rarest.

        Log shares in nats of the labels that have it as left and as right child, and of those that
        have it and a neighbour as a phrase; normalised over the labels, held above -12, and on
        average over the contexts.
        """
        with full_precision(self.root):
            left, right, pairs = (
                part.log_softmax(2).clamp(min=-12)
                for part in (*self.word_sides(), self.both_leaves.logsumexp(2))
            )
            places = torch.arange(pairs.shape[1], device=pairs.device)
            pairs = pairs * (places < (self.lengths - 1)[:, None]).unsqueeze(2)
            return torch.cat([left, right, pad(pairs, (0, 0, 1, 0)), pad(pairs, (0, 0, 0, 1))], 2)

    def word_levels(self) -> Tensor:
        """`(batch, n)` rough log weight of each word, in nats, 0 past a sentence's end.

        A word's share of what the pairs it is in weigh together: good enough to start a look-ahead,
        or a log partition function, at the right magnitude.
        """
        if self.both_leaves.shape[1] == 0:
            return self.single[:, None]
        share = self.both_leaves[:, :, -1].logsumexp(2) / 2
        places = torch.arange(share.shape[1], device=share.device)
        inside = (places < (self.lengths - 1)[:, None]).to(share)
        total = pad(share * inside, (1, 0)) + pad(share * inside, (0, 1))
        levels = total / (pad(inside, (1, 0)) + pad(inside, (0, 1))).clamp(min=1)
        first = torch.arange(levels.shape[1], device=levels.device) == 0
        alone = (self.lengths == 1)[:, None] & first
        return torch.where(alone, self.single[:, None], levels)


class GivenPotentials(Potentials):
    """Potentials whose tables are given outright, and not those of a grammar.

    Args:
        root, rules, left_leaf, right_leaf, both_leaves, single, lengths: see `Potentials`;
            `left_leaf` and `right_leaf` are `leaf_tables`.
    """

    def __init__(
        self,
        root: Tensor,
        rules: Tensor,
        left_leaf: Tensor,
        right_leaf: Tensor,
        both_leaves: Tensor,
        single: Tensor,
        lengths: Tensor,
    ):
        self.root, self.rules, self.leaf_tables = root, rules, (left_leaf, right_leaf)
        self.both_leaves, self.single, self.lengths = both_leaves, single, lengths

    def detach(self) -> GivenPotentials:
        """The same weights without gradient."""
        return self._each(Tensor.detach)

    def double(self) -> GivenPotentials:
        """See `Potentials`."""
        return self._each(Tensor.double)

    def _each(self, change: Callable[[Tensor], Tensor]) -> GivenPotentials:
        tables = (self.root, self.rules, *self.leaf_tables, self.both_leaves, self.single)
        return GivenPotentials(*map(change, tables), self.lengths)


def kept(make: Callable[[Any], Any]) -> cached_property:
    """A table made once, with gradient if the weights have one, whoever asks for it first."""
    return cached_property(torch.enable_grad()(make))

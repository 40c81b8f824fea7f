"""Log weights of a batch's grammar rules, preterminals summed out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import embedding, pad

from gfnem.offers import optional

#: The log weight, in nats, of what cannot happen: finite, so that no gradient is ever nan, and so
#: low that `exp` of it is 0 in single and in double precision.
IMPOSSIBLE = -1e4


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


def safe_log(weights: Tensor) -> Tensor:
    """Logarithm of non-negative weights, any shape, with finite values and gradients.

    A weight of exactly 0 becomes `IMPOSSIBLE` with gradient 0. Positive weights are held above
    the smallest normal number, so that one over them does not overflow.
    """
    logs = weights.clamp(min=torch.finfo(weights.dtype).tiny).log()
    return logs.masked_fill(weights <= 0, IMPOSSIBLE)


def groups_of(contexts: int) -> int:
    """The number of groups of labels where symbols stand under so many contexts."""
    return max(contexts - 1, 1)


#: how many numbers for each label there are in a word's profile
PROFILE = 4
#: with more symbols than this, rules with a word are made as they are asked for, not all at once
_ROWS_OF_WORD = 100


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
    def leaf_weights(self) -> list[tuple[Tensor, Tensor]]:
        """The two `leaf_tables` in exp space, for charts.

        Each as `(n, batch, G, N / G * K, N)` weights and the `(n, batch, G, N / G * K)` log scale
        that they are relative to, without gradient.
        """
        return [
            relative(table.unflatten(2, (self.groups, -1)).flatten(3, 4))
            for table in self.leaf_tables
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

    def leaf_rules(self, symbol: Tensor, row: Tensor, word: Tensor, side: int) -> Tensor:
        """Log weights of the other child's label where one child is a given word.

        Args:
            symbol: `(count,)` int64, `k * N + A` of the node that is expanded.
            row: `(count,)` int64, its sentence.
            word: `(count,)` int64, the word's position.
            side: 0 if the word is the left child, 1 if it is the right one.

        Returns:
            `(count, N)` nats.
        """
        table = self.leaf_tables[side].flatten(0, 3)
        return embedding(self._leaf_row(symbol, row, word), table)

    def leaf_rule(self, symbol: Tensor, row: Tensor, word: Tensor, child: Tensor, side: int):
        """`(count,)` nats: entry `child` of `leaf_rules`."""
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

    def _leaf_row(self, symbol: Tensor, row: Tensor, word: Tensor) -> Tensor:
        context, label = symbol.div(self.labels, rounding_mode="floor"), symbol % self.labels
        place = word * len(self.lengths) + row
        return (place * self.labels + label) * self.contexts + context

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
        tables = (self.root, self.rules, *self.leaf_tables, self.both_leaves, self.single)
        return GivenPotentials(*(table.detach() for table in tables), self.lengths)


def kept(make: Callable[[Any], Any]) -> cached_property:
    """A table made once, with gradient if the weights have one, whoever asks for it first."""
    return cached_property(torch.enable_grad()(make))


class RulePotentials(Potentials):
    """The potentials of a grammar's rules and of a batch's words.

    The tables with preterminals summed out are made when they are first asked for: where there are
    many contexts, the largest of them are needed for charts alone.

    Attributes:
        start: `(N + T,)` log weights of the start symbol's child.
        productions: `(K, N, N + T, N + T)`, `[k, A, B, C]` for A -> B C under k.
        words: `(batch, n, K, T)` log weight of each word under each preterminal under k.
        lengths: `(batch,)` int64 sentence lengths in tokens.
        origin: the same weights with gradient, whose tables then serve both.
    """

    def __init__(
        self,
        start: Tensor,
        productions: Tensor,
        words: Tensor,
        lengths: Tensor,
        origin: RulePotentials | None = None,
    ):
        self.start, self.productions, self.words = start, productions, words
        self.lengths, self.origin = lengths, origin

    @classmethod
    def from_tables(
        cls, root: Tensor, rules: Tensor, emissions: Tensor, lengths: Tensor
    ) -> RulePotentials:
        """Checks a grammar's tables.

        Symbols are ordered nonterminals first, then preterminals. Entries may be minus infinity.

        Args:
            root: `(N + T,)` log weights of the start symbol's child.
            rules: `(K, N, N + T, N + T)` log weights of A -> B C under each context; the axis of
                contexts may be left out where there is one.
            emissions: `(batch, n, K, T)` log weight of each word under each preterminal and
                context, likewise; positions past a sentence's length may hold anything but nan and
                plus infinity.
            lengths: `(batch,)` int64 sentence lengths in tokens.

        Raises:
            ValueError: if the shapes do not agree.
        """
        if rules.dim() == 3:
            rules, emissions = rules[None], emissions.unsqueeze(-2)
        (contexts, labels), preterminals = rules.shape[:2], emissions.shape[-1]
        symbols = labels + preterminals
        if (
            root.shape != (symbols,)
            or rules.shape[2:] != (symbols, symbols)
            or emissions.shape[2:] != (contexts, preterminals)
        ):
            raise ValueError(
                f"{labels} nonterminals and {preterminals} preterminals do not fit root "
                f"{tuple(root.shape)}, rules {tuple(rules.shape)} and words "
                f"{tuple(emissions.shape)}"
            )
        if labels % groups_of(contexts):
            raise ValueError(
                f"{labels} nonterminals do not fall into {groups_of(contexts)} groups of equal size"
            )
        return cls(*held(root, rules, emissions), lengths)

    def detach(self) -> RulePotentials:
        """The same weights without gradient."""
        tables = (self.start, self.productions, self.words, self.lengths)
        return RulePotentials(*(table.detach() for table in tables), self)

    def some(self, rows: Tensor) -> RulePotentials:
        """See `Potentials`."""
        lengths = self.lengths[rows]
        words = self.words[rows, : int(lengths.max())]
        return RulePotentials(self.start, self.productions, words, lengths)

    @property
    def labels(self) -> int:
        """The number `N` of nonterminals."""
        return self.productions.shape[1]

    @property
    def contexts(self) -> int:
        """The number `K` of contexts."""
        return self.productions.shape[0]

    @property
    def max_length(self) -> int:
        """The padded width `n` of the batch, in tokens."""
        return self.words.shape[1]

    @property
    def root(self) -> Tensor:
        """See `Potentials`."""
        return self.start[: self.labels]

    @kept
    def rules(self) -> Tensor:
        """See `Potentials`."""
        return self.productions[:, :, : self.labels, : self.labels].contiguous()

    @property
    def word_first(self) -> Tensor:
        """`(K, N, T, N)`, `[k, A, T, C]`: the left child is a preterminal."""
        return self.productions[:, :, self.labels :, : self.labels]

    @property
    def word_second(self) -> Tensor:
        """`(K, N, T, N)`, `[k, A, T, B]`: the right child is a preterminal."""
        return self.productions[:, :, : self.labels, self.labels :].transpose(2, 3)

    def children(self) -> tuple[Tensor, Tensor]:
        """See `Potentials`."""
        return self.productions[0].logsumexp(2), self.productions[0].logsumexp(1)

    @kept
    def single(self) -> Tensor:
        """See `Potentials`."""
        return torch.logsumexp(self.start[self.labels :] + self.words[:, 0, self.top], -1)

    @kept
    def word_weights(self) -> tuple[Tensor, Tensor]:
        """`(G, n, batch, T)` words under each group in exp space, and their log maxima."""
        # of two words or more none stands at the top
        return relative(self.words[:, :, : self.groups].permute(2, 1, 0, 3))

    def by_group(self, table: Tensor) -> tuple[Tensor, Tensor]:
        """Rules in exp space with the group of the expanded label leading.

        Args:
            table: `(K, N, X, Y)` rules, `[k, A, first child, second child]`.

        Returns:
            `(G, X, Y * N / G * K)` weights and their `(G, 1, N / G * K)` log maxima.
        """
        table = table.unflatten(1, (self.groups, -1)).permute(1, 3, 4, 2, 0).flatten(3)
        peaks = table.detach().amax((1, 2), keepdim=True)
        return (table - peaks).exp().flatten(2), peaks.squeeze(1)

    def by_label(self, table: Tensor) -> Tensor:
        """`(..., K, N)` from `(G, ..., N / G * K)`."""
        return table.unflatten(-1, (-1, self.contexts)).movedim(0, -3).flatten(-3, -2).mT

    @kept
    def leaf_tables(self) -> tuple[Tensor, Tensor]:
        """See `Potentials`."""
        return self._one_leaf(self.word_first), self._one_leaf(self.word_second)

    @kept
    def leaf_weights(self) -> list[tuple[Tensor, Tensor]]:
        """See `Potentials`; without a detour by logs."""
        return [self._weights_of_leaf(table) for table in (self.word_first, self.word_second)]

    def _weights_of_leaf(self, table: Tensor) -> tuple[Tensor, Tensor]:
        with full_precision(table):
            words, peaks = self.word_weights
            table = table.unflatten(1, (self.groups, -1)).permute(1, 3, 2, 0, 4)  # G T N/G K C
            tops = table.detach().amax((1, 4), keepdim=True)
            weights = words.flatten(1, 2) @ (table - tops).exp().flatten(2)
            weights = weights.unflatten(1, words.shape[1:3]).unflatten(3, (-1, self.labels))
            scale = peaks[..., None] + tops.flatten(1)[:, None, None]
            return weights.permute(1, 2, 0, 3, 4).contiguous(), scale.permute(1, 2, 0, 3)

    def _one_leaf(self, table: Tensor) -> Tensor:
        with full_precision(table):
            words, peaks = self.word_weights
            table = table.unflatten(1, (self.groups, -1)).permute(1, 3, 2, 0, 4)  # G T N/G K C
            tops = table.detach().amax(1, keepdim=True)
            weights = (table - tops).exp().flatten(2)
            logs = safe_log(words.flatten(1, 2) @ weights)
            logs = logs + (peaks.flatten(1, 2)[..., None] + tops.flatten(2))
            logs = logs.unflatten(1, words.shape[1:3]).unflatten(3, table.shape[2:])
            return logs.permute(1, 2, 0, 3, 4, 5).flatten(2, 3)

    @kept
    def both_leaves(self) -> Tensor:
        """See `Potentials`."""
        if self.origin is not None:
            with torch.enable_grad():
                return self.origin.both_leaves.detach()
        with full_precision(self.productions):
            words, peaks = self.word_weights
            weights, tops = self.by_group(self.productions[:, :, self.labels :, self.labels :])
            half = words[:, :-1].flatten(1, 2) @ weights
            half = half.view(*words[:, 1:].shape, tops.shape[-1])
            both = safe_log((words[:, 1:, :, None] @ half).squeeze(3))
            both = both + (peaks[:, :-1] + peaks[:, 1:])[..., None] + tops[:, None]
            return self.by_label(both).transpose(0, 1)

    @kept
    def three_words(self) -> Tensor:
        """`(batch, n - 2, K, N)`, `[b, i, k, A]`: log inside values of three words."""
        with full_precision(self.productions):
            words, word_peaks = self.word_weights
            pairs = self.both_leaves[:, :, : self.groups].permute(2, 1, 0, 3)  # G, place, batch
            pair_peaks = pairs.detach().amax(3)
            pairs = (pairs - pair_peaks[..., None]).exp()
            first, last = slice(None, -2), slice(2, None)  # the word that is a child
            after, before = slice(1, None), slice(None, -1)  # the pair that is the other
            found = []
            for table, word, pair in (
                (self.word_first, first, after),
                (self.word_second, last, before),
            ):
                weights, tops = self.by_group(table)
                half = words[:, word].flatten(1, 2) @ weights
                half = half.unflatten(2, (self.labels, -1))
                total = (pairs[:, pair].flatten(1, 2)[:, :, None] @ half).squeeze(2)
                peaks = word_peaks[:, word] + pair_peaks[:, pair]
                logs = safe_log(total).view(*peaks.shape, -1)
                found.append(logs + peaks[..., None] + tops[:, None])
            return self.by_label(torch.logaddexp(*found)).transpose(0, 1)

    @kept
    def _leaf_weights(self) -> list[tuple[Tensor, Tensor]]:
        """`(K * N, T * N)` rules with one word in exp space, and their log maxima."""
        tables = [table.flatten(0, 1).flatten(1) for table in (self.word_first, self.word_second)]
        peaks = [table.detach().amax(1) for table in tables]
        return [
            ((table - top[:, None]).exp(), top) for table, top in zip(tables, peaks, strict=True)
        ]

    def leaf_rules(self, symbol: Tensor, row: Tensor, word: Tensor, side: int) -> Tensor:
        """See `Potentials`."""
        # a tree asks for two rows of each word, the tables have one for each symbol
        if self.labels * self.contexts <= _ROWS_OF_WORD:  # only those asked for need a log
            place, (weights, scale) = self._leaf_row(symbol, row, word), self.leaf_weights[side]
            logs = safe_log(embedding(place, weights.flatten(0, -2)))
            return logs + scale.flatten()[place][:, None]
        with full_precision(self.productions):
            weights, tops = self._leaf_weights[side]
            weights = embedding(symbol, weights).unflatten(1, (-1, self.labels))
            words = embedding(self._word(symbol, row, word), self.words.flatten(0, 2))
            peaks = words.detach().amax(1, keepdim=True)
            logs = safe_log(((words - peaks).exp()[:, None] @ weights).squeeze(1))
            return logs + peaks + tops[symbol][:, None]

    def leaf_rule(self, symbol: Tensor, row: Tensor, word: Tensor, child: Tensor, side: int):
        """See `Potentials`."""
        with full_precision(self.productions):
            table = (self.word_first, self.word_second)[side]
            weights = table.transpose(2, 3).reshape(-1, table.shape[2])
            weights = embedding(symbol * self.labels + child, weights)
            words = embedding(self._word(symbol, row, word), self.words.flatten(0, 2))
            return (words + weights).logsumexp(1)

    def _word(self, symbol: Tensor, row: Tensor, word: Tensor) -> Tensor:
        """The place of a word that is the child of a symbol."""
        return (row * self.max_length + word) * self.contexts + self.below(symbol % self.labels)

    @torch.no_grad()
    def context_free(self, rounds: int = 8) -> RulePotentials:
        """The rules on average over the contexts: a context-free grammar, whose chart is cheap.

        Each symbol's contexts count as often as they are met in the trees that the rules make,
        found by going down `rounds` times from the root.
        """
        with full_precision(self.productions):
            weights = self.productions.exp()
            children = weights.sum(3) + weights.sum(2)  # K, A, child
            start = self.start.softmax(0)
            met = children.new_ones(self.groups, len(start))
            for turn in range(rounds + 1):
                if turn:
                    uses = torch.einsum("ka,kax->ax", met[:, : self.labels], children)
                    met = uses.unflatten(0, (self.groups, -1)).sum(1)
                met = met / met.sum().clamp(min=1e-20)
                met = pad(met, (0, 0, 0, self.contexts - self.groups))
                met[-1] += start / 10
            share = safe_log(met / met.sum(0).clamp(min=1e-20))  # of each context, by symbol
            inner, leaf = share[:, : self.labels], share[:, self.labels :]
            rules = (self.productions + inner[..., None, None]).logsumexp(0)
            words = (self.words + leaf).logsumexp(2)
        return RulePotentials.from_tables(self.start, rules, words, self.lengths)

    def word_sides(self) -> list[Tensor]:
        """See `Potentials`."""
        with full_precision(self.productions):
            words, peaks = self.word_weights
            sides = []
            for table in (self.word_first, self.word_second):
                leaf = table.logsumexp((0, 3)).unflatten(0, (self.groups, -1))  # G, N / G, T
                tops = leaf.amax(2)
                leaf = (leaf - tops[..., None]).exp()
                logs = safe_log(words.flatten(1, 2) @ leaf.mT) + tops[:, None]
                logs = logs.unflatten(1, words.shape[1:3]) + peaks[..., None]
                sides.append(logs.permute(2, 1, 0, 3).flatten(2))
            return sides

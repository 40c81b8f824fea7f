"""The weights of a grammar's rules for a batch of sentences, as dense tables."""

from __future__ import annotations

from functools import cached_property

import torch
from torch import Tensor
from torch.nn.functional import embedding, pad

from gfnem.fixed_shapes import fixed_shapes
from gfnem.parsing.inference.potentials import (
    Potentials,
    first_of,
    full_precision,
    groups_of,
    held,
    kept,
    relative,
    safe_log,
)

#: with more symbols than this, rules with a word are made as they are asked for, not all at once
_ROWS_OF_WORD = 100


class RulePotentials(Potentials):
    """The potentials of a grammar's rules and of a batch's words.

    The tables with preterminals summed out are made when they are first asked for: where there are
    many contexts, the largest of them are needed for charts alone.

    Attributes:
        start: `(N + T,)` log weights of the start symbol's child.
        productions: `(K, N, N + T, N + T)`, `[k, A, B, C]` for A -> B C under k.
        words: `(batch, n, K, T)` log weight of each word under each preterminal under k.
        lengths: `(batch,)` int64 sentence lengths in tokens.
        kinds: `(batch, n)` int64 numbers of words: where they are equal, `words` are; None where
            that is not known.
        origin: the same weights with gradient, whose tables then serve both.
    """

    def __init__(
        self,
        start: Tensor,
        productions: Tensor,
        words: Tensor,
        lengths: Tensor,
        kinds: Tensor | None = None,
        origin: RulePotentials | None = None,
    ):
        self.start, self.productions, self.words = start, productions, words
        self.lengths, self.kinds, self.origin = lengths, kinds, origin

    @classmethod
    def from_tables(
        cls,
        root: Tensor,
        rules: Tensor,
        emissions: Tensor,
        lengths: Tensor,
        kinds: Tensor | None = None,
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
            kinds: `(batch, n)` int64, equal where the words are; None where that is not known.

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
        return cls(*held(root, rules, emissions), lengths, kinds)

    def detach(self) -> RulePotentials:
        """The same weights without gradient."""
        tables = (self.start, self.productions, self.words, self.lengths)
        return RulePotentials(*(table.detach() for table in tables), self.kinds, self)

    def double(self) -> RulePotentials:
        """See `Potentials`."""
        tables = (self.start, self.productions, self.words)
        return RulePotentials(*(table.double() for table in tables), self.lengths, self.kinds)

    def some(self, rows: Tensor) -> RulePotentials:
        """See `Potentials`."""
        lengths = self.lengths[rows]
        longest = int(lengths.max())
        kinds = None if self.kinds is None else self.kinds[rows, :longest]
        words = self.words[rows, :longest]
        return RulePotentials(self.start, self.productions, words, lengths, kinds)

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

    @cached_property
    def _different(self) -> tuple[Tensor, Tensor] | None:
        """A place of each different word, and `(n * batch,)` which of the words each place has.

        Places are numbered `i * batch + b`. None where all places are looked at.
        """
        if self.kinds is None or fixed_shapes(self.kinds):
            return None
        return first_of(self.kinds.T.flatten())

    @property
    def _word_rows(self) -> tuple[Tensor, Tensor]:
        """`word_weights` of different words, `(G, rows, T)` and `(G, rows)`; else of all places."""
        rows = tuple(part.flatten(1, 2) for part in self.word_weights)
        if self._different is None:
            return rows
        return tuple(part.index_select(1, self._different[0]) for part in rows)

    @kept
    def leaf_rows(self) -> tuple[list[tuple[Tensor, Tensor]], Tensor | None]:
        """See `Potentials`; without a detour by logs."""
        if self.origin is not None:
            with torch.enable_grad():
                tables, place = self.origin.leaf_rows
                return [(weights.detach(), scale) for weights, scale in tables], place
        tables = [self._weights_of_leaf(table) for table in (self.word_first, self.word_second)]
        return tables, None if self._different is None else self._different[1]

    def _weights_of_leaf(self, table: Tensor) -> tuple[Tensor, Tensor]:
        with full_precision(table):
            words, peaks = self._word_rows
            table = table.unflatten(1, (self.groups, -1)).permute(1, 3, 2, 0, 4)  # G T N/G K C
            tops = table.detach().amax((1, 4), keepdim=True)
            weights = (words @ (table - tops).exp().flatten(2)).unflatten(2, (-1, self.labels))
            scale = peaks[..., None] + tops.flatten(1)[:, None]
            return weights.transpose(0, 1).contiguous(), scale.transpose(0, 1)

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
            weights, tops = self.by_group(self.productions[:, :, self.labels :, self.labels :])
            words, peaks = self._word_rows
            first, second, place = self._neighbours()
            half = (words @ weights).index_select(1, first).unflatten(2, (-1, tops.shape[-1]))
            both = safe_log((words.index_select(1, second)[:, :, None] @ half).squeeze(2))
            scale = peaks.index_select(1, first) + peaks.index_select(1, second)
            both = both + scale[..., None] + tops
            both = both if place is None else both.index_select(1, place)
            both = both.unflatten(1, (self.max_length - 1, len(self.lengths)))
            return self.by_label(both).transpose(0, 1)

    def _neighbours(self) -> tuple[Tensor, Tensor, Tensor | None]:
        """Different pairs of neighbours, as rows of `_word_rows`, and which pair each place has.

        None for the latter where they are the pairs of all places.
        """
        batch = len(self.lengths)
        if self._different is None:
            place = torch.arange(self.max_length * batch, device=self.lengths.device)
            return place[:-batch], place[batch:], None
        which = self._different[1]
        first, second = which[:-batch], which[batch:]
        places, pair = first_of(first * (len(which) + 1) + second)
        return first[places], second[places], pair

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

    def edge_rules(self, symbol: Tensor, row: Tensor, first: Tensor, last: Tensor) -> Tensor:
        """See `Potentials`."""
        # a tree asks for two rows of each word, the tables have one for each symbol
        if self.labels * self.contexts <= _ROWS_OF_WORD:  # only those asked for need a log
            tables, place = self.leaf_rows
            places = self._leaf_row(symbol, row, torch.stack([first, last]), place)
            tables = [(at, *table) for at, table in zip(places, tables, strict=True)]
            weights = [embedding(at, weights.flatten(0, -2)) for at, weights, _ in tables]
            scales = [scale.flatten().index_select(0, at) for at, _, scale in tables]
            return safe_log(torch.stack(weights)) + torch.stack(scales)[..., None]
        sides = enumerate((first, last))
        return torch.stack([self._edge(symbol, row, word, side) for side, word in sides])

    def _edge(self, symbol: Tensor, row: Tensor, word: Tensor, side: int) -> Tensor:
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
        return RulePotentials.from_tables(self.start, rules, words, self.lengths, self.kinds)

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

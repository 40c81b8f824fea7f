"""Log weights of a batch's rules where each symbol's expansion depends on its parent."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor
from torch.nn.functional import embedding

from gfnem.parsing.inference.potentials import (
    IMPOSSIBLE,
    RulePotentials,
    at_least_float,
    full_precision,
    safe_log,
    word_profiles,
)


@dataclass
class ParentPotentials:
    """Log weights of one batch's rules under each parent, and what follows for its words.

    In nats; `N` nonterminals, `T` preterminals; a parent `P` is a nonterminal or, last, the start
    symbol (`N`). What cannot happen weighs `IMPOSSIBLE` or less, never minus infinity. The large
    tables with preterminals summed out are made when they are first asked for.

    Attributes:
        start: `(N + T,)` log weights of the start symbol's child.
        productions: `(N + 1, N, N + T, N + T)`, `[P, A, B, C]` for A -> B C under P.
        words: `(batch, n, N + 1, T)` log weight of each word under each preterminal whose parent
            is P.
        lengths: `(batch,)` int64 sentence lengths in tokens.
        origin: the same weights with gradient, whose tables then serve both.
    """

    start: Tensor
    productions: Tensor
    words: Tensor
    lengths: Tensor
    origin: ParentPotentials | None = None

    @classmethod
    def from_tables(
        cls, root: Tensor, rules: Tensor, emissions: Tensor, lengths: Tensor
    ) -> ParentPotentials:
        """Checks a grammar's tables (see the attributes, in this order; -inf is permitted).

        Raises:
            ValueError: if the shapes do not agree.
        """
        parents, preterminals = emissions.shape[2:]
        labels = parents - 1
        symbols = labels + preterminals
        if root.shape != (symbols,) or rules.shape != (parents, labels, symbols, symbols):
            raise ValueError(
                f"{labels} nonterminals and {preterminals} preterminals do not fit root "
                f"{tuple(root.shape)} and rules {tuple(rules.shape)}"
            )
        with full_precision(rules):
            tables = (
                at_least_float(table).clamp(min=IMPOSSIBLE) for table in (root, rules, emissions)
            )
            return cls(*tables, lengths)

    def detach(self) -> ParentPotentials:
        """The same weights without gradient."""
        tables = (self.start, self.productions, self.words, self.lengths)
        return ParentPotentials(*(table.detach() for table in tables), self)

    @property
    def labels(self) -> int:
        """The number `N` of nonterminals."""
        return self.productions.shape[1]

    @property
    def max_length(self) -> int:
        """The padded width `n` of the batch, in tokens."""
        return self.words.shape[1]

    @property
    def root(self) -> Tensor:
        """`(N,)` log p(A | start)."""
        return self.start[: self.labels]

    @property
    def rules(self) -> Tensor:
        """`(N + 1, N, N, N)`, `[P, A, B, C]`: both children are two words or more."""
        return self.productions[:, :, : self.labels, : self.labels]

    @property
    def word_first(self) -> Tensor:
        """`(N + 1, N, T, N)`, `[P, A, T, C]`: the left child is a preterminal."""
        return self.productions[:, :, self.labels :, : self.labels]

    @property
    def word_second(self) -> Tensor:
        """`(N + 1, N, T, N)`, `[P, A, T, B]`: the right child is a preterminal."""
        return self.productions[:, :, : self.labels, self.labels :].transpose(2, 3)

    @cached_property
    def single(self) -> Tensor:
        """`(batch,)` log probability of the first word as a one-word sentence."""
        return torch.logsumexp(self.start[self.labels :] + self.words[:, 0, self.labels], -1)

    @cached_property
    def left_leaf(self) -> Tensor:
        """`(batch, n, N, N + 1, N)`, `[b, i, A, P, C]`: the left child of A is word `i`."""
        return self._one_leaf(self.word_first)

    @cached_property
    def right_leaf(self) -> Tensor:
        """`(batch, n, N, N + 1, N)`, `[b, i, A, P, B]`: the right child of A is word `i`."""
        return self._one_leaf(self.word_second)

    @cached_property
    def word_weights(self) -> tuple[Tensor, Tensor]:
        """`(A, batch, n, T)` words under each nonterminal in exp space, and their log maxima."""
        # a word's parent is never the start symbol where there are two words
        words = self.words[:, :, : self.labels].permute(2, 0, 1, 3)
        peaks = words.detach().amax(-1)
        return (words - peaks[..., None]).exp(), peaks

    def _one_leaf(self, table: Tensor) -> Tensor:
        labels, (batch, n) = self.labels, self.words.shape[:2]
        with full_precision(table):
            words, peaks = self.word_weights
            table = table.permute(1, 2, 0, 3)  # A, T, P, other child
            tops = table.detach().amax(1, keepdim=True)
            weights = (table - tops).exp().flatten(2)
            logs = safe_log(words.flatten(1, 2) @ weights)
            logs = logs.view(labels, batch, n, labels + 1, labels)
            logs = logs + peaks[..., None, None] + tops[:, :, None]
            return logs.permute(1, 2, 0, 3, 4)

    @cached_property
    def both_leaves(self) -> Tensor:
        """`(batch, n - 1, N + 1, N)`, `[b, i, P, A]`: children are words `i`, `i + 1`."""
        labels = self.labels
        if self.origin is not None:
            with torch.enable_grad():
                return self.origin.both_leaves.detach()
        with full_precision(self.productions):
            words, peaks = self.word_weights
            pairs = self.productions[:, :, labels:, labels:].permute(1, 2, 3, 0)  # A, T, T', P
            tops = pairs.detach().amax((1, 2))
            weights = (pairs - tops[:, None, None]).exp().flatten(2)
            half = words[:, :, :-1].flatten(1, 2) @ weights
            half = half.view(*words[:, :, 1:].shape, labels + 1)
            both = safe_log((words[:, :, 1:, None] @ half).squeeze(3))
            both = both + (peaks[:, :, :-1] + peaks[:, :, 1:])[..., None] + tops[:, None, None]
            return both.permute(1, 2, 3, 0)

    @cached_property
    def three_words(self) -> Tensor:
        """`(batch, n - 2, N + 1, N)`, `[b, i, P, A]`: log inside values of three words."""
        labels = self.labels
        with full_precision(self.productions):
            words, word_peaks = self.word_weights
            pairs = self.both_leaves[:, :, :labels].permute(2, 0, 1, 3)  # A, batch, place, child
            pair_peaks = pairs.detach().amax(3)
            pairs = (pairs - pair_peaks[..., None]).exp()
            first, last = slice(None, -2), slice(2, None)  # the word that is a child
            after, before = slice(1, None), slice(None, -1)  # the pair that is the other
            found = []
            for table, word, pair in (
                (self.word_first, first, after),
                (self.word_second, last, before),
            ):
                table = table.permute(1, 2, 3, 0)  # A, T, child, P
                tops = table.detach().amax((1, 2))
                weights = (table - tops[:, None, None]).exp().flatten(2)
                half = words[:, :, word].flatten(1, 2) @ weights
                half = half.unflatten(2, (labels, labels + 1))
                total = (pairs[:, :, pair].flatten(1, 2)[:, :, None] @ half).squeeze(2)
                peaks = word_peaks[:, :, word] + pair_peaks[:, :, pair]
                logs = safe_log(total).view(*peaks.shape, labels + 1)
                found.append(logs + peaks[..., None] + tops[:, None, None])
            return torch.logaddexp(*found).permute(1, 2, 3, 0)

    @cached_property
    def _leaf_weights(self) -> list[tuple[Tensor, Tensor]]:
        """`((N + 1) * N, T * N)` rules with one word in exp space, and their log maxima."""
        tables = [table.flatten(0, 1).flatten(1) for table in (self.word_first, self.word_second)]
        peaks = [table.detach().amax(1) for table in tables]
        return [
            ((table - top[:, None]).exp(), top) for table, top in zip(tables, peaks, strict=True)
        ]

    def leaf_rules(self, expanded: Tensor, word: Tensor, side: int) -> Tensor:
        """Log weights of the other child's label where one child is a given word.

        Args:
            expanded: `(count,)` int64, `P * N + A` of the node that is expanded.
            word: `(count,)` int64, `row * n + position`.
            side: 0 if the word is the left child, 1 if it is the right one.

        Returns:
            `(count, N)` nats.
        """
        labels, parents = self.labels, self.labels + 1
        with full_precision(self.productions):
            weights, tops = self._leaf_weights[side]
            weights = embedding(expanded, weights).unflatten(1, (-1, labels))
            words = embedding(word * parents + expanded % labels, self.words.flatten(0, 2))
            peaks = words.detach().amax(1, keepdim=True)
            logs = safe_log(((words - peaks).exp()[:, None] @ weights).squeeze(1))
            return logs + peaks + tops[expanded][:, None]

    @torch.no_grad()
    def context_free(self, rounds: int = 8) -> RulePotentials:
        """The rules on average over the parents: a context-free grammar, whose chart is cheap.

        Each symbol's parents count as often as they are met in the trees that the rules make,
        found by going down `rounds` times from the root.
        """
        with full_precision(self.productions):
            weights = self.productions.exp()
            children = weights.sum(3) + weights.sum(2)  # P, A, child
            start = self.start.softmax(0)

            def with_start(met: Tensor) -> Tensor:
                return torch.cat([met / met.sum().clamp(min=1e-20), start[None] / 10])

            met = with_start(children.new_ones(self.labels, len(start)))
            for _ in range(rounds):
                met = with_start(torch.einsum("pa,pax->ax", met[:, : self.labels], children))
            share = safe_log(met / met.sum(0).clamp(min=1e-20))  # of each parent, by symbol
            inner, leaf = share[:, : self.labels], share[:, self.labels :]
            rules = (self.productions + inner[..., None, None]).logsumexp(0)
            words = (self.words + leaf).logsumexp(2)
        return RulePotentials.from_tables(self.start, rules, words, self.lengths)

    def word_profiles(self) -> Tensor:
        """`(batch, n, 4 N)` each word as the grammar sees it, on average over the parents."""
        words, peaks = self.word_weights
        sides = []
        for table in (self.word_first, self.word_second):
            leaf = table.logsumexp((0, 3))  # A, T
            tops = leaf.amax(1)
            leaf = (leaf - tops[:, None]).exp()
            log = safe_log(torch.einsum("abnt,at->bna", words, leaf)) + tops
            sides.append(log + peaks.permute(1, 2, 0))
        return word_profiles(*sides, self.both_leaves.logsumexp(2), self.lengths)

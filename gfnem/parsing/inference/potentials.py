"""Log weights of a batch's grammar rules, preterminals summed out."""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch
from torch import Tensor

#: The log weight, in nats, of what cannot happen: finite, so that no gradient is ever nan, and so
#: low that `exp` of it is 0 in single and in double precision.
IMPOSSIBLE = -1e4


def full_precision(tensor: Tensor):
    """A context in which autocast is off on `tensor`'s device: charts need float32."""
    return torch.autocast(tensor.device.type, enabled=False)


def at_least_float(tensor: Tensor) -> Tensor:
    """`tensor` itself, or its float32 copy where it is of half precision."""
    return tensor.float() if tensor.dtype in (torch.float16, torch.bfloat16) else tensor


def safe_log(weights: Tensor) -> Tensor:
    """Logarithm of non-negative weights, any shape, with finite values and gradients.

    A weight of exactly 0 becomes `IMPOSSIBLE` with gradient 0. Positive weights are held above
    the smallest normal number, so that one over them does not overflow.
    """
    logs = weights.clamp(min=torch.finfo(weights.dtype).tiny).log()
    return logs.masked_fill(weights <= 0, IMPOSSIBLE)


#: how many numbers for each label there are in a word's profile
PROFILE = 4


def word_profiles(left: Tensor, right: Tensor, pairs: Tensor, lengths: Tensor) -> Tensor:
    """`(batch, n, PROFILE * N)` what each word is good for, known even of the rarest.

    Log shares in nats, normalised over the labels and held above -12.

    Args:
        left, right: `(batch, n, N)` log weight of each word as left and as right child of a label.
        pairs: `(batch, n - 1, N)` log weight of each two neighbours as a phrase of a label.
        lengths: `(batch,)` of the sentences; a pair that passes the end says nothing.
    """
    left, right, pairs = (part.log_softmax(2).clamp(min=-12) for part in (left, right, pairs))
    places = torch.arange(pairs.shape[1], device=pairs.device)
    pairs = pairs * (places < (lengths - 1)[:, None]).unsqueeze(2)
    pad = torch.nn.functional.pad
    return torch.cat([left, right, pad(pairs, (0, 0, 1, 0)), pad(pairs, (0, 0, 0, 1))], 2)


@dataclass
class RulePotentials:
    """Log weights of one batch's rules, preterminals summed out.

    Everything is in nats. The weights may be, but need not be, those of a normalised grammar. An
    event without any derivation has a weight of `IMPOSSIBLE` or lower, never minus infinity.

    Attributes:
        root: `(N,)` log p(A | start).
        rules: `(N, N, N)`, `[A, B, C]` for A -> B C, both children two words or more.
        left_leaf: `(batch, n, N, N)`, `[b, i, A, C]` = log sum_T p(A -> T C) p(w_i | T): the left
            child is word `i`.
        right_leaf: `(batch, n, N, N)`, `[b, i, A, B]` = log sum_T p(A -> B T) p(w_i | T): the
            right child is word `i`.
        both_leaves: `(batch, n - 1, N)`, `[b, i, A]` = log sum_{T, T'} p(A -> T T') p(w_i | T)
            p(w_{i+1} | T').
        single: `(batch,)` log probability of the first word as a one-word sentence,
            log sum_T p(T | start) p(w_0 | T).
        lengths: `(batch,)` int64 sentence lengths in tokens.
    """

    root: Tensor
    rules: Tensor
    left_leaf: Tensor
    right_leaf: Tensor
    both_leaves: Tensor
    single: Tensor
    lengths: Tensor

    @classmethod
    def from_tables(
        cls, root: Tensor, rules: Tensor, emissions: Tensor, lengths: Tensor
    ) -> RulePotentials:
        """Sums the preterminals out of a grammar's tables, differentiably.

        Symbols are ordered nonterminals first, then preterminals. Entries may be minus infinity.
        Sums are taken in exp space relative to detached maxima (of each word's emissions, of each
        rule table over the preterminals), so only terms about 87 nats (float32) or 708 nats
        (float64) below the best possible one can vanish.

        Args:
            root: `(N + T,)` log weights of the start symbol's child.
            rules: `(N, N + T, N + T)` log weights of A -> B C.
            emissions: `(batch, n, T)` log weight of each word under each preterminal; positions
                past a sentence's length may hold anything but nan and plus infinity.
            lengths: `(batch,)` int64 sentence lengths in tokens.

        Raises:
            ValueError: if the shapes do not agree.
        """
        batch, n, preterminals = emissions.shape
        labels = rules.shape[0]
        symbols = labels + preterminals
        if root.shape != (symbols,) or rules.shape != (labels, symbols, symbols):
            raise ValueError(
                f"{labels} nonterminals and {preterminals} preterminals do not fit root "
                f"{tuple(root.shape)} and rules {tuple(rules.shape)}"
            )
        with full_precision(rules):
            root, rules, emissions = (
                at_least_float(table).clamp(min=IMPOSSIBLE) for table in (root, rules, emissions)
            )
            word_peaks = emissions.detach().amax(-1)
            words = (emissions - word_peaks[..., None]).exp()
            rows = words.reshape(batch * n, preterminals)

            def one_leaf(table: Tensor) -> Tensor:
                # (T, A, other child): sums the preterminal of every word with one product.
                peaks = table.detach().amax(0)
                weights = rows @ (table - peaks).exp().reshape(preterminals, -1)
                logs = safe_log(weights).view(batch, n, labels, labels)
                return logs + (word_peaks[..., None, None] + peaks)

            pairs = rules[:, labels:, labels:]
            pair_peaks = pairs.detach().amax((1, 2))
            table = (pairs - pair_peaks[:, None, None]).exp().transpose(0, 1)
            first = words[:, :-1].reshape(-1, preterminals) @ table.reshape(preterminals, -1)
            second = words[:, 1:].reshape(-1, preterminals, 1)
            both = (first.view(-1, labels, preterminals) @ second).view(batch, n - 1, labels)
            both_peaks = (word_peaks[:, :-1] + word_peaks[:, 1:])[..., None] + pair_peaks
            return cls(
                root[:labels],
                rules[:, :labels, :labels],
                one_leaf(rules[:, labels:, :labels].transpose(0, 1)),
                one_leaf(rules[:, :labels, labels:].permute(2, 0, 1)),
                safe_log(both) + both_peaks,
                torch.logsumexp(root[labels:] + emissions[:, 0], -1),
                lengths,
            )

    def map(self, function) -> RulePotentials:
        """Applies `function` to every table of weights (not to `lengths`)."""
        tables = [function(getattr(self, field.name)) for field in fields(self)[:-1]]
        return RulePotentials(*tables, self.lengths)

    def detach(self) -> RulePotentials:
        """The same weights without gradient."""
        return self.map(Tensor.detach)

    @property
    def labels(self) -> int:
        """The number `N` of nonterminals."""
        return self.root.shape[0]

    @property
    def max_length(self) -> int:
        """The padded width `n` of the batch, in tokens."""
        return self.left_leaf.shape[1]

    def word_levels(self) -> Tensor:
        """`(batch, n)` rough log weight of each word, in nats, 0 past a sentence's end.

        A word's share of what the pairs it is in weigh together: good enough to start a look-ahead,
        or a log partition function, at the right magnitude.
        """
        if self.both_leaves.shape[1] == 0:
            return self.single[:, None]
        return spread_over_words(self.both_leaves.logsumexp(2) / 2, self.single, self.lengths)

    def word_profiles(self) -> Tensor:
        """`(batch, n, 4 N)` each word as the grammar sees it (see `word_profiles`)."""
        return word_profiles(
            self.left_leaf.logsumexp(3),
            self.right_leaf.logsumexp(3),
            self.both_leaves,
            self.lengths,
        )


def spread_over_words(pairs: Tensor, single: Tensor, lengths: Tensor) -> Tensor:
    """`(batch, n)` the mean of what each word gets from the pairs it is in, 0 past the end.

    Args:
        pairs: `(batch, n - 1)` the share of each word of the pair `i`, `i + 1`, in nats.
        single: `(batch,)` what a word alone gets.
        lengths: `(batch,)` int64 sentence lengths in tokens.
    """
    places = torch.arange(pairs.shape[1], device=pairs.device)
    inside = (places < (lengths - 1)[:, None]).to(pairs)
    pad = torch.nn.functional.pad
    total = pad(pairs * inside, (1, 0)) + pad(pairs * inside, (0, 1))
    levels = total / (pad(inside, (1, 0)) + pad(inside, (0, 1))).clamp(min=1)
    first = torch.arange(levels.shape[1], device=levels.device) == 0
    return torch.where((lengths == 1)[:, None] & first, single[:, None], levels)

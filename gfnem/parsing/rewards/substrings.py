"""A reward from raw text: spans are worth what their words say as a repeated substring."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import torch
from torch import Tensor

from gfnem.errors import UserError
from gfnem.parsing.rewards.ngrams import Found, NgramTable
from gfnem.parsing.rewards.trees import SpanReward
from gfnem.parsing.text.sentences import Sentences
from gfnem.ranges import Count, Finite, NotNegative
from gfnem.schedules import Anneal

#: occurrences that a word's share of closed ones is mixed with, of the average word's share
_SMOOTHING = 5.0


class Substrings(SpanReward):
    """What raw text says of spans, without a tree: substrings that it repeats, and where it pauses.

    The score of a span is a weighted sum of

    - *information*: the normalised pointwise mutual information of its words, of the split that has
      least: `min_k log(p(s) / (p(s_left) p(s_right))) / -log p(s)`. A substring that holds together
      whichever way it is cut is a constituent more often than not (Chen et al. 2024, arXiv
      2410.02558).
    - *terms*: `log(tf) log(D / df)`, for a substring that comes `tf` times in the sentence's own
      document, twice or more, and in `df` of `D` documents.
    - *cohesion*: the least share, over its splits, that it has in the occurrences of its more
      frequent part in the document.
    - *pauses*: how much more often than the average word its last word is followed by punctuation
      or the sentence's end, as a logarithm. Constituents end where text pauses (Spitkovsky et al.
      2011, "Punctuation: making a point in unsupervised dependency parsing").
    - *right*: 1 where the span ends the sentence, which prefers right branching.

    What the text does not say anything of has the score 0. Statistics are made once, of the text
    that the run is trained on, sentences that are too long for training included, and are kept in
    the checkpoint.

    Args:
        weight: see `Reward`.
        information, terms, cohesion, pauses, right: weights of the parts.
        longest: words of the longest substrings counted.
        most: substrings kept: the rarest of a very large text are left out.
        limit: sentences counted at most, from the first.
        text: more text to count, in any form that `--data` takes: trees are not needed.
    """

    of_samples = False  # what a model draws has no fingerprints of words

    @property
    def recordable(self) -> bool:
        """Where the weight does not move."""
        return not isinstance(self.weight, Anneal)

    def __init__(
        self,
        weight: NotNegative | Anneal = 4.0,
        information: Finite = 1.0,
        terms: Finite = 0.1,
        cohesion: Finite = 0.5,
        pauses: Finite = 0.2,
        right: Finite = 0.1,
        longest: Count = 8,
        most: Count = 2_000_000,
        limit: Count = 2_000_000,
        text: str | None = None,
    ):
        super().__init__(weight)
        self.weights = {
            "information": information,
            "terms": terms,
            "cohesion": cohesion,
            "pauses": pauses,
            "right": right,
        }
        self._longest, self.most, self.limit = longest, most, limit
        self._documents_are, self.text = "", text
        self._keep(NgramTable.empty(longest))

    def _keep(self, table: NgramTable) -> None:
        self.longest = table.longest
        for name, part in table.tensors():
            self.register_buffer(name, part, persistent=False)

    @property
    def table(self) -> NgramTable:
        """What has been counted."""
        return NgramTable(*(getattr(self, part.name) for part in fields(NgramTable)))

    # a table's size is not known before it is made: buffers of a fixed size would not load
    def get_extra_state(self) -> dict[str, Tensor]:
        """The table."""
        table = self.table.to(torch.device("cpu"))
        return {**dict(table.tensors()), "longest": torch.tensor(table.longest)}

    def set_extra_state(self, state: dict[str, Tensor]) -> None:
        """Takes a table from a checkpoint."""
        table = NgramTable(**{**state, "longest": int(state["longest"])})
        self._keep(table.to(self.totals.device))

    def prepare(self, data: Any) -> None:
        """Counts the substrings of the training text.

        Raises:
            UserError: if the data are not text.
        """
        from gfnem.parsing.text.data import TextData  # not needed to parse, and slow to import

        if not isinstance(data, TextData):
            raise UserError(
                f"{type(self).__name__} counts the substrings of text, and {type(data).__name__} "
                "is none"
            )
        texts, self._documents_are = data.texts(self.limit, self.text)
        self._keep(NgramTable.count(texts, self._longest, self.most))

    def summary(self) -> str:
        """A line for people: the parts with their weights, and what was counted."""
        words, _, documents, sentences = self.totals.tolist()
        where = "one document"
        if documents > 1:
            where = f"{documents:,} documents"
            where += f" ({self._documents_are})" if self._documents_are else ""
        parts = ", ".join(f"{name} {value:g}" for name, value in self.weights.items() if value)
        return (
            f"reward {type(self).__name__} ({parts}): {len(self.grams):,} repeated substrings of "
            f"{words:,} words in {sentences:,} sentences of {where}"
        )

    @torch.no_grad()
    def spans(self, x: Sentences) -> Tensor:
        """`(batch, n, n + 1)` nats of each span."""
        substrings, rest = self.apart(x)
        return substrings + rest

    @torch.no_grad()
    def apart(self, x: Sentences) -> tuple[Tensor, Tensor]:
        """Two `(batch, n, n + 1)` nats of each span: as a repeated substring, and by its end."""
        n = x.max_length
        found = self.table.look_up(x.keys, x.lengths, x.documents)
        ends = torch.arange(n + 1, device=x.keys.device)
        last = (ends == x.lengths[:, None]) & (x.keys != 0).any(1, keepdim=True)
        of_end = self.weights["right"] * last.float()
        of_end[:, 1:] += self.weights["pauses"] * self._pauses(found)
        width = ends - ends[:n, None]
        proper = (width > 1) & (ends <= x.lengths[:, None, None])
        substrings = found.as_spans(self._of_substrings(found))
        return substrings * proper, of_end[:, None] * proper

    def _of_substrings(self, found: Found) -> Tensor:
        """`(batch, longest, n)` what substrings of two words or more are worth."""
        words, _, documents, _ = found.totals.clamp(min=1).float()
        logs = (found.counts.clamp(min=1) / words).log()
        value = torch.zeros_like(logs)
        splits = zip(found.over_splits(logs), found.over_splits(found.local), strict=True)
        for length, (parts, local) in enumerate(splits, 2):
            last = parts.shape[3]
            log_p = logs[:, length - 1, :last]
            least = (log_p - parts.sum(0)).amin(0)
            information = least / -log_p.clamp(max=-1e-6)
            there = found.counts[:, length - 1, :last] > 0
            here = found.local[:, length - 1, :last]
            terms = (
                here.clamp(min=1).log()
                * (documents / found.spread[:, length - 1, :last].clamp(min=1)).log()
            )
            cohesion = (here / local.amax(0).clamp(min=1)).amin(0)
            value[:, length - 1, :last] = there * (
                self.weights["information"] * information
                + self.weights["terms"] * terms
                + self.weights["cohesion"] * cohesion
            )
        return value

    def _pauses(self, found: Found) -> Tensor:
        """`(batch, n)` log of how much more often than the average word each one closes."""
        words, closed, _, _ = found.totals.clamp(min=1).float()
        average = closed / words
        share = (found.closed[:, 0] + _SMOOTHING * average) / (found.counts[:, 0] + _SMOOTHING)
        return (share / average).log()

"""A batch of sentences as tensors."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import torch
from torch import Tensor

from gfnem.batched import Batched
from gfnem.parsing.text.fingerprints import fingerprint
from gfnem.parsing.text.vocabulary import Vocabulary

#: sentences of so few words share a batch whatever their lengths
_SHORT = 8


@dataclass
class Sentences(Batched):
    """Padded word indices: the observation `x` of the parsing domain.

    Attributes:
        tokens: `(batch, n)` int64 word indices; positions past a sentence's length hold 0.
        lengths: `(batch,)` int64 sentence lengths in tokens, each at least 1.
        keys: `(batch, n)` int64 fingerprints of the words as they were read, which tell apart what
            the vocabulary does not; 0 where that is not known, and past a sentence's end.
        documents: `(batch,)` int64 fingerprints of the documents that the sentences stand in; 0
            where that is not known.
        pauses: `(batch, n)` bool, behind which words the text pauses, before its last one; False
            where that is not known.
    """

    tokens: Tensor
    lengths: Tensor
    keys: Tensor = None  # type: ignore[assignment]  # made from the others
    documents: Tensor = None  # type: ignore[assignment]
    pauses: Tensor = None  # type: ignore[assignment]

    def __post_init__(self):
        if self.keys is None:
            self.keys = torch.zeros_like(self.tokens)
        if self.documents is None:
            self.documents = torch.zeros_like(self.lengths)
        if self.pauses is None:
            self.pauses = torch.zeros_like(self.tokens, dtype=torch.bool)

    @classmethod
    def from_lists(cls, sentences: Sequence[Sequence[int]]) -> Sentences:
        """Pads lists of word indices into one batch.

        Raises:
            ValueError: if there is no sentence, or a sentence is empty.
        """
        lengths = _lengths(sentences)
        return cls(_padded(list(chain.from_iterable(sentences)), lengths), lengths)

    @classmethod
    def from_words(
        cls,
        sentences: Sequence[Sequence[str]],
        vocabulary: Vocabulary,
        pauses: Sequence[Sequence[int]] = (),
    ) -> Sentences:
        """Pads lists of words into one batch.

        Args:
            sentences: the words.
            vocabulary: numbers them.
            pauses: of each sentence how many words come before each of its pauses, if known.

        Raises:
            ValueError: as `from_lists`.
        """
        lengths, words = _lengths(sentences), list(chain.from_iterable(sentences))
        keys = _padded([fingerprint(word) for word in words], lengths)
        made = cls(_padded(vocabulary.encode(words), lengths), lengths, keys)
        for row, places in enumerate(pauses):
            for place in places:
                made.pauses[row, place - 1] = True
        return made

    def mask(self) -> Tensor:
        """`(batch, n)` bool: which positions hold a word."""
        return torch.arange(self.max_length, device=self.tokens.device) < self.lengths[:, None]

    def __getitem__(self, index: Any) -> Sentences:
        """The sentences at `index` (anything that indexes a tensor's first axis), repadded."""
        lengths = self.lengths[index]
        longest = int(lengths.max())
        by_word = (self.tokens, self.keys, self.pauses)
        tokens, keys, pauses = (part[index][..., :longest] for part in by_word)
        return Sentences(tokens, lengths, keys, self.documents[index], pauses)

    def by_length(self, function: Callable[[Tensor], Tensor]) -> Tensor:
        """What a function says of all sentences, asked of similar lengths at a time.

        Charts cost as much as the longest sentence of a batch for each. Lengths that are asked for
        together differ by a factor of two at most; up to `_SHORT` words are all alike.

        Args:
            function: gives `(count, ...)` values of the sentences at `(count,)` rows.
        """
        parts, longest = [], self.max_length
        while True:
            shorter = longest // 2 if longest > _SHORT else 0
            some = (self.lengths > shorter) & (self.lengths <= longest)
            parts.append(some.nonzero().squeeze(1))
            longest = shorter
            if not longest:
                break
        parts = [rows for rows in parts if len(rows)]
        if len(parts) == 1:
            return function(parts[0])
        found = torch.cat([function(rows) for rows in parts])
        return found[torch.cat(parts).argsort()]

    @property
    def max_length(self) -> int:
        """Tokens of the longest sentence (the padded width `n`)."""
        return self.tokens.shape[1]


def _lengths(sentences: Sequence[Sequence]) -> Tensor:
    """`(batch,)` int64 lengths of sentences, of which there is one and none is empty."""
    if not sentences or not all(len(sentence) for sentence in sentences):
        raise ValueError("a batch needs at least one sentence, and each at least one token")
    return torch.tensor([len(sentence) for sentence in sentences])


def _padded(numbers: Sequence[int], lengths: Tensor) -> Tensor:
    """`(batch, n)` int64: the numbers of all words, one sentence after the other, by sentence."""
    there = torch.arange(int(lengths.max())) < lengths[:, None]
    found = torch.zeros(there.shape, dtype=torch.long)
    return found.masked_scatter_(there, torch.tensor(numbers, dtype=torch.long))

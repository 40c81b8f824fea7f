"""Sentences as structures that are built."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import pad

from gfnem.batched import Batched
from gfnem.parsing.text.sentences import Sentences


@dataclass
class Strings(Batched):
    """Sentences as the structure that a sampler builds, several for each observation.

    Attributes:
        tokens: `(batch, samples, n)` int64 word indices; 0 past a sentence's end.
        lengths: `(batch, samples)` int64 words of each sentence.
    """

    tokens: Tensor
    lengths: Tensor

    def sentences(self) -> Sentences:
        """All of them, `(batch * samples,)`, padded to the longest."""
        lengths = self.lengths.flatten()
        longest = max(int(lengths.max()), 1)
        return Sentences(self.tokens.flatten(0, 1)[:, :longest], lengths)

    @classmethod
    def of(cls, x: Sentences, longest: int, samples: int = 1) -> Strings:
        """`samples` copies of each sentence, with room for `longest` words."""
        tokens = pad(x.tokens, (0, longest - x.max_length))[:, None].expand(-1, samples, -1)
        return cls(tokens, x.lengths[:, None].expand(-1, samples))

    @classmethod
    def drawn(cls, x: Sentences, longest: int) -> Strings:
        """Sentences as the samples of one observation, `(1, sentences)`."""
        return cls(pad(x.tokens, (0, longest - x.max_length))[None], x.lengths[None])


def nothing(longest: int, device: torch.device | None = None) -> Sentences:
    """The one observation that says nothing: a sentence of no words."""
    tokens = torch.zeros(1, longest, dtype=torch.long, device=device)
    return Sentences(tokens, tokens.new_zeros(1))


def all_sentences(vocab_size: int, shortest: int, longest: int) -> Sentences:
    """Every sentence of so many words, the shorter ones first."""
    parts, lengths = [], []
    for length in range(shortest, longest + 1):
        code = torch.arange(vocab_size**length, device="cpu")
        place = vocab_size ** torch.arange(length - 1, -1, -1, device="cpu")
        words = code[:, None] // place % vocab_size
        parts.append(pad(words, (0, longest - length)))
        lengths.append(torch.full_like(code, length))
    return Sentences(torch.cat(parts), torch.cat(lengths))


def how_many(vocab_size: int, shortest: int, longest: int) -> int:
    """The number of sentences of so many words."""
    return sum(vocab_size**length for length in range(shortest, longest + 1))

"""A batch of sentences as tensors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from gfnem.batched import Batched


@dataclass
class Sentences(Batched):
    """Padded word indices: the observation `x` of the parsing domain.

    Attributes:
        tokens: `(batch, n)` int64 word indices; positions past a sentence's length hold 0.
        lengths: `(batch,)` int64 sentence lengths in tokens, each at least 1.
    """

    tokens: Tensor
    lengths: Tensor

    @classmethod
    def from_lists(cls, sentences: Sequence[Sequence[int]]) -> Sentences:
        """Pads lists of word indices into one batch.

        Raises:
            ValueError: if there is no sentence, or a sentence is empty.
        """
        if not sentences or not all(len(sentence) for sentence in sentences):
            raise ValueError("a batch needs at least one sentence, and each at least one token")
        lengths = torch.tensor([len(sentence) for sentence in sentences])
        tokens = torch.zeros(len(sentences), int(lengths.max()), dtype=torch.long)
        for row, sentence in zip(tokens, sentences, strict=True):
            row[: len(sentence)] = torch.as_tensor(sentence)
        return cls(tokens, lengths)

    def mask(self) -> Tensor:
        """`(batch, n)` bool: which positions hold a word."""
        return torch.arange(self.max_length, device=self.tokens.device) < self.lengths[:, None]

    def __getitem__(self, index: Any) -> Sentences:
        """The sentences at `index` (anything that indexes a tensor's first axis), repadded."""
        lengths = self.lengths[index]
        return Sentences(self.tokens[index][..., : int(lengths.max())], lengths)

    @property
    def max_length(self) -> int:
        """Tokens of the longest sentence (the padded width `n`)."""
        return self.tokens.shape[1]

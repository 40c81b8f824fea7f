"""Vectors for the spans of a sentence."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from gfnem.parsing.sentences import Sentences


class SpanEncoder(nn.Module):
    """Reads a sentence with a bidirectional LSTM and gives every span `[i, j)` a vector.

    The vector depends on the states at the span's two ends (as in Stern et al. 2017, section 4,
    but with a projection of its own for each end), and on the span's width.

    Args:
        vocab_size: words, the unknown word included.
        dim: size of embeddings, of each direction's state, and of half the output.
        features: size of what else is known of each word; 0 for nothing.
        max_width: wider spans share one width embedding.
    """

    def __init__(self, vocab_size: int, dim: int = 128, features: int = 0, max_width: int = 64):
        super().__init__()
        self.features = None
        if features:
            self.features = nn.Sequential(nn.LayerNorm(features), nn.Linear(features, dim))
        self.dim_out = 2 * dim
        self.embedding = nn.Embedding(vocab_size, dim)
        self.lstm = nn.LSTM(dim, dim, batch_first=True, bidirectional=True)
        self.ends = nn.Linear(2 * dim, 2 * self.dim_out)
        self.width = nn.Embedding(max_width + 1, self.dim_out)
        self.mix = nn.Sequential(nn.ReLU(), nn.Linear(self.dim_out, self.dim_out), nn.ReLU())

    def forward(self, x: Sentences, features: Tensor | None = None) -> Tensor:
        """`(batch, n, n + 1, 2 * dim)`: entry `[b, i, j]` is the vector of span `[i, j)`.

        `features` `(batch, n, features)`: what else is known of each word.
        """
        fences = self.fences(x, features)
        left, right = self.ends(fences).chunk(2, -1)
        n = x.max_length
        ends = torch.arange(n + 1, device=left.device)
        width = (ends - ends[:n, None]).clamp(0, self.width.num_embeddings - 1)
        spans = left[:, :n, None] + right[:, None] + self.width(width)
        return self.mix(spans)

    def fences(self, x: Sentences, features: Tensor | None = None) -> Tensor:
        """`(batch, n + 1, 2 * dim)` states between words: before the first, ..., after the last.

        The forward half has read everything to the left, the backward half all to the right.
        """
        words = self.embedding(x.tokens)
        if features is not None:
            words = words + self.features(features)
        packed = pack_padded_sequence(
            words, x.lengths.cpu(), batch_first=True, enforce_sorted=False
        )
        states, _ = pad_packed_sequence(
            self.lstm(packed)[0], batch_first=True, total_length=x.max_length
        )
        forward, backward = states.chunk(2, -1)
        pad = nn.functional.pad
        return torch.cat([pad(forward, (0, 0, 1, 0)), pad(backward, (0, 0, 0, 1))], -1)

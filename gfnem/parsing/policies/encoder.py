"""Vectors for the spans of a sentence."""

from __future__ import annotations

import warnings

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from gfnem.fixed_shapes import fixed_shapes
from gfnem.parsing.policies.dropout import Dropout
from gfnem.parsing.policies.span_sums import SpanSums
from gfnem.parsing.text.sentences import Sentences

_WEIGHTS = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")


class FenceEncoder(nn.Module):
    """Reads a sentence with a bidirectional LSTM and gives every place between words a vector.

    Args:
        vocab_size: words, the unknown word included.
        dim: size of embeddings, of each direction's state, and of half the output.
        features: size of what else is known of each word; 0 for nothing.
        dropout: share of inputs, states and (of spans) hidden units dropped in training.
    """

    def __init__(self, vocab_size: int, dim: int = 128, features: int = 0, dropout: float = 0.0):
        super().__init__()
        self.dropout = Dropout(dropout)
        self.features = None
        if features:
            self.features = nn.Sequential(nn.LayerNorm(features), nn.Linear(features, dim))
        self.dim_out = 2 * dim
        self.embedding = nn.Embedding(vocab_size, dim)
        if features:  # a word hardly ever met is then what its features say, and not noise
            nn.init.zeros_(self.embedding.weight)
        self.lstm = nn.LSTM(dim, dim, batch_first=True, bidirectional=True)

    def without_features(self) -> None:
        """Gives up the layer for what else is known of each word: nothing ever will be."""
        self.features = None

    def fences(self, x: Sentences, features: Tensor | None = None) -> Tensor:
        """`(batch, n + 1, 2 * dim)` states between words: before the first, ..., after the last.

        The forward half has read everything to the left, the backward half all to the right.
        """
        words = self.embedding(x.tokens)
        if features is not None:
            words = words + self.features(features)
        words = self.dropout(words)
        if fixed_shapes(words):
            forward, backward = self._both_ways(words, x)
        else:
            packed = pack_padded_sequence(
                words, x.lengths.cpu(), batch_first=True, enforce_sorted=False
            )
            states, _ = pad_packed_sequence(
                self.lstm(packed)[0], batch_first=True, total_length=x.max_length
            )
            forward, backward = states.chunk(2, -1)
        pad = nn.functional.pad
        states = torch.cat([pad(forward, (0, 0, 1, 0)), pad(backward, (0, 0, 0, 1))], -1)
        return self.dropout(states)

    def _both_ways(self, words: Tensor, x: Sentences) -> list[Tensor]:
        """Two `(batch, n, dim)`: states of both directions, 0 past a sentence's end.

        The words are not packed, for which lengths would have to be looked at: each sentence is
        turned around within itself, so that its end is read first.
        """
        place = torch.arange(x.max_length, device=words.device)
        turned = torch.where(x.mask(), x.lengths[:, None] - 1 - place, place)[..., None]
        found = []
        for suffix, order in (("", None), ("_reverse", turned)):
            weights = [getattr(self.lstm, f"{name}_l0{suffix}") for name in _WEIGHTS]
            read = words if order is None else words.take_along_dim(order, 1)
            start = words.new_zeros(1, len(words), self.lstm.hidden_size)
            # one layer, no dropout, one direction, the batch first
            options = True, 1, 0.0, self.training, False, True
            with warnings.catch_warnings():  # half of the weights are not one piece of memory
                warnings.filterwarnings("ignore", "RNN module weights")
                states = torch.lstm(read, (start, start), weights, *options)[0]
            states = states if order is None else states.take_along_dim(order, 1)
            found.append(states * x.mask()[..., None])
        return found


class SpanEncoder(FenceEncoder):
    """Gives every span `[i, j)` of a sentence a vector.

    The vector depends on the states at the span's two ends (as in Stern et al. 2017, section 4,
    but with a projection of its own for each end), and on the span's width.

    Args:
        vocab_size, dim, features, dropout: as in `FenceEncoder`.
        max_width: wider spans share one width embedding.
    """

    def __init__(
        self,
        vocab_size: int,
        dim: int = 128,
        features: int = 0,
        dropout: float = 0.0,
        max_width: int = 64,
    ):
        super().__init__(vocab_size, dim, features, dropout)
        self.dim_out = dim  # there are many spans, and they are what the network costs
        self.ends = nn.Linear(2 * dim, 2 * dim)
        self.width = nn.Embedding(max_width + 1, self.dim_out)
        self.sums = SpanSums(dropout)
        self.mix = nn.Linear(self.dim_out, self.dim_out)

    def forward(self, x: Sentences, features: Tensor | None = None, narrowest: int = 1) -> Tensor:
        """`(batch, spans, dim)`: a vector for each of `span_list(n, narrowest)`.

        `features` `(batch, n, features)`: what else is known of each word.
        """
        left, right = self.ends(self.fences(x, features)).chunk(2, -1)
        width = torch.arange(x.max_length + 1, device=left.device)
        width = self.width(width.clamp(max=self.width.num_embeddings - 1))
        spans = self.sums(left, right, width, min(narrowest, x.max_length))
        # there are many: the product is the only tensor made, and it is no view, whose gradient
        # would be copied
        mixed = (spans.flatten(0, 1) @ self.mix.weight.T).add_(self.mix.bias).relu_()
        return mixed.view(spans.shape)


def span_list(n: int, device: torch.device, narrowest: int = 1) -> tuple[Tensor, Tensor]:
    """`[i, j)` for all `0 <= i < j <= n`: two `(spans,)` int64, ordered by `i`, then `j`.

    Those of `narrowest` words or more; of `n` words where `n` is smaller.
    """
    return tuple(torch.triu_indices(n, n + 1, min(narrowest, n), device=device))


def span_places(n: int, device: torch.device, narrowest: int = 1) -> Tensor:
    """`(n, n + 1)` int64: which of `span_list` each span `[i, j)` is; 0 for what is none."""
    starts, ends = span_list(n, device, narrowest)
    place = torch.zeros(n, n + 1, dtype=torch.long, device=device)
    place[starts, ends] = torch.arange(len(starts), device=device)
    return place


def span_chart(packed: Tensor, n: int, narrowest: int = 1) -> Tensor:
    """Lays `(batch, spans, size)` out as `(batch, n, n + 1, size)`; elsewhere it has no meaning."""
    place = span_places(n, packed.device, narrowest)
    return packed.index_select(1, place.flatten()).unflatten(1, (n, n + 1))

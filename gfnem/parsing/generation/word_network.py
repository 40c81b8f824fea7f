"""A network that reads words from left to right and scores what comes next."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from gfnem.parsing.text.sentences import Sentences


class WordNetwork(nn.Module):
    """An LSTM over the words so far, and scores of the next word and, last, of the end.

    Args:
        vocab_size: words, the unknown word included.
        dim: size of word vectors and of the LSTM's state.
    """

    def __init__(self, vocab_size: int, dim: int):
        super().__init__()
        self.vocab_size = vocab_size
        self.words = nn.Embedding(vocab_size + 1, dim)  # the last is the start
        self.lstm = nn.LSTM(dim, dim, batch_first=True)
        self.head = nn.Linear(dim, vocab_size + 1)

    def forward(self, tokens: Tensor) -> Tensor:
        """`(rows, n + 1, vocab_size + 1)` of what comes next, for `(rows, n)` words."""
        states, _ = self.lstm(self.words(pad(tokens, (1, 0), value=self.vocab_size)))
        return self.head(states)

    def step(self, last: Tensor, memory=None) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """`(rows, vocab_size + 1)` of what comes after one more word, and what is remembered.

        Args:
            last: `(rows,)` the word, `vocab_size` at the start.
            memory: as returned for the words before; None at the start.
        """
        states, memory = self.lstm(self.words(last)[:, None], memory)
        return self.head(states[:, 0]), memory


def next_words(x: Sentences, end: int) -> Tensor:
    """`(batch, n + 1)` each word of sentences, and `end` behind the last."""
    place = torch.arange(x.max_length + 1, device=x.tokens.device)
    return torch.where(place < x.lengths[:, None], pad(x.tokens, (0, 1)), end)


def log_of_words(logs: Tensor, x: Sentences) -> Tensor:
    """`(batch, n + 1)` nats of each word and of the end, 0 behind it.

    Args:
        logs: `(batch, n + 1, vocab_size + 1)` log probabilities of what comes next.
        x: the sentences.
    """
    said = next_words(x, logs.shape[2] - 1).unsqueeze(2)
    place = torch.arange(logs.shape[1], device=logs.device)
    return logs.gather(2, said).squeeze(2).masked_fill(place > x.lengths[:, None], 0.0)

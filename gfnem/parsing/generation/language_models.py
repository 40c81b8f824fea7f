"""Language models of words as rewards: they are learned from the text, and know no trees."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad

from gfnem.parsing.generation.targets import SentenceTarget
from gfnem.parsing.generation.word_network import WordNetwork, log_of_words, next_words
from gfnem.parsing.text.sentences import Sentences
from gfnem.ranges import Count, Fact

#: entries of a table of n-grams
_LARGEST = 2**25
#: sentences that are counted together
_ROWS = 1000


class NGram(SentenceTarget):
    """An n-gram model with Witten-Bell interpolation (Witten and Bell 1991), down to add-one.

    It is counted once, in the training sentences; all n-grams there can be stand in one table.

    Args:
        order: 1 for unigrams, 3 for trigrams.
        vocab_size, longest, shortest: as of `SentenceTarget`.

    Raises:
        ValueError: if the table would be too large.
    """

    logs: Tensor

    def __init__(
        self,
        order: Count = 2,
        vocab_size: Fact = None,
        longest: Fact = None,
        shortest: Count | None = None,
    ):
        super().__init__(vocab_size, longest, shortest)
        self.order, symbols = order, vocab_size + 1
        if symbols**order > _LARGEST:
            raise ValueError(
                f"order {order}: {vocab_size:,} words have too many n-grams; lower it, or "
                "max_vocabulary"
            )
        # the last symbol is the start where it is looked back at, and the end where it comes next
        self.register_buffer("logs", torch.full((symbols,) * order, -1.0 * symbols).log_softmax(-1))

    def prepare(self, data: Any) -> None:
        """Counts the n-grams of the training sentences.

        Args:
            data: a module of sentences.
        """
        counts = [torch.zeros((self.vocab_size + 1,) * size) for size in range(1, self.order + 1)]
        rows = torch.arange(len(data.sizes())).split(_ROWS)
        for x in (data.batch(part.tolist()) for part in rows):
            for count in counts:
                places = self._grams(x, count.dim())[pad(x.mask(), (1, 0), value=True)]
                places = (places * self._weights(count.dim(), places.device)).sum(1)
                count.flatten().index_add_(0, places.cpu(), torch.ones(len(places)))
        known = (counts[0] + 1) / (counts[0] + 1).sum()
        for count in counts[1:]:
            types = (count > 0).sum(-1, keepdim=True)
            total = count.sum(-1, keepdim=True)
            mixed = (count + types * known) / (total + types).clamp(min=1)
            known = torch.where(total > 0, mixed, known)
        self.logs.copy_(known.log())

    def log_reward(self, x: Sentences) -> Tensor:
        """`(batch,)` log probability of the words and the end."""
        places = (self._grams(x, self.order) * self._weights(self.order, x.tokens.device)).sum(2)
        found = self.logs.flatten()[places]
        return found.masked_fill(~pad(x.mask(), (1, 0), value=True), 0.0).sum(1)

    def _grams(self, x: Sentences, size: int) -> Tensor:
        """`(batch, n + 1, size)` each word, or the end, behind those before it."""
        bound = self.vocab_size
        return pad(next_words(x, bound), (size - 1, 0), value=bound).unfold(1, size, 1)

    def _weights(self, size: int, device: torch.device) -> Tensor:
        return (self.vocab_size + 1) ** torch.arange(size - 1, -1, -1, device=device)


class WordLSTM(SentenceTarget):
    """An LSTM language model: an M-step on the data trains it while the sampler follows.

    Args:
        dim: size of word vectors and of the state.
        vocab_size, longest, shortest: as of `SentenceTarget`.
    """

    def __init__(
        self,
        dim: Count = 128,
        vocab_size: Fact = None,
        longest: Fact = None,
        shortest: Count | None = None,
    ):
        super().__init__(vocab_size, longest, shortest)
        self.network = WordNetwork(vocab_size, dim)

    def log_reward(self, x: Sentences) -> Tensor:
        """`(batch,)` log probability of the words and the end."""
        return log_of_words(self.network(x.tokens).log_softmax(2), x).sum(1)

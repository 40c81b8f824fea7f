"""Word-level language models: how far plain word order goes, as a scale for models with trees."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence

from nltk.lm.models import InterpolatedLanguageModel
from nltk.lm.smoothing import WittenBell

START, END = "<s>", "</s>"


class NGramModel:
    """An n-gram model with Witten-Bell interpolation (Witten and Bell 1991), down to add-one.

    It gives each sentence, its end included, a probability; these sum to one over all sentences,
    so that its figures compare with a grammar's.

    Args:
        sentences: training sentences, as tokens.
        vocabulary: every word it may be asked for.
        order: 1 for unigrams, 3 for trigrams.

    Raises:
        ValueError: if `order` is less than 1 or a sentence has a word that is not in `vocabulary`.
    """

    def __init__(self, sentences: Sequence[Sequence[str]], vocabulary: Iterable[str], order: int):
        if order < 1:
            raise ValueError(f"order {order}: at least 1 is needed")
        words = {*vocabulary, END}
        for sentence in sentences:
            if unknown := [token for token in sentence if token not in words]:
                raise ValueError(f"the vocabulary lacks {unknown[0]!r}")
        self.order = order
        self._words = words
        self._model = _WittenBell(order, len(words))
        self._model.fit((_ngrams(tokens, order) for tokens in sentences), words)

    def log_prob(self, sentence: Sequence[str]) -> float:
        """Log probability of a sentence and its end, in nats.

        Raises:
            ValueError: if a word is not in the vocabulary.
        """
        total = 0.0
        for *context, word in _longest(sentence, self.order):
            if word not in self._words:
                raise ValueError(f"the vocabulary lacks {word!r}")
            total += math.log(self._model.score(word, context))
        return total

    def nll(self, sentences: Sequence[Sequence[str]]) -> float:
        """Negative log-likelihood in nats a token; ends count in the sum but not as tokens."""
        tokens = sum(len(sentence) for sentence in sentences)
        return -sum(self.log_prob(sentence) for sentence in sentences) / tokens


class _WittenBell(InterpolatedLanguageModel):
    """NLTK's Witten-Bell, but with add-one unigrams: no word of the vocabulary is impossible."""

    def __init__(self, order: int, size: int):
        super().__init__(WittenBell, order)
        self.size = size

    def unmasked_score(self, word: str, context: tuple[str, ...] | None = None) -> float:
        if not context:
            unigrams = self.counts.unigrams
            return (unigrams[word] + 1) / (unigrams.N() + self.size)
        if not self.counts[context]:  # never seen: nothing to interpolate with
            return self.unmasked_score(word, context[1:])
        return super().unmasked_score(word, context)


def _longest(sentence: Sequence[str], order: int) -> Iterator[tuple[str, ...]]:
    """For each word and the end: it and the `order - 1` tokens before it."""
    padded = [START] * (order - 1) + [*sentence, END]
    for end in range(order, len(padded) + 1):
        yield tuple(padded[end - order : end])


def _ngrams(sentence: Sequence[str], order: int) -> Iterator[tuple[str, ...]]:
    """Every n-gram up to `order` that ends in a word or the end; none predicts the start."""
    for longest in _longest(sentence, order):
        for start in range(order):
            yield longest[start:]

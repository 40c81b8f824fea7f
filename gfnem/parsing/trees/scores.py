"""How close predicted trees are to gold trees, and the baselines every score is held against."""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence

Spans = set[tuple[int, int]]

SCORE_CONVENTION = (
    "Unlabelled F1 in percent. Spans of one word and of the whole sentence are left out, and a "
    "span that several labels share counts once. Sentences of one word are left out. Sentence F1 "
    "is the mean over sentences (empty='one', as in the published figures of Shen et al. 2018 and "
    "Kim et al. 2019: where no gold span remains, F1 is 1 if no predicted span remains either, "
    "otherwise 0; empty='skip' leaves such sentences out of the mean). Corpus F1 adds up the "
    "matches of all sentences before dividing."
)


class SpanF1:
    """Sentence-level and corpus-level unlabelled F1 (percent), gathered sentence by sentence.

    The convention is `SCORE_CONVENTION`. It follows the evaluation behind the published figures
    (Shen et al. 2018, "Neural Language Modeling by Jointly Learning Syntax and Lexicon"; Kim et
    al. 2019, "Compound Probabilistic Context-Free Grammars for Grammar Induction", section 4).

    Args:
        empty: what a sentence without a gold span adds to sentence F1: `"one"` (1 if nothing was
            predicted, otherwise 0; every two-word sentence thus counts 1) or `"skip"` (nothing).

    Attributes:
        sentences: how many sentences the sentence mean runs over.
        matched, predicted, gold: numbers of spans over all sentences of two words or more.

    Raises:
        ValueError: for another `empty`.
    """

    def __init__(self, empty: str = "one"):
        if empty not in ("one", "skip"):
            raise ValueError(f"empty is 'one' or 'skip', not {empty!r}")
        self.empty = empty
        self.sentences = 0
        self.matched = self.predicted = self.gold = 0
        self._total = 0.0

    def update(
        self,
        predicted_spans: Iterable[Sequence[int]],
        gold_spans: Iterable[Sequence[int]],
        length: int,
    ) -> float | None:
        """Adds one sentence and returns its F1 in percent, or None if the mean leaves it out.

        Args:
            predicted_spans, gold_spans: half-open `(left, right, ...)` in tokens; anything after
                the first two entries, such as a label, is not looked at.
            length: tokens of the sentence.

        Raises:
            ValueError: if a span does not lie in the sentence.
        """
        predicted = proper_spans(predicted_spans, length)
        gold = proper_spans(gold_spans, length)
        if length < 2:
            return None
        matched = len(predicted & gold)
        self.matched += matched
        self.predicted += len(predicted)
        self.gold += len(gold)
        if not gold:
            if self.empty == "skip":
                return None
            score = 0.0 if predicted else 100.0
        else:
            score = _f1(matched, len(predicted), len(gold))
        self.sentences += 1
        self._total += score
        return score

    @property
    def sentence_f1(self) -> float:
        """The mean of the sentences' F1, in percent; nan before any sentence counts."""
        return self._total / self.sentences if self.sentences else float("nan")

    @property
    def corpus_f1(self) -> float:
        """The F1 of all spans together, in percent; nan before there is any span."""
        if not self.predicted + self.gold:
            return float("nan")
        return _f1(self.matched, self.predicted, self.gold)


def _f1(matched: int, predicted: int, gold: int) -> float:
    # 2PR / (P + R) with P = matched / predicted and R = matched / gold, free of 0 / 0.
    return 100.0 * 2 * matched / (predicted + gold)


def proper_spans(spans: Iterable[Sequence[int]], length: int) -> Spans:
    """The set of spans `(left, right)` longer than one token and shorter than the sentence.

    Raises:
        ValueError: if a span is empty or reaches outside `0 .. length`.
    """
    proper = set()
    for left, right, *_ in spans:
        if not 0 <= left < right <= length:
            raise ValueError(f"span ({left}, {right}) in a sentence of {length} tokens")
        if 1 < right - left < length:
            proper.add((left, right))
    return proper


def left_branching(n: int) -> Spans:
    """The spans `(0, k)`, `2 <= k <= n`, of the tree that always splits off the last word."""
    return {(0, right) for right in range(2, n + 1)}


def right_branching(n: int) -> Spans:
    """The spans `(k, n)`, `0 <= k <= n - 2`, of the tree that always splits off the first word."""
    return {(left, n) for left in range(n - 1)}


def random_binary(n: int, rng: random.Random) -> Spans:
    """The spans of a random binary tree over `n` words.

    Each span, the sentence first, is cut at a split point drawn uniformly, and so on down. (This
    is not uniform over trees: it favours balanced ones.)
    """
    spans: Spans = set()
    todo = [(0, n)]
    while todo:
        left, right = todo.pop()
        if right - left > 1:
            spans.add((left, right))
            split = rng.randint(left + 1, right - 1)
            todo += [(left, split), (split, right)]
    return spans

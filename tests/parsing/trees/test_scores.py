import math
import random
from collections import Counter

import pytest

from gfnem.parsing.trees.scores import (
    SCORE_CONVENTION,
    SpanF1,
    left_branching,
    proper_spans,
    random_binary,
    right_branching,
)


def _reference(pairs, empty):
    """Both F1s the long way round: precision and recall from 0/1 vectors over all spans."""
    scores, totals = [], Counter()
    for predicted, gold, n in pairs:
        if n == 1:
            continue
        hits = said = true = 0
        for left in range(n):
            for right in range(left + 2, n + 1):
                if (left, right) == (0, n):
                    continue
                p, g = (left, right) in predicted, (left, right) in gold
                hits, said, true = hits + (p and g), said + p, true + g
        totals.update(hits=hits, said=said, true=true)
        if true == 0:
            if empty == "one":
                scores.append(1.0 if said == 0 else 0.0)
            continue
        precision, recall = (hits / said if said else 0.0), hits / true
        both = precision + recall
        scores.append(2 * precision * recall / both if both else 0.0)
    precision, recall = totals["hits"] / totals["said"], totals["hits"] / totals["true"]
    corpus = 2 * precision * recall / (precision + recall)
    return 100 * sum(scores) / len(scores), 100 * corpus, len(scores)


@pytest.mark.parametrize("empty", ["one", "skip"])
def test_against_a_plain_computation(empty):
    rng = random.Random(1)
    pairs = []
    for _ in range(300):
        n = rng.randint(1, 9)
        gold = {span for span in random_binary(n, rng) if rng.random() < 0.4} | {(0, n)}
        predicted = {span for span in random_binary(n, rng) if rng.random() < 0.8}
        pairs.append((predicted, gold, n))
    f1 = SpanF1(empty)
    for predicted, gold, n in pairs:
        f1.update(predicted, gold, n)
    sentence, corpus, count = _reference(pairs, empty)
    assert f1.sentence_f1 == pytest.approx(sentence)
    assert f1.corpus_f1 == pytest.approx(corpus)
    assert f1.sentences == count


def test_worked_example():
    # Gold ((0 1) 2 (3 4)), prediction right-branching: (3, 5) of three predicted, two gold.
    f1 = SpanF1()
    gold = [(0, 5), (0, 2), (0, 2), (3, 5), (2, 3)]
    assert f1.update(right_branching(5), gold, 5) == pytest.approx(40.0)
    assert f1.update(((0, 2, "NP"), (2, 4, "VP")), [(0, 2), (2, 4)], 4) == 100.0
    assert (f1.matched, f1.predicted, f1.gold) == (3, 5, 4)
    assert f1.sentence_f1 == pytest.approx(70.0)
    assert f1.corpus_f1 == pytest.approx(200 * 3 / 9)


def test_sentences_without_gold_spans():
    one, skip = SpanF1(), SpanF1(empty="skip")
    for f1 in (one, skip):
        f1.update({(0, 2)}, {(0, 2)}, 2)
        f1.update(right_branching(3), {(0, 3)}, 3)
        f1.update(set(), set(), 1)
    assert one.sentences == 2 and one.sentence_f1 == 50.0 and one.corpus_f1 == 0.0
    assert skip.sentences == 0 and math.isnan(skip.sentence_f1)
    assert skip.predicted == 1  # a wrong span counts in corpus F1 either way
    assert math.isnan(SpanF1().corpus_f1)
    with pytest.raises(ValueError):
        SpanF1(empty="zero")
    assert "empty='one'" in SCORE_CONVENTION


def test_spans_must_lie_in_the_sentence():
    assert proper_spans([(0, 1), (0, 4), (1, 3), (1, 3)], 4) == {(1, 3)}
    for span in [(0, 5), (-1, 2), (2, 2), (3, 1)]:
        with pytest.raises(ValueError, match="span"):
            SpanF1().update([span], [], 4)


def test_branching_baselines():
    assert left_branching(4) == {(0, 2), (0, 3), (0, 4)}
    assert right_branching(4) == {(2, 4), (1, 4), (0, 4)}
    for n in (0, 1):
        assert left_branching(n) == right_branching(n) == random_binary(n, random.Random()) == set()


def test_random_trees_are_binary_and_split_uniformly():
    rng = random.Random(0)
    for n in range(2, 12):
        spans = random_binary(n, rng)
        assert len(spans) == n - 1 and (0, n) in spans
        for a, b in spans:
            for c, d in spans:
                assert not a < c < b < d  # no two cross
    # Four words: cutting in the middle has chance 1/3, each of the other four trees 1/6.
    draws = Counter(frozenset(random_binary(4, rng)) for _ in range(6000))
    balanced = frozenset({(0, 4), (0, 2), (2, 4)})
    assert len(draws) == 5
    for tree, count in draws.items():
        share = 1 / 3 if tree == balanced else 1 / 6
        assert abs(count - 6000 * share) < 5 * math.sqrt(6000 * share * (1 - share))

"""Labelled F1 under the best mapping of symbols to labels."""

import itertools

import numpy as np
import pytest
from nltk import Tree

from gfnem.parsing.trees.labels import LabelF1, best_pairing, labelled_spans


@pytest.mark.parametrize("shape", [(1, 1), (2, 5), (5, 2), (4, 4), (6, 6)])
def test_the_best_pairing_is_the_best_of_all(shape):
    rng = np.random.default_rng(sum(shape))
    for highest in (2, 50):
        for _ in range(10):
            counts = rng.integers(0, highest, shape)
            table = counts if shape[0] <= shape[1] else counts.T
            best = max(
                sum(table[row, column] for row, column in enumerate(columns))
                for columns in itertools.permutations(range(table.shape[1]), table.shape[0])
            )
            assert best_pairing(counts) == best


def test_larger_pairings_are_those_of_scipy():
    optimize = pytest.importorskip("scipy.optimize")
    counts = np.random.default_rng(0).integers(0, 1000, (40, 60))
    rows, columns = optimize.linear_sum_assignment(counts, maximize=True)
    assert best_pairing(counts) == counts[rows, columns].sum()


def test_labels_are_those_of_the_topmost_phrases():
    tree = Tree.fromstring("(TOP (S (NP (D the) (N dog)) (VP (V sees) (X (NP (D a) (N cat))))))")
    assert labelled_spans(tree) == {(0, 5): "TOP", (0, 2): "NP", (2, 5): "VP", (3, 5): "X"}


def test_symbols_are_mapped_to_what_they_meet():
    score = LabelF1()
    # two symbols that both mean NP most often, and one that means VP
    score.update(
        [(0, 5, 9), (0, 2, 0), (2, 5, 2), (3, 5, 1)], {(0, 2): "NP", (2, 5): "VP", (3, 5): "NP"}, 5
    )
    assert score.predicted == score.gold == 3
    assert score.many_to_one == 100
    assert score.one_to_one == pytest.approx(200 * 2 / 6)
    score.update([(0, 3, 9), (1, 3, 0)], {(0, 2): "NP"}, 3)  # no span in common
    assert score.many_to_one == pytest.approx(200 * 3 / 8)


def test_a_span_must_lie_in_its_sentence():
    with pytest.raises(ValueError, match="span"):
        LabelF1().update([(0, 9, 0)], {}, 3)

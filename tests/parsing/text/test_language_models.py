"""Word-level language models against counting by hand."""

import itertools
import math

import pytest

from gfnem.parsing.text.language_models import NGramModel

SENTENCES = [["a", "b", "a"], ["b", "a"], ["a", "a", "c"]]
WORDS = ["a", "b", "c", "d"]


def test_unigrams_by_hand():
    model = NGramModel(SENTENCES, WORDS, 1)
    # 11 tokens with the three ends, five types: a 5, b 2, c 1, d 0, end 3
    expected = math.log(6 / 16) + math.log(1 / 16) + math.log(4 / 16)
    assert model.log_prob(["a", "d"]) == pytest.approx(expected)


def test_bigrams_by_hand():
    model = NGramModel(SENTENCES, WORDS, 2)
    # after the start: a twice, b once; two types in three tokens, so 2 / 5 goes to unigrams
    start_a = (3 / 5) * (2 / 3) + (2 / 5) * (6 / 16)
    # after a: b, end, end, a, c; four types in five tokens
    a_end = (5 / 9) * (2 / 5) + (4 / 9) * (4 / 16)
    assert model.log_prob(["a"]) == pytest.approx(math.log(start_a) + math.log(a_end))


@pytest.mark.parametrize("order", [1, 2, 3])
def test_next_words_sum_to_one(order):
    model = NGramModel(SENTENCES, WORDS, order)
    for context in itertools.product([*WORDS, "<s>"], repeat=order - 1):
        total = sum(model._model.score(word, context) for word in [*WORDS, "</s>"])
        assert total == pytest.approx(1.0)


def test_trigrams_learn_order():
    cycle = [["a", "b", "c", "d"] * 3] * 5
    trigrams, unigrams = (NGramModel(cycle, WORDS, order).nll(cycle) for order in (3, 1))
    assert trigrams < 0.5 * unigrams


def test_nll_counts_ends_but_not_as_tokens():
    model = NGramModel(SENTENCES, WORDS, 3)
    total = model.log_prob(["a"]) + model.log_prob(["b", "c"])
    assert model.nll([["a"], ["b", "c"]]) == pytest.approx(-total / 3)


@pytest.mark.parametrize(
    "call",
    [
        lambda: NGramModel(SENTENCES, WORDS, 0),
        lambda: NGramModel(SENTENCES, ["a"], 1),
        lambda: NGramModel(SENTENCES, WORDS, 2).log_prob(["x"]),
    ],
)
def test_bad_arguments(call):
    with pytest.raises(ValueError, match=r"vocabulary lacks|at least 1"):
        call()

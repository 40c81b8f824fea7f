"""Rewards of sentences, against definitions written out."""

import math

import pytest
import torch
from tiny_sentences import GRAMMAR, SENTENCES

from gfnem.parsing import Sentences
from gfnem.parsing.generation import (
    Copied,
    Counted,
    GrammarTarget,
    NGram,
    SentenceData,
    Strings,
    WordLSTM,
)
from gfnem.parsing.generation.strings import all_sentences
from gfnem.parsing.text.language_models import NGramModel
from gfnem.testing import TargetTestCase


@pytest.fixture
def grammar_file(tmp_path):
    path = tmp_path / "tiny.pcfg"
    path.write_text(GRAMMAR)
    return str(path)


class TestCopied(TargetTestCase):
    def make_target(self):
        return Copied(2.0, 4, 6, 1)

    def make_x(self):
        return Sentences.from_lists(SENTENCES)

    def make_latents(self, x):
        return Strings.of(x, 6)

    def enumerate_latents(self, x):
        return Strings.of(x, 6)


class TestWordLSTM(TestCopied):
    def make_target(self):
        return WordLSTM(8, 4, 6, 1)


def words_of(x):
    rows = zip(x.tokens.tolist(), x.lengths.tolist(), strict=True)
    return [tuple(row[:length]) for row, length in rows]


def test_the_rules_count_words_that_are_wrong():
    x = all_sentences(3, 1, 5)
    copied, counted = Copied(1.5, 3, 5).log_reward(x), Counted(1.5, 1, 2, 3, 5).log_reward(x)
    for row, words in enumerate(words_of(x)):
        half = len(words) // 2
        odd = len(words) % 2
        wrong = sum(a != b for a, b in zip(words[:half], words[half:], strict=False)) + odd
        assert copied[row] == -1.5 * wrong
        ends = words[:half] + words[len(words) - half :]
        wanted = (1,) * half + (2,) * half
        wrong = sum(a != b for a, b in zip(ends, wanted, strict=True)) + odd
        assert counted[row] == -1.5 * wrong


def test_words_that_are_not_there_are_refused():
    with pytest.raises(ValueError, match="two of 2 words"):
        Counted(1.0, 1, 2, 2, 5)


def test_log_partitions_are_sums_over_all_sentences(grammar_file):
    target = GrammarTarget(grammar_file, None, 0.05, 4, 2)
    x = all_sentences(target.vocab_size, 2, 4)
    total = target.log_reward(x).double().logsumexp(0)
    assert target.offers("log_partition")
    assert float(target.log_partition()) == pytest.approx(float(total), abs=1e-5)
    assert target.log_reward(x).isfinite().all()
    assert not GrammarTarget(grammar_file, None, 0.0, 4, 2).log_reward(x).isfinite().all()
    rule = Copied(2.0, 4, 4, 2)
    assert float(rule.log_partition()) == pytest.approx(float(rule.log_reward(x).logsumexp(0)))
    assert not Copied(2.0, 500, 20, 2).offers("log_partition")


@pytest.mark.parametrize("order", [1, 2, 3])
def test_n_grams_are_those_of_another_implementation(order, grammar_file):
    data = SentenceData(grammar=grammar_file, sentences=80, max_length=6, valid_sentences=0, seed=1)
    facts = data.facts()
    model = NGram(order, facts["vocab_size"], facts["longest"], facts["shortest"])
    model.prepare(data)
    names = data.vocabulary.to_list()
    other = NGramModel(data.train.tokens, names, order)
    x = all_sentences(len(names), 1, 3)
    found = model.log_reward(x)
    for row, words in enumerate(words_of(x)):
        expected = other.log_prob([names[word] for word in words])
        assert float(found[row]) == pytest.approx(expected, abs=1e-4)


@torch.no_grad()
def test_language_models_are_normalised_over_sentences_of_all_lengths():
    torch.manual_seed(0)
    model = WordLSTM(8, 2, 9, 1)
    total = model.log_reward(all_sentences(2, 1, 9)).logsumexp(0)
    empty = model.log_reward(Sentences(torch.zeros(1, 1, dtype=torch.long), torch.zeros(1).long()))
    assert math.exp(float(total)) + math.exp(float(empty[0])) < 1


def test_tables_that_are_too_large_are_refused():
    with pytest.raises(ValueError, match="too many n-grams"):
        NGram(4, 10_000, 20, 2)

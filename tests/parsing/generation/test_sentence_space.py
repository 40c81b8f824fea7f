"""The space of sentences and the sampler that writes from left to right, by exhaustive search."""

import pytest
import torch
from tiny_sentences import SENTENCES

from gfnem.parsing import Sentences
from gfnem.parsing.generation import Copied, LeftToRight, SentenceSpace, Strings
from gfnem.parsing.generation.strings import all_sentences, how_many, nothing
from gfnem.testing import LatentSpaceTestCase, PolicyTestCase


class TestSentenceSpace(LatentSpaceTestCase):
    """A sentence of no words leaves everything to be built, another nothing."""

    def make_space(self):
        return SentenceSpace(2, 3, 2)

    def make_x(self):
        x = Sentences.from_lists([[0], [1, 0, 1]])
        x.lengths[0] = 0
        return x

    def take(self, x, row):
        return Sentences(x.tokens[row : row + 1], x.lengths[row : row + 1])

    def count_objects(self, row):
        return (12, 1)[row]

    count_trajectories = count_objects

    def make_policy(self):
        return LeftToRight(2, 3, 2, dim=4)


class TestLeftToRight(PolicyTestCase):
    def make_policy(self):
        return LeftToRight(3, 4, 1, dim=8)

    def make_target(self):
        return Copied(1.0, 3, 4, 1)

    def make_space(self):
        return SentenceSpace(3, 4, 1)

    def make_x(self):
        return nothing(4)


def test_sentences_are_listed():
    x = all_sentences(3, 1, 3)
    assert len(x) == how_many(3, 1, 3) == 39
    listed = {tuple(row[:n]) for row, n in zip(x.tokens.tolist(), x.lengths.tolist(), strict=True)}
    assert len(listed) == 39 and {len(words) for words in listed} == {1, 2, 3}


@torch.no_grad()
def test_sentences_sum_to_one():
    torch.manual_seed(0)
    policy, x = LeftToRight(3, 4, 2, dim=8), all_sentences(3, 2, 4)
    assert float(policy.log_sentence(x).exp().sum()) == pytest.approx(1.0, abs=1e-5)


def test_strings_go_back_and_forth():
    x = Sentences.from_lists(SENTENCES)
    z = Strings.drawn(x, 6)
    assert z.tokens.shape == (1, len(SENTENCES), 6)
    assert z.sentences().tokens.tolist() == x.tokens.tolist()

"""Repeated substrings, counted and valued by hand with Python's own counters."""

import math
from collections import Counter

import pytest
import torch

from gfnem.component import build
from gfnem.errors import UserError
from gfnem.parsing import Agreement, Coverage, Sentences, Substrings, TextData
from gfnem.parsing.inference.log_joint import span_scores
from gfnem.parsing.rewards.ngrams import NgramTable
from gfnem.parsing.text.fingerprints import fingerprint
from gfnem.parsing.text.raw import RawText
from gfnem.reward import Reward

DOCUMENTS = {
    "mice.txt": """\
the gene expression of the mouse was high, and gene expression fell.
in the mouse (as in the rat) gene expression was seen in the adult mouse brain
the adult mouse brain; the adult mouse brain has a very long sentence about gene expression in mice
""",
    "cars.txt": """\
the engine of the car was seen
the engine of the bus, the engine of the car
in the car
""",
}


@pytest.fixture
def data(tmp_path):
    for name, text in DOCUMENTS.items():
        (tmp_path / name).write_text(text)
    return TextData(str(tmp_path), max_length=12, min_count=1, valid_sentences=0, cache="off")


def texts():
    """Words, whether each closes, document; as a person would read the files."""
    for name, text in DOCUMENTS.items():
        for line in text.splitlines():
            words, closed = [], []
            for token in line.replace(",", " ,").replace(".", " .").replace(";", " ;") \
                    .replace("(", " ( ").replace(")", " ) ").split():  # fmt: skip
                if token in ",.;()":
                    closed[-1] = True
                else:
                    words.append(token)
                    closed.append(False)
            closed[-1] = True
            yield words, closed, name


def counted():
    total, closing, local = Counter(), Counter(), Counter()
    for words, closed, name in texts():
        for start in range(len(words)):
            for end in range(start + 1, min(start + 8, len(words)) + 1):
                gram = tuple(words[start:end])
                total[gram] += 1
                closing[gram] += closed[end - 1]
                local[gram, name] += 1
    return total, closing, local


def by_hand(words, name, weights):
    """The value of every span of a sentence."""
    total, closing, local = counted()
    size = sum(count for gram, count in total.items() if len(gram) == 1)
    closed = sum(count for gram, count in closing.items() if len(gram) == 1)
    spread = Counter(gram for gram, _ in local)
    length, values = len(words), {}
    for start in range(length):
        for end in range(start + 2, length + 1):
            gram, value = tuple(words[start:end]), 0.0
            if len(gram) <= 8 and total[gram] > 1:
                log = {g: math.log(total[g] / size) for g in _parts(gram)}
                least = min(log[gram] - log[gram[:k]] - log[gram[k:]] for k in range(1, len(gram)))
                value += weights["information"] * least / -log[gram]
                here = {g: c if (c := local[g, name]) > 1 else 0 for g in _parts(gram)}
                if here[gram]:
                    value += weights["terms"] * math.log(here[gram]) * math.log(2 / spread[gram])
                    value += weights["cohesion"] * min(
                        here[gram] / max(here[gram[:k]], here[gram[k:]])
                        for k in range(1, len(gram))
                    )
            last = words[end - 1]
            seen = total[last,] if total[last,] > 1 else 0
            ending = closing[last,] if seen else 0
            share = (ending + 5 * closed / size) / (seen + 5)
            value += weights["pauses"] * math.log(share * size / closed)
            value += weights["right"] * (end == length)
            values[start, end] = value
    return values


def _parts(gram):
    return {
        gram,
        *(gram[:k] for k in range(1, len(gram))),
        *(gram[k:] for k in range(1, len(gram))),
    }


def test_spans_by_hand(data):
    reward = Substrings(1.0)
    reward.prepare(data)
    rows = list(range(len(data.sizes())))
    x = data.batch(rows)
    spans = reward.spans(x)
    assert len(x) == 4  # two sentences are too long to train on, and are counted all the same
    names = {tuple(words): name for words, _, name in texts()}
    for row in rows:
        words = data.vocabulary.decode(x.tokens[row, : x.lengths[row]].tolist())
        expected = by_hand(words, names[tuple(words)], reward.weights)
        found = torch.zeros_like(spans[row])
        for (start, end), value in expected.items():
            found[start, end] = value
        torch.testing.assert_close(spans[row], found, atol=1e-5, rtol=1e-5)
    line = reward.summary()
    assert "2 documents (files)" in line and "in 6 sentences" in line and "Substrings" in line


def test_a_table_counts_what_comes_twice_and_no_more():
    total, closing, local = counted()
    raw = [RawText(words, closed, fingerprint(name)) for words, closed, name in texts()]
    table = NgramTable.count(raw, 8)
    twice = {gram for gram, count in total.items() if count > 1}
    assert len(table.grams) == len(twice)
    assert sorted(table.counts.tolist()) == sorted(total[gram] for gram in twice)
    assert sorted(table.closed.tolist()) == sorted(closing[gram] for gram in twice)
    assert sorted(table.local_counts.tolist()) == sorted(c for c in local.values() if c > 1)
    assert table.totals.tolist()[2:] == [2, 6]
    few = NgramTable.count(raw, 8, most=10)
    assert 0 < len(few.grams) <= 10 and int(few.counts.min()) > sorted(table.counts.tolist())[0]
    assert NgramTable.count(raw, 3).counts.numel() == sum(len(gram) <= 3 for gram in twice)


def test_what_the_text_does_not_say_is_worth_nothing(data):
    reward = Substrings()
    x = Sentences.from_words([["quite", "other", "words", "here"]], data.vocabulary)
    unread = reward.spans(x)
    assert (unread.sum(), unread.abs().sum()) == (unread[0, :, 4].sum(), unread[0, :, 4].sum())
    reward.prepare(data)
    drawn = Sentences.from_lists([[1, 2, 3, 1]])  # as a model draws them
    assert not reward.spans(drawn).any()
    single = Sentences.from_words([["mouse"]], data.vocabulary)
    assert not reward.spans(single).any()


@pytest.mark.parametrize("kind", [Substrings, Coverage, Agreement])
def test_a_checkpoint_holds_the_statistics(data, kind):
    reward = kind(2.0)
    reward.prepare(data)
    x = data.batch([0, 1, 2])
    z = _right(x)
    reward.observe(x, z)
    twin = build(reward.spec(), Reward)
    assert not torch.equal(twin.spans(x), reward.spans(x))
    twin.load_state_dict(reward.state_dict())
    assert torch.equal(twin.spans(x), reward.spans(x))
    assert torch.equal(twin(x, z), reward(x, z))


def _right(x):
    from gfnem.parsing import Trees

    trees = [[[(left, n, left + 1, 0) for left in range(n - 1)]] for n in x.lengths.tolist()]
    return Trees.from_nodes(trees, x.lengths)


def test_coverage_counts_each_word_once(data):
    reward = Coverage(right=0.0, pauses=0.0, scale=3.0)
    reward.prepare(data)
    x = data.batch(range(len(data.sizes())))
    z = _right(x)
    spans, found = reward.spans(x), reward(x, z)
    for row in range(len(x)):
        length = int(x.lengths[row])
        best = [
            max(
                0.0,
                *(
                    float(spans[row, i, length]) / (length - i)
                    for i in range(min(word + 1, length - 1))
                ),
            )
            for word in range(length)
        ]
        assert float(found[row, 0]) == pytest.approx(3 * sum(best), abs=1e-4)
    assert not reward.offers("parts") and reward.offers("hint")


def test_agreement_rewards_the_usual_split(data):
    reward = Agreement(agreement=1.0, memory=4)
    reward.prepare(data)
    x = Sentences.from_words([["adult", "mouse", "brain"]], data.vocabulary)
    from gfnem.parsing import Trees

    right = Trees.from_nodes([[[(0, 3, 1, 0), (1, 3, 2, 0)]]], [3])
    left = Trees.from_nodes([[[(0, 3, 2, 0), (0, 2, 1, 0)]]], [3])
    for z in (right, left):  # nothing is usual yet
        torch.testing.assert_close(reward(x, z), span_scores(reward.spans(x), z).sum(2))
    before = reward(x, right) - reward(x, left)
    for _ in range(3):
        reward.observe(x, right)
    gain = reward(x, right) - reward(x, left) - before
    # 1, 1.75, 2.3125 uses of the split after each step; and one more of both
    torch.testing.assert_close(gain, torch.tensor([[math.log(3.3125)]]))
    for _ in range(40):
        reward.observe(x, left)
    assert float(reward(x, right) - reward(x, left) - before) < -1


def test_only_text_has_substrings():
    from gfnem.mixtures import Petals

    with pytest.raises(UserError, match="Petals"):
        Substrings().prepare(Petals())

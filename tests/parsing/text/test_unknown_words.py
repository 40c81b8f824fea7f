from collections import Counter

import pytest

from gfnem.parsing.grammars.word_layer import word_features
from gfnem.parsing.text.unknown_words import FEWEST, choose_classes, class_of, classes_of
from gfnem.parsing.text.vocabulary import Vocabulary


@pytest.mark.parametrize(
    ("word", "classes"),
    [
        ("running", ["word-ing", "word-ng", "word-g", "word"]),
        ("Oslo", ["capital-lo", "capital-o", "capital"]),
        ("0", ["number"]),
        ("0,0", ["number"]),
        ("p0", ["digit"]),
        ("well-known", ["hyphen-own", "hyphen-wn", "hyphen-n", "hyphen"]),
        ("--", ["mark"]),
        ("ab", ["word"]),
    ],
)
def test_the_classes_of_a_word_from_the_narrowest_to_the_widest(word, classes):
    assert list(classes_of(word)) == [f"<unk:{name}>" for name in classes]


def test_a_class_is_as_narrow_as_its_tokens_allow():
    counts = {"singing": FEWEST, "tang": FEWEST - 2, "song": 1, "cat": 3, "0": FEWEST}
    chosen = choose_classes(counts)
    # "tang" and "song" have one token less than "-ng" wants
    assert chosen == ["<unk:word>", "<unk:number>", "<unk:word-ing>"]
    assert class_of("bring", chosen) == "<unk:word-ing>"
    assert class_of("tang", chosen) == "<unk:word>"
    assert class_of("--", chosen) is None


def test_each_class_has_enough_tokens_of_its_own():
    words = [a + b + c for a in "bdfg" for b in ("ack", "ock", "ing", "00", "-x-y") for c in "sty"]
    counts = {word: 1 + at % 5 for at, word in enumerate(words)}
    chosen = choose_classes(counts)
    tokens = Counter()
    for word, count in counts.items():
        tokens[class_of(word, chosen)] += count
    assert len(chosen) > 3
    assert all(tokens[name] >= FEWEST for name in chosen)


def test_a_vocabulary_sends_unknown_words_to_their_classes():
    sentences = [
        ["the", "the", "dog", "dog"],
        [f"{letter}ing" for letter in "abcdefghijklmnopqrst"],
    ]
    vocabulary = Vocabulary.build(sentences, classes=True)
    assert vocabulary.to_list() == ["<unk>", "dog", "the", "<unk:word-ng>"]
    encoded = vocabulary.encode(["the", "zing", "--", "<unk>", "<UNK>", "<unk:word-ng>"])
    assert encoded == [2, 3, 0, 0, 0, 3]
    assert vocabulary.unknown_rate(["the", "zing", "--", "<unk:word-ng>"]) == 0.75
    assert Vocabulary.from_list(vocabulary.to_list()).encode(["zing"]) == [3]
    assert len(Vocabulary.build(sentences, max_size=3, classes=True)) == 3
    # a text that such a model has written names classes itself
    again = Vocabulary.build([*sentences, vocabulary.to_list() * 3], classes=True)
    assert again.to_list() == vocabulary.to_list()


def test_classes_share_no_features_with_words_that_are_spelled_alike():
    assert word_features("<unk:word-ing>") == ["<unk:word-ing>"]
    assert word_features("<unk>") == ["<unk>"]

import random

import pytest

from gfnem.errors import UserError
from gfnem.parsing.text.vocabulary import Vocabulary

SENTENCES = [["b", "a", "c", "a"], ["b", "<unk>", "<unk>", "<unk>", "d"], ["e", "e", "e"]]


def test_build_orders_by_count_then_word_whatever_the_order_of_the_text():
    expected = ["<unk>", "e", "a", "b"]
    rng = random.Random(0)
    for _ in range(10):
        sentences = [rng.sample(tokens, len(tokens)) for tokens in SENTENCES]
        rng.shuffle(sentences)
        assert Vocabulary.build(sentences).to_list() == expected
    assert Vocabulary.build(SENTENCES, min_count=1).to_list() == [*expected, "c", "d"]
    assert Vocabulary.build(SENTENCES, min_count=1, max_size=3).to_list() == expected[:3]


def test_encode_decode_and_unknown_rate():
    vocabulary = Vocabulary.build(SENTENCES)
    assert vocabulary.encode(["a", "zebra", "<unk>", "e"]) == [2, 0, 0, 1]
    assert vocabulary.decode([2, 0, 1]) == ["a", "<unk>", "e"]
    assert vocabulary.unknown_rate(["a", "zebra", "<unk>", "e"]) == 0.5
    assert vocabulary.unknown_rate([]) == 0.0
    assert len(vocabulary) == 4 and "a" in vocabulary and "zebra" not in vocabulary
    for index in (-1, 4):
        with pytest.raises(IndexError):
            vocabulary.decode([index])


def test_round_trips(tmp_path):
    vocabulary = Vocabulary(["the", "-LRB-", "naïve", "<x&y>"])
    assert Vocabulary.from_list(vocabulary.to_list()) == vocabulary
    vocabulary.save(tmp_path / "new" / "words.txt")
    assert Vocabulary.load(tmp_path / "new" / "words.txt") == vocabulary
    (tmp_path / "dos.txt").write_bytes("\ufeffthe\r\n-LRB-\r\nnaïve\r\n<x&y>".encode())
    assert Vocabulary.load(tmp_path / "dos.txt") == vocabulary


@pytest.mark.parametrize("words", [["a", "a"], ["a b"], [""], ["a", "<unk>"]])
def test_bad_words(words):
    with pytest.raises(ValueError):
        Vocabulary(words)


def test_bad_lists_and_files(tmp_path):
    with pytest.raises(ValueError, match="starts with"):
        Vocabulary.from_list(["a"])
    path = tmp_path / "words.txt"
    for content, message in [
        ("a\nb\na\n", "line 3: 'a' stands in line 1 too"),
        ("a\n\nb\n", "line 2: one word"),
        ("a\nb c\n", "line 2: one word"),
        ("a\n<unk>\n", "line 2"),
    ]:
        path.write_text(content)
        with pytest.raises(UserError, match=message):
            Vocabulary.load(path)
    with pytest.raises(UserError, match="lower min_count"):
        Vocabulary.build([["a"], ["b"]])
    with pytest.raises(UserError, match="no room"):
        Vocabulary.build(SENTENCES, max_size=1)


def test_words_that_no_text_spells_so_are_known_by_their_one_spelling():
    vocabulary = Vocabulary(["-LRB-", "1\\/2", "it’s", "dog"])
    assert vocabulary.encode(["-LRB-", "(", "1/2", "it's", "dog"]) == [1, 1, 2, 3, 4]
    assert Vocabulary(["-LRB-", "("]).encode(["("]) == [2]
    assert vocabulary.to_list() == ["<unk>", "-LRB-", "1\\/2", "it’s", "dog"]

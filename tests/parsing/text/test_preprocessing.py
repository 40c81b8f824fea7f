import random

import pytest
from nltk.tokenize import NLTKWordTokenizer

from gfnem.parsing.text.characters import clean, places
from gfnem.parsing.text.preprocessing import Preprocessing
from gfnem.parsing.text.raw import RawText

WORDS = (
    """the cat cannot CANNOT gonna wanna Gimme don't isn't can't. DON'T 'tis d'ye more'n they'll X's
    dogs' 'him' ''a b'' " "q" q" ( ) [x] {y} . .. ... .) ." x. x.) x." a.b 3.5 3.5. 3,140 1,000)
    a: a, , : ; ? ! ?! -- - $5 5% &c @x #y * `q` ``q'' “q” ‘q’ don’t «a» it's, it's. he'll?
    well-known, cannot-do cannot's 日本語。 é. É.) http://x.y/z?a=b :) ;-) the," of." and". it",
    (x). (x), "3.5." U.S. etc. e.g., lemmecafé isn't'S"""
).split()
CHARACTERS = "abnt.'\"`,:;?!-()[]{}<>$%&@#*/\\ 019“”‘’«»…—x "


def nltk(text: str) -> list[str]:
    return NLTKWordTokenizer().tokenize(" ".join(map(clean, text.split())))


@pytest.mark.slow
def test_lines_are_cut_as_nltk_cuts_them():
    rng = random.Random(0)
    kept = Preprocessing(lower=False, digits=False, punctuation=True)
    for number in range(1500):
        if number % 3:
            text = " ".join(rng.choices(WORDS, k=rng.randint(1, 7)))
        else:
            text = "".join(rng.choices(CHARACTERS, k=rng.randint(1, 20)))
        expected = [clean(word) for word in nltk(text)]
        assert kept.cut(text) == (expected, expected, 0, []), text
        assert kept.words(text) == expected, text


def test_a_line_becomes_the_same_however_it_is_asked():
    rng = random.Random(1)
    for settings in ({}, {"tokenizer": "space"}, {"lower": False, "punctuation": True}):
        preprocessing = Preprocessing(**settings)
        for _ in range(200):
            text = " ".join(rng.choices([*WORDS, "<unk>", "<UNK>,", "-LRB-"], k=rng.randint(1, 7)))
            words, offsets = preprocessing.located(text)
            found, tokens, removed, _ = preprocessing.cut(text)
            assert words == preprocessing.words(text) == found
            assert tokens == preprocessing.normalise(words)
            assert bool(removed) <= (not preprocessing.punctuation)
            assert len(words) == len(offsets) and offsets == sorted(offsets)


def test_a_text_pauses_where_its_punctuation_was():
    rng = random.Random(2)
    pausing = 0
    for settings in ({}, {"tokenizer": "space"}):
        removed, kept = Preprocessing(**settings), Preprocessing(**settings, punctuation=True)
        for _ in range(300):
            text = " ".join(rng.choices(WORDS, k=rng.randint(1, 9)))
            whole = RawText.read(kept.words(text), False, 0)
            closed = [] if whole is None else whole.closed[:-1]
            places = [place for place, pauses in enumerate(closed, start=1) if pauses]
            assert removed.cut(text).pauses == places, text
            assert removed.cut_already(kept.words(text)).pauses == places
            assert kept.cut(text).pauses == []
            pausing += bool(places)
    assert pausing > 200


@pytest.mark.parametrize(
    ("tokenizer", "text", "places"),
    [
        ("wordpunct", "we gave 3.5 cells, at 12:30, to mice", [5, 8]),
        ("wordpunct", "the U.S. cells e.g. bind", [3, 6]),
        ("wordpunct", 'it said "cells," then -- mice left.', [3, 4]),
        ("word", "the U.S. cells, e.g. 3.5 mm, bind", [3, 6]),
        ("word", 'it said "cells," then -- mice (left).', [3, 4, 5]),
        ("space", "a ― b ⋯ c 【 d 】 e ｡ f ,' g", [1, 2, 3, 4, 5, 6]),
        ("character", "我，你 3.5 他", [1]),
    ],
)
def test_where_a_text_pauses(tokenizer, text, places):
    assert Preprocessing(tokenizer).cut(text).pauses == places


def test_what_has_been_seen_is_forgotten_in_time(monkeypatch):
    monkeypatch.setattr("gfnem.parsing.text.preprocessing._REMEMBERED", 3)
    preprocessing = Preprocessing()
    for number in range(10):
        assert preprocessing.cut(f"a{number}, b{number}, c.").tokens == [f"a{0}", f"b{0}", "c"]
    assert len(preprocessing._middle) <= 3


@pytest.mark.parametrize(
    ("spelt", "word"),
    [
        ("cafe\u0301", "café"),
        ("\ufeffa\u200bb\u200e", "ab"),
        ("a\u200db", "ab"),
        ("👩\u200d💻", "👩\u200d💻"),
        ("می\u200cخواهم", "می\u200cخواهم"),
        ("don’t", "don't"),
        ("“so”", '"so"'),
        ("-lrb-", "("),
        ("-RSB-", "]"),
        ("and\\/or", "and/or"),
        ("<UNK>", "<unk>"),
        ("\u1112\u1161\u11ab", "한"),
        ("\u200b", ""),
    ],
)
def test_one_spelling(spelt, word):
    assert clean(spelt) == word == clean(word)
    spots = places(spelt)
    if spots is not None:
        assert len(spots) == len(word)


def test_typographic_marks_are_read_as_straight_ones():
    curly = "He said “don’t go” to ‘him’, it’s the dogs’ rock ’n’ roll."
    straight = "He said \"don't go\" to 'him', it's the dogs' rock 'n' roll."
    for kept in (True, False):
        preprocessing = Preprocessing(punctuation=kept)
        assert preprocessing.cut(curly) == preprocessing.cut(straight)
    assert Preprocessing().words("I don’t") == ["I", "do", "n't"]


def test_places_are_those_of_the_text_as_it_is():
    text = 'He said “don’t go” to\u200b Zoe\u0308 (-LRB- x)\t "and"  and\\/or <UNK>.'
    words, offsets = Preprocessing().located(text)
    assert words == ["He", "said", "do", "n't", "go", "to", "Zoë", "x", "and", "and/or", "<unk>"]
    assert [text[start:end] for start, end in offsets] == [
        *("He", "said", "do", "n’t", "go", "to", "Zoe\u0308", "x", "and", "and\\/or", "<UNK>")
    ]
    words, offsets = Preprocessing(punctuation=True).located('"a" -LRB- b.')
    assert words == ["``", "a", "''", "(", "b", "."]
    assert offsets == [(0, 1), (1, 2), (2, 3), (4, 9), (10, 11), (11, 12)]

"""Tokenizers beside the default one."""

import json
import sys

import pytest

from gfnem.errors import UserError
from gfnem.parsing.text.corpus import read_corpus
from gfnem.parsing.text.preprocessing import Preprocessing
from gfnem.parsing.text.tokenizers import places


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("character", "我喜歡 NLTK 3.5。", ["我", "喜", "歡", "NLTK", "3", ".", "5", "。"]),
        ("character", "ที่นี่ cafe\u0301s", ["ที่", "นี่", "cafe\u0301s"]),
        ("character", "한국어 텍스트", ["한국어", "텍스트"]),
        ("wordpunct", "l'eau, (3,5)!?", ["l", "'", "eau", ",", "(", "3", ",", "5", ")!?"]),
    ],
)
def test_words_and_their_places(name, text, words):
    found = places(name)(text)
    assert [text[start:end] for start, end in found] == words
    assert "".join(words) == "".join(text.split())


@pytest.mark.parametrize("name", ["wordpunct", "character"])
def test_a_line_becomes_the_same_however_it_is_asked(name):
    for punctuation in (False, True):
        preprocessing = Preprocessing(name, punctuation=punctuation)
        for text in ("“水”喝3杯, OK?", "  the dog's  <unk> bone. ", "cafe\u0301 ที่", "", "?!"):
            words, offsets = preprocessing.located(text)
            found, tokens, removed, _ = preprocessing.cut(text)
            assert words == preprocessing.words(text) == found
            assert tokens == preprocessing.normalise(words)
            assert bool(removed) <= (not punctuation)
            assert len(words) == len(offsets) and offsets == sorted(offsets)


def test_a_corpus_without_spaces():
    corpus = read_corpus(["我喜歡狗。", "狗喜歡我！"], tokenizer="character")
    assert corpus.tokens == [["我", "喜", "歡", "狗"], ["狗", "喜", "歡", "我"]]


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("bpe", "choose one of word, space"),
        ("spacy:", "choose one of"),
        ("tokenizers:no/such.json", "no file|pip install tokenizers"),
        ("spacy:xx-none", "spacy"),
    ],
)
def test_what_cannot_be_used_is_said_at_once(name, why):
    with pytest.raises(UserError, match=why):
        places(Preprocessing(name).tokenizer)


def test_what_is_not_installed_is_said_at_once(monkeypatch):
    monkeypatch.setitem(sys.modules, "spacy", None)
    monkeypatch.setattr("gfnem.parsing.text.tokenizers.find_spec", lambda name: None)
    with pytest.raises(UserError, match="pip install spacy"):
        Preprocessing("spacy:en")


def test_spacy():
    pytest.importorskip("spacy")
    preprocessing = Preprocessing("spacy:fr", punctuation=True)
    assert preprocessing.words("L'eau, c'est bon.") == ["L'", "eau", ",", "c'", "est", "bon", "."]


def test_a_saved_tokenizer(tmp_path, monkeypatch):
    tokenizers = pytest.importorskip("tokenizers")
    made = tokenizers.Tokenizer(tokenizers.models.WordLevel({"the": 0, "?": 1}, unk_token="?"))
    made.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    made.save(str(tmp_path / "made.json"))
    monkeypatch.chdir(tmp_path)
    preprocessing = Preprocessing("tokenizers:made.json")
    assert preprocessing.tokenizer == f"tokenizers:{tmp_path.resolve() / 'made.json'}"
    assert preprocessing.words("the dog, the cat") == ["the", "dog", "the", "cat"]
    (tmp_path / "bad.json").write_text(json.dumps([]))
    with pytest.raises(UserError, match=r"bad\.json"):
        places("tokenizers:bad.json")

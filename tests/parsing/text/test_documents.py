"""Which documents there are, and what is read of their sentences."""

import numpy as np
import pytest

from gfnem.parsing import TextData
from gfnem.parsing.text.corpus import read_corpus
from gfnem.parsing.text.documents import BLOCK, Documents
from gfnem.parsing.text.fingerprints import fingerprint
from gfnem.parsing.text.raw import RawText


def corpus(source, **settings):
    return read_corpus(str(source), min_length=1, max_length=None, cache="off", **settings)


def groups(source, **settings):
    found = corpus(source, **settings)
    documents = Documents(found)
    keys = documents.of(found).tolist()
    assert len(set(keys)) == documents.count and 0 not in keys
    return documents.how, [keys.index(key) for key in keys]


def test_files(tmp_path):
    (tmp_path / "a.txt").write_text("one dog\ntwo dogs\n")
    (tmp_path / "b.txt").write_text("one cat\n\ntwo cats\n")
    assert groups(tmp_path) == ("files", [0, 0, 2, 2])


def test_blank_lines(tmp_path):
    (tmp_path / "text").write_text("a b\nc d\ne f\n\n\ng h\ni j\nk l\n")
    assert groups(tmp_path / "text") == ("parts between blank lines", [0, 0, 0, 3, 3, 3])


def test_rows_of_a_table(tmp_path):
    (tmp_path / "t.csv").write_text('text\n"a b\nc d\ne f"\n"g h\ni j\nk l"\n')
    assert groups(f"{tmp_path / 't.csv'}:text") == ("rows", [0, 0, 0, 3, 3, 3])


@pytest.mark.parametrize("between", ["\n", "\n\n"])  # double-spaced text has no documents either
def test_blocks_of_lines(tmp_path, between):
    (tmp_path / "text").write_text(between.join(["a dog"] * (BLOCK + 50)) + "\n")
    how, found = groups(tmp_path / "text")
    assert how == f"blocks of {BLOCK} lines" and found == [0] * BLOCK + [BLOCK] * 50


def test_training_sentences_stand_in_the_documents_of_the_whole_text(tmp_path):
    long = "a very long sentence " * 10
    blocks = [f"a b{k}\n{long}\nc{k} d\ne f{k}\n" for k in "abcdefghij"]
    (tmp_path / "text").write_text("\n".join(blocks))
    data = TextData(str(tmp_path / "text"), min_count=1, valid_sentences=3, cache="off", seed=1)
    assert not data.batch([0, 1, 2]).documents.any()  # nobody has asked
    texts, how = data.texts()
    texts = list(texts)
    assert how == "parts between blank lines" and len(texts) == 40
    x = data.batch(range(len(data.sizes())))
    (held_out,) = data.validation_batches()
    by_words = {tuple(map(fingerprint, text.words)): text.document for text in texts}
    for batch in (x, held_out):
        for row in range(len(batch)):
            assert int(batch.documents[row]) == by_words[tuple(batch.keys[row].tolist())]
    assert len(list(data.texts(4)[0])) == 4


def test_other_sources_are_in_no_document(tmp_path):
    for name in "ab":
        (tmp_path / name).write_text("one dog\ntwo dogs\n")
    documents = Documents(corpus(tmp_path / "a"))
    assert not documents.of(corpus(tmp_path / "b")).any()


def test_raw_text_pauses_at_punctuation_and_at_the_end():
    tokens = ["well", ",", "a", "state-of-the-art", "(", "so", ")", "5", "%", "rise", "/", "fall"]
    text = RawText.read(tokens, False, 7)
    assert text.words == ["well", "a", "state-of-the-art", "so", "5", "rise", "fall"]
    assert text.closed == [True, False, True, True, False, False, True] and text.document == 7
    kept = RawText.read(["a", ",", "b"], True, 7)
    assert kept.words == ["a", ",", "b"] and kept.closed == [True, False, True]
    assert RawText.read([".", "(", ")"], False, 7) is None


def test_fingerprints_are_the_same_in_every_process():
    assert fingerprint("dog") == fingerprint("dog") != fingerprint("dogs")
    assert fingerprint("dog") == 2072328596179865167 and 0 < fingerprint("") < 2**63
    assert np.int64(fingerprint("\ud800")) != 0  # half a pair of surrogates

import io

import pytest
from nltk import Tree

from gfnem.errors import UserError
from gfnem.parsing.text.corpus import Preprocessing, parse_dataset_name, read_corpus, read_sentences


def _file(folder, content, name="text.txt"):
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


TEXT = (
    "\ufeffThe cat didn't see 3,140 dogs.\r\n"
    "\r\n"
    "   \t\r\n"
    "...!?\r\n"
    "Stop!\r\n" + "word " * 2000 + '\r\nIt\'s (really) over; she said: "go".\r\n'
)


def test_plain_text_with_every_kind_of_line(tmp_path):
    corpus = read_corpus(_file(tmp_path, TEXT))
    assert corpus.tokens == [
        ["the", "cat", "did", "n't", "see", "0,0", "dogs"],
        ["it", "'s", "really", "over", "she", "said", "go"],
    ]
    assert corpus.data["line"][:] == [1, 7]
    assert corpus.spans == [None, None] and corpus.data["tree"][:] == [None, None]
    assert corpus.skipped == {"blank": 2, "only punctuation": 1, "too long": 1, "too short": 1}
    assert corpus.read == 7 and len(corpus) == 2
    assert corpus.summary() == (
        "7 lines: 2 sentences kept (7-7 tokens); skipped 2 blank, 1 only punctuation, "
        "1 longer than 20, 1 shorter than 2; 8 words removed as punctuation"
    )
    assert [path.name for path in tmp_path.iterdir()] == ["text.txt"]


def test_options(tmp_path):
    path = _file(tmp_path, TEXT)
    corpus = read_corpus(
        path, lower=False, digits=False, punctuation=True, min_length=1, max_length=None
    )
    lengths = [len(tokens) for tokens in corpus.tokens]
    assert max(lengths) == 2000 and corpus.tokens[2] == ["Stop", "!"]
    assert corpus.tokens[0] == ["The", "cat", "did", "n't", "see", "3,140", "dogs", "."]
    assert read_corpus(path, tokenizer="space").tokens[0][2:] == ["didn't", "see", "0,0", "dogs."]
    one = read_corpus(path, min_length=1, max_length=1)
    assert one.tokens == [["stop"]] and one.summary().startswith("7 lines: 1 sentence kept")


def test_unknown_word_marks_survive_the_tokenizer():
    words = Preprocessing().words("the <unk> said <unk>, N times")
    assert words == ["the", "<unk>", "said", "<unk>", "N", "times"]


@pytest.mark.parametrize("tokenizer", ["word", "space"])
@pytest.mark.parametrize("punctuation", [True, False])
def test_long_lines_are_told_before_tokenising_and_never_wrongly(tokenizer, punctuation):
    preprocessing = Preprocessing(tokenizer, punctuation=punctuation)
    for text in [
        "a b c d e",
        "a , b -- c . d e !",
        "can't won't cannot ... gimme",
        "- - - - - - a",
    ]:
        length = len(preprocessing.words(text))
        assert not preprocessing.longer_than(text, length)
    assert preprocessing.longer_than("a b c d e", 4)


def test_bracketed_text_file_and_folder(tmp_path):
    trees = "(S (NP-SBJ (DT The) (NN Dog)) (VP (VBD ate) (NP (CD 12) (NNS ba(ds))) (. .))\n"
    trees = trees.replace("ba(ds", "bones")
    path = _file(tmp_path, trees + "( (NP (NN Abstract)) )\n(S (. .))\n", "text.mrg")
    folder = tmp_path / "folder"
    folder.mkdir()
    _file(folder, trees, "x.mrg")
    for source in (path, str(folder)):
        corpus = read_corpus(source)
        assert corpus.tokens == [["the", "dog", "ate", "0", "bones"]]
        assert corpus.spans == [{(0, 5), (0, 2), (2, 5), (3, 5)}]
        tree = Tree.fromstring(corpus.data["tree"][0])
        assert tree.leaves() == ["The", "Dog", "ate", "12", "bones"]
    corpus = read_corpus(path)
    assert corpus.skipped == {"blank": 0, "only punctuation": 1, "too long": 0, "too short": 1}
    assert corpus.unit == "trees" and corpus.data["source"][0] == str(path)
    assert read_corpus(path, punctuation=True).tokens[0][-1] == "."


def test_token_lists_in_memory():
    corpus = read_corpus([["A", "b", "."], [], ["!"], ["a"], iter(["x"] * 30), "Text is cut."])
    assert corpus.tokens == [["a", "b"], ["text", "is", "cut"]]
    assert corpus.skipped == {"blank": 1, "only punctuation": 1, "too long": 1, "too short": 1}
    assert corpus.data["line"][:] == [1, 6]
    for bad in ([["a", 3]], [["a", ""]], [["a b"]]):
        with pytest.raises(UserError, match="number 1: not a word"):
            read_corpus(bad)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "the file is empty"),
        (b"\n\n\n", "no sentence left of 3 lines; skipped 3 blank"),
        (b"one\ntwo\n", "no sentence left of 2 lines; skipped 2 shorter than 2"),
        (b"fine line\n\xe9t\xe9\n", "line 2: not UTF-8"),
        (b"words\0", "line 1: a NUL byte"),
        (b"PK\x03\x04\0\0", "a zip archive .*unpack it"),
        (b"%PDF-1.7", "a PDF file: save its text"),
        (b"\x1f\x8b\x08\x00\x00", "a damaged gzip file"),
        ("two words".encode("utf-16"), "line 1: UTF-16 text.*encoding"),
    ],
)
def test_bad_files(tmp_path, content, message):
    path = _file(tmp_path, content)
    with pytest.raises(UserError, match=message) as caught:
        read_corpus(path)
    assert str(path) in str(caught.value)


def test_bad_places_and_settings(tmp_path):
    with pytest.raises(UserError, match="no such file"):
        read_corpus(tmp_path / "none.txt")
    with pytest.raises(UserError, match="no tree file in this folder"):
        read_corpus(tmp_path)
    with pytest.raises(UserError, match="choose one of word, space"):
        read_corpus([["a", "b"]], tokenizer="bpe")
    with pytest.raises(UserError, match="lengths"):
        read_corpus([["a", "b"]], min_length=5, max_length=4)
    with pytest.raises(UserError, match="no sentence left of 0 sentences; skipped none"):
        read_corpus([])


def test_sentences_to_parse_match_their_lines(tmp_path):
    path = _file(tmp_path, TEXT)
    lines = list(read_sentences(path))
    assert [line.number for line in lines] == list(range(1, 8))
    assert [len(line.words) for line in lines] == [7, 0, 0, 0, 1, 2000, 7]
    assert all(len(line.words) == len(line.tokens) for line in lines)
    assert lines[0].words[5] == "3,140" and lines[0].tokens[5] == "0,0"
    stream = io.BytesIO(path.read_bytes())
    assert list(read_sentences(stream)) == lines
    kept = list(read_sentences(io.BytesIO(b"Hi !\n"), Preprocessing("space", punctuation=True)))
    assert kept[0].words == ["Hi", "!"] and kept[0].tokens == ["hi", "!"]
    bad = read_sentences(io.BytesIO(b"good\n\xff\n"), name="the pipe")
    assert next(bad).tokens == ["good"]
    with pytest.raises(UserError, match="the pipe, line 2"):
        next(bad)


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("hf:name:text", ("name", None, "text", "train")),
        ("hf:org/name:text", ("org/name", None, "text", "train")),
        ("hf:org/name/config-v1:tokens@test", ("org/name", "config-v1", "tokens", "test")),
        ("hf:org/name:text@train[:1000]", ("org/name", None, "text", "train[:1000]")),
    ],
)
def test_dataset_names(source, expected):
    assert parse_dataset_name(source) == expected
    named = expected[3] if "@" in source else "validation"
    assert parse_dataset_name(source, "validation") == (*expected[:3], named)


@pytest.mark.parametrize("source", ["hf:", "hf:x", "hf:x:", "hf::x", "hf:a/b/c/d:x", "hf:a:x@"])
def test_bad_dataset_names(source):
    with pytest.raises(UserError, match="hf:OWNER/NAME:COLUMN"):
        read_corpus(source)


def test_public_datasets(monkeypatch):
    import datasets

    table = datasets.Dataset.from_dict(
        {
            "text": ["One line.\nAnd another line.\n", None, "x"],
            "words": [["A", "list", "."], ["x"], ["New York", "is", "", "big"]],
            "label": [1, 2, 3],
        }
    )
    calls = []

    def load(name, config, split):
        calls.append((name, config, split))
        assert not datasets.utils.logging.is_progress_bar_enabled()
        return table

    monkeypatch.setattr(datasets, "load_dataset", load)
    corpus = read_corpus("hf:org/name/v1:text@test")
    assert corpus.tokens == [["one", "line"], ["and", "another", "line"]]
    assert corpus.data["line"][:] == [1, 1]
    assert corpus.skipped["blank"] == 1 and calls == [("org/name", "v1", "test")]
    corpus = read_corpus("hf:org/name:words")
    assert corpus.tokens == [["a", "list"], ["new", "york", "is", "big"]]
    with pytest.raises(UserError, match=r"no column 'txt' \(there are: text words label\)"):
        read_corpus("hf:org/name:txt")
    with pytest.raises(UserError, match="row 1: column 'label' holds int"):
        read_corpus("hf:org/name:label")


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (ConnectionError("Couldn't reach it\nmore"), r"no connection .*\(Couldn't reach it\)$"),
        (ValueError('Unknown split "trian".'), "cannot load split 'trian': Unknown split"),
    ],
)
def test_datasets_that_do_not_load(monkeypatch, error, message):
    import datasets

    def load(*args, **kwargs):
        raise error

    monkeypatch.setattr(datasets, "load_dataset", load)
    before = datasets.utils.logging.is_progress_bar_enabled()
    with pytest.raises(UserError, match=message):
        read_corpus("hf:org/name:text@trian")
    assert datasets.utils.logging.is_progress_bar_enabled() == before

import gzip
import json
import random
from pathlib import Path

import datasets
import pytest
from nltk import Tree

from gfnem.errors import UserError
from gfnem.parsing.text.corpus import read_corpus, read_sentences

DATA = {"id": [1, 2], "text": ["The cat sat.", "A dog\nthe dog ate"]}
SENTENCES = [["the", "cat", "sat"], ["a", "dog"], ["the", "dog", "ate"]]


def _file(folder: Path, name: str, content: bytes | str) -> Path:
    data = content if isinstance(content, bytes) else content.encode()
    (folder / name).write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
    return folder / name


def _table(folder: Path, name: str) -> Path:
    rows = [{"id": i, "text": t} for i, t in zip(*DATA.values(), strict=True)]
    content = {
        ".csv": 'id,text\n1,The cat sat.\n2,"A dog\nthe dog ate"\n',
        ".tsv": 'id\ttext\n1\tThe cat sat.\n2\t"A dog\nthe dog ate"\n',
        ".jsonl": "".join(f"{json.dumps(row)}\n" for row in rows),
        ".json": json.dumps(rows),
    }.get(Path(name.removesuffix(".gz")).suffix)
    if content is None:
        datasets.disable_progress_bars()
        datasets.Dataset.from_dict(DATA).to_parquet(str(folder / "made"))
        datasets.enable_progress_bars()
        content = (folder / "made").read_bytes()
    return _file(folder, name, content)


@pytest.mark.parametrize("gz", ["", ".gz"])
@pytest.mark.parametrize("name", ["a.csv", "a.tsv", "a.jsonl", "a.json", "a.parquet"])
def test_tables_are_read_by_a_column_and_refused_without(tmp_path, name, gz):
    file = _table(tmp_path, name + gz)
    assert read_corpus(f"{file}:text").tokens == SENTENCES
    assert read_corpus(file, column="text").tokens == SENTENCES
    with pytest.raises(UserError, match=r"a table: name its column, .*there are: id text"):
        read_corpus(file)
    with pytest.raises(UserError, match=r"no column 'txt' \(there are: id text\)"):
        read_corpus(f"{file}:txt")
    assert [line.words[0] for line in read_sentences(f"{file}:text")] == ["The", "A", "the"]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.tsv", "id\ttext\n1\tx y\n2\n", "line 3: 1 fields"),
        ("a.csv", 'text\n"never ends\n', "line 2: unexpected end"),
        ("a.csv", "", "the file is empty"),
        ("a.csv", b"text\ncaf\xe9 noir\n", "line 2: not UTF-8 .*encoding"),
        ("a.jsonl", '{"text": "a b"}\n{"text\n', "line 2: not JSON"),
        ("a.jsonl", "[1]\n", "entry 1: not an object"),
        ("a.jsonl", '{"text": 3}\n', "row 1: int, not text or words"),
        ("a.json", '{"x": 1}\n', "a.json: no column 'text'|a list of objects is wanted"),
        ("a.parquet", "no table", "not a Parquet table"),
        ("none.csv", None, "none.csv: no such file"),
        ("a.txt", "some text\n", "has no column 'text': name the file alone"),
    ],
)
def test_tables_that_cannot_be_read(tmp_path, name, content, message):
    if content is not None:
        _file(tmp_path, name, content)
    with pytest.raises(UserError, match=message) as caught:
        read_corpus(f"{tmp_path / name}:text")
    assert "\n" not in str(caught.value)


def test_compressed_text_and_trees(tmp_path):
    file = _file(tmp_path, "a.txt.gz", "the cat sat\r\na dog\n")
    assert read_corpus(file).tokens == SENTENCES[:2]
    assert [line.text for line in read_sentences(file)] == ["the cat sat", "a dog"]
    assert read_corpus(_file(tmp_path, "a.mrg.gz", "(S (A a) (B dog))")).spans == [{(0, 2)}]
    (tmp_path / "b.txt.gz").write_bytes(file.read_bytes()[:-6])
    with pytest.raises(UserError, match=r"b.txt.gz: a damaged gzip file"):
        read_corpus(tmp_path / "b.txt.gz")


def test_folders(tmp_path):
    (tmp_path / "below").mkdir()
    _file(tmp_path, "1.txt", "the cat sat\n")
    _file(tmp_path / "below", "2.txt.gz", "a dog\n")
    _file(tmp_path, ".hidden.txt", "not read\n")
    corpus = read_corpus(tmp_path)
    assert corpus.tokens == SENTENCES[:2] and corpus.unit == "lines"
    assert corpus.data["line"][:] == [1, 1]
    assert [line.tokens for line in read_sentences(tmp_path)] == SENTENCES[:2]
    _file(tmp_path, "x.mrg", "(S (A a) (B tree))")
    assert read_corpus(tmp_path).tokens == [["a", "tree"]]
    assert read_corpus(tmp_path, format="text").tokens == SENTENCES[:2]
    (tmp_path / "tables").mkdir()
    _table(tmp_path / "tables", "t.csv")
    assert read_corpus(f"{tmp_path / 'tables'}:text").tokens == SENTENCES
    with pytest.raises(UserError, match=r"tables are read with a column, as .*t.csv:COLUMN"):
        read_corpus(tmp_path / "tables")
    with pytest.raises(UserError, match="no tree file in this folder"):
        read_corpus(tmp_path / "below", format="trees")


@pytest.fixture
def saved(tmp_path):
    datasets.disable_progress_bars()
    data = datasets.Dataset.from_dict(DATA)
    data.save_to_disk(str(tmp_path / "one"))
    datasets.DatasetDict(train=data.select([0]), test=data).save_to_disk(str(tmp_path / "two"))
    datasets.enable_progress_bars()
    return tmp_path


def test_saved_datasets(saved):
    for name in (f"{saved}/one:text", f"hf:{saved}/one:text", f"{saved}/two:text@test"):
        assert read_corpus(name).tokens == SENTENCES
    assert read_corpus(f"hf:{saved}/two:text").tokens == SENTENCES[:1]
    with pytest.raises(UserError, match="no split 'dev' in it; name one of train test"):
        read_corpus(f"{saved}/two:text@dev")
    with pytest.raises(UserError, match=r"name a column.*there are: id text"):
        read_corpus(saved / "one")
    with pytest.raises(UserError, match="no such file or folder"):
        read_corpus(f"hf:{saved}/none:text")


def test_local_files_as_public_datasets(tmp_path):
    file = _table(tmp_path, "t.csv")
    assert read_corpus(f"hf:{file}:text").tokens == SENTENCES


def test_datasets_in_memory_take_a_column():
    data = datasets.Dataset.from_dict(DATA)
    for given in (data, data.to_iterable_dataset()):
        assert read_corpus(given, column="text", cache="off").tokens == SENTENCES
        with pytest.raises(UserError, match=r"name a column, .*there are: id text"):
            read_corpus(given, cache="off")
    assert read_corpus(data.select_columns(["text"])).tokens == SENTENCES
    with pytest.raises(UserError, match=r"a row of columns, not a sentence.*there are: id text"):
        read_corpus(list(data))


def test_streams_are_read_once_up_to_a_limit(tmp_path, monkeypatch):
    fetched = []

    def rows():
        for number in range(10**9):
            fetched.append(number)
            yield {"text": f"row number {number}"}

    def load(name, config, split, streaming):
        assert streaming and (name, split) == ("org/name", "train")
        return datasets.IterableDataset.from_generator(rows)

    monkeypatch.setattr(datasets, "load_dataset", load)
    more = {"streaming": True, "limit": 50, "cache": str(tmp_path / "cache"), "processes": 1}
    corpus = read_corpus("hf:org/name:text", **more)
    assert corpus.read == len(corpus) == 50 and len(fetched) < 3000
    seen = len(fetched)
    again = read_corpus("hf:org/name:text", **more)
    assert again.tokens == corpus.tokens and len(fetched) - seen <= 1  # its columns are asked for


def test_limits(tmp_path):
    text = _file(tmp_path, "a.txt", "a b\nc d\ne f\n")
    trees = _file(tmp_path, "a.mrg", "(S (A a) (B b))\n" * 3)
    table = f"{_table(tmp_path, 'a.csv')}:text"
    for source, tokens in ((text, 2), (trees, 2), ([["a", "b"]] * 5, 2), (table, 3)):
        corpus = read_corpus(source, limit=2)
        assert len(corpus) == tokens
    assert read_corpus(text, limit=2).read == 2 and read_corpus(text, limit=9).read == 3
    with pytest.raises(UserError, match="limit 0"):
        read_corpus(text, limit=0)


@pytest.mark.parametrize("encoding", ["latin-1", "cp1252", "utf-16", "utf-16-le", "utf-8-sig"])
def test_other_encodings(tmp_path, encoding):
    file = _file(tmp_path, "a.txt", "Der Hase läuft.\r\nzwei Wörter\n".encode(encoding))
    expected = [["der", "hase", "läuft"], ["zwei", "wörter"]]
    assert read_corpus(file, encoding=encoding).tokens == expected
    trees = _file(tmp_path, "a.ptb", "(S (A Hase) (B läuft))".encode(encoding))
    assert read_corpus(trees, encoding=encoding).tokens == [["hase", "läuft"]]


def test_encodings_that_do_not_fit(tmp_path):
    trees = _file(tmp_path, "a.ptb", b"(S (A a) (B l\xe4uft))")
    with pytest.raises(UserError, match=r"line 1: not UTF-8 .*--dataset.encoding latin-1"):
        read_corpus(trees)
    text = _file(tmp_path, "a.txt", b"fine\nfine\n\xff\xff\n")
    with pytest.raises(UserError, match=r"line 3 or later: not gb18030 text.*encoding"):
        read_corpus(text, encoding="gb18030")
    for source in (text, f"{_table(tmp_path, 'a.csv')}:text", f"{_table(tmp_path, 'b.json')}:text"):
        with pytest.raises(UserError, match=r"line 1.*: not utf-16 text.*encoding"):
            read_corpus(source, encoding="utf-16")
    for name in ("klingon", "rot13", "hex", "idna"):
        with pytest.raises(UserError, match=f"encoding '{name}': unknown; there are utf-8"):
            read_corpus(text, encoding=name)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("(he left the room)\n(she saw it too)\n", [["he", "left", "the", "room"], 4]),
        ("( + 1 ( * 2 3 ) )\n( * 4 5 )\n", [["0", "0", "0"], 2]),
        ("(Applause followed.)\nThe speaker went on.\n", [["applause", "followed"], 4]),
    ],
)
def test_brackets_in_a_text_are_text(tmp_path, text, expected):
    corpus = read_corpus(_file(tmp_path, "a.txt", text))
    assert corpus.unit == "lines" and corpus.note == ""
    assert [corpus.tokens[0], len(corpus.tokens[1])] == expected
    with pytest.raises(UserError, match="format 'tree': choose one of auto, text, trees"):
        read_corpus(tmp_path / "a.txt", format="tree")


def test_trees_are_trees_where_it_is_said(tmp_path):
    text = "(S (NP (DT the) (NN cat)) (VBD sat))\n"
    file = _file(tmp_path, "a.txt", text)
    corpus = read_corpus(file)
    assert corpus.tokens[0][:3] == ["s", "np", "dt"]
    assert "looks like bracketed trees" in corpus.summary() and "--dataset.format" in corpus.note
    assert read_corpus(file, format="trees").spans == [{(0, 2), (0, 3)}]
    named = _file(tmp_path, "a.mrg", f"{text}A sentence.\n")
    with pytest.raises(UserError, match=r"line 2: text outside .*set format to text"):
        read_corpus(named)
    assert read_corpus(named, format="text").tokens[1] == ["a", "sentence"]


def test_the_same_words_go_from_trees_and_text(tmp_path):
    tree = "(IP (NP (NN 水)) (PU ，) ($, :) (VP (VV 日) (PU -LRB-) (NP (NN 水))) (PUNCT 。))"
    corpus = read_corpus(_file(tmp_path, "a.mrg", tree))
    assert corpus.tokens == [["水", "日", "水"]] and corpus.spans == [{(0, 3), (1, 3)}]
    assert corpus.removed == 4 and "4 words removed as punctuation" in corpus.summary()
    text = read_corpus(["水 ， : 日 -lrb- 水 。"], tokenizer="space")
    assert text.tokens == corpus.tokens and text.removed == 4
    [line] = read_sentences(tmp_path / "a.mrg")
    assert line.tokens == ["水", "日", "水"] and line.text == "水 日 水"
    assert line.offsets == [(0, 1), (2, 3), (4, 5)]


def test_empty_trees_are_said_to_be_empty(tmp_path):
    trees = "(S)\n()\n(S (-NONE- *))\n(S (. .))\n(S (A a) (B b))"
    corpus = read_corpus(_file(tmp_path, "a.mrg", trees))
    assert corpus.skipped["blank"] == 3 and corpus.skipped["only punctuation"] == 1
    assert "skipped 3 empty, 1 only punctuation" in corpus.summary()


def test_trees_in_memory_are_kept_as_they_are():
    tree = Tree.fromstring("(S (A the) (B (C big) (D dog)))")
    deep = tree
    for _ in range(1500):
        deep = Tree("X", [Tree("Y", ["w"]), deep])
    corpus = read_corpus([tree, deep], max_length=None)
    assert corpus.data["tree"][0] == "(S (A the) (B (C big) (D dog)))"
    assert len(corpus.spans[1]) == 1502


def test_one_spelling_of_unknown_words_and_of_composed_letters():
    corpus = read_corpus(["café <UNK> a", "cafe\u0301 <unk> a\u200b"], lower=False)
    assert corpus.tokens[0] == corpus.tokens[1] == ["café", "<unk>", "a"]
    corpus = read_corpus([["cafe\u0301", "<UNK>"]], lower=False)
    assert corpus.tokens == [["café", "<unk>"]]


@pytest.mark.slow
def test_damaged_files_cost_one_line(tmp_path):
    rng = random.Random(0)
    seeds = {
        "a.txt": "The cat <unk> sat. “don’t” (a) cafe\u0301\n\u200b-LRB- x\n".encode(),
        "a.mrg": b"( (S (NP (DT the) (NN cat)) (-NONE- *) (. .)))\n(S (A a) (B b))\n",
        **{
            n: _table(tmp_path, n).read_bytes() for n in ("a.csv", "a.jsonl", "a.json", "a.parquet")
        },
    }
    encodings = ["utf-8", "utf-8", "latin-1", "utf-16", "utf-7", "gb18030", "cp037"]
    for _ in range(150):
        name = rng.choice(list(seeds))
        data = bytearray(seeds[name])
        for _ in range(rng.randint(1, 4)):
            place = rng.randrange(len(data))
            data[place : place + rng.randint(0, 5)] = rng.choices(
                b'\0\xff"(){}[],\n\r\t\xe9a :\\', k=rng.randint(0, 4)
            )
        file = _file(tmp_path, name + rng.choice(["", ".gz"]), bytes(data))
        source = str(file) if name in ("a.txt", "a.mrg") else f"{file}:text"
        try:
            read_corpus(source, min_length=1, encoding=rng.choice(encodings))
            list(read_sentences(source))
        except UserError as error:
            assert "\n" not in str(error) and str(tmp_path) in str(error)

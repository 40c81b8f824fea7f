"""What the commands read, as it is found: formats, encodings, columns."""

import json

import pytest
from commands import SMALL, call, printed, refused, trained

from gfnem.files import absolute

pytestmark = pytest.mark.slow

TREES = "(S (NP (DT a) (NN dog)) (VP (VBZ sees) (NP (DT the) (NN café))) (. .))\n" * 12


@pytest.mark.slow
def test_text_with_brackets_trains_as_text(capsys, tmp_path):
    file = tmp_path / "text.txt"
    file.write_text("(he left the room)\n(she saw it too)\n" * 10)
    out = printed(capsys, "train", *SMALL, "--data", file, "--out", tmp_path / "run")
    assert "20 lines: 20 sentences kept (4-4 tokens)" in out
    error = refused(
        *(capsys, "train", *SMALL, "--data", file, "--out", tmp_path / "r"),
        "--dataset.format=forest",
    )
    assert "choose one of auto, text, trees" in error and not (tmp_path / "r").exists()


@pytest.mark.slow
def test_a_treebank_in_another_encoding(capsys, tmp_path):
    file = tmp_path / "bank.ptb"
    file.write_bytes(TREES.encode("latin-1"))
    run = ["--data", file, "--out", tmp_path / "run"]
    error = refused(capsys, "train", *SMALL, *run)
    assert "line 1: not UTF-8" in error and "--dataset.encoding latin-1" in error
    out = printed(capsys, "train", *SMALL, *run, "--dataset.encoding=latin-1")
    assert "12 trees: 12 sentences kept (5-5 tokens); 12 words removed" in out


@pytest.mark.slow
def test_a_column_is_found_from_another_folder(capsys, tmp_path, monkeypatch):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "table.csv").write_text("id,text\n" + "1,the cat sees the dog\n" * 20)
    monkeypatch.chdir(tmp_path)
    assert absolute("table.csv:text", folders=True) == f"{tmp_path}/table.csv:text"
    assert absolute("hf:name:text", folders=True) == "hf:name:text"
    error = refused(capsys, "train", *SMALL, "--data=table.csv", "--out=run")
    assert "name its column, as table.csv:COLUMN (there are: id text)" in error
    printed(capsys, "train", *SMALL, "--data=table.csv:text", "--out=run")
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert call("train", "--resume=../run", "--max-updates=30") == 0


def test_parse_reads_the_words_of_trees_and_columns(capsys, tmp_path):
    bank = tmp_path / "bank.mrg"
    bank.write_text("(S (NP (DT the) (NN dog)) (VP (VBZ barks)))\n(S (-NONE- *))\n")
    lines = printed(capsys, "parse", trained(), bank, "--format=json").splitlines()
    assert [json.loads(line)["tokens"] for line in lines] == [["the", "dog", "barks"], []]
    table = tmp_path / "table.jsonl"
    table.write_text('{"text": "the dog barks"}\n')
    lines = printed(capsys, "parse", trained(), f"{table}:text", "--format=json").splitlines()
    assert [json.loads(line)["tokens"] for line in lines] == [["the", "dog", "barks"]]


@pytest.mark.parametrize("name", ["data.xlsx", "data.pdf", "data.csv"])
def test_what_is_no_text_is_refused_with_a_way_out(capsys, tmp_path, name):
    content = {"data.xlsx": b"PK\x03\x04\0\0", "data.pdf": b"%PDF-1.7\n", "data.csv": b"a,b\n1,2\n"}
    file = tmp_path / name
    file.write_bytes(content[name])
    for command in (["train", *SMALL, "--out", tmp_path / "r", "--data"], ["evaluate", trained()]):
        flags = ["--data", file] if command[0] == "evaluate" else [file]
        error = refused(capsys, *command, *flags)
        assert name in error and any(w in error for w in ("save its text", "name its column"))
    assert not (tmp_path / "r").exists()

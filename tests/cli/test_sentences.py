"""Samplers of sentences from the command line."""

import json

import pytest
from commands import call, printed, refused
from tiny_sentences import GRAMMAR

SMALL = ("--max-updates", 4, "--dataset.interval", 2, "--recipe.samples", 8, "--accelerator=cpu")
TREES = (
    "--policy.nonterminals=3", "--policy.preterminals=4", "--policy.dim=8", "--policy.parser_dim=8",
)  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sentences")
    (folder / "tiny.pcfg").write_text(GRAMMAR)
    lines = [" ".join(["a"] * n + ["b"] * n) for n in (1, 2, 3)] * 20
    (folder / "text.txt").write_text("\n".join(lines) + "\n")
    data = ["--dataset.grammar", folder / "tiny.pcfg", "--dataset.sentences=50"]
    data += ["--dataset.max_length=5", "--dataset.valid_sentences=10"]
    assert not call("train", "--config=sentences", *data, *SMALL, *TREES, "--out", folder / "tree")
    words = ["--data", folder / "text.txt", "--policy=LeftToRight", "--policy.dim=8"]
    words += ["--dataset.max_length=6"]
    assert not call("train", "--config=sentences", *words, *SMALL, "--out", folder / "words")
    return folder


@pytest.mark.slow
def test_a_run_writes_and_parses(folder, capsys):
    records = [json.loads(line) for line in printed(capsys, "sample", folder / "tree").splitlines()]
    assert len(records) == 5
    for record in records:
        assert record["latent"].startswith("(") and record["log_pf"] < 0 > record["log_joint"]
        assert 2 <= len(record["observation"].split()) <= 5
    (folder / "new.txt").write_text("a b c b\n")
    tree = printed(capsys, "parse", folder / "tree", folder / "new.txt").strip()
    assert tree.startswith("(NT") and [w for w in tree if w in "abc"] == list("abcb")
    again = printed(capsys, "infer", folder / "tree", folder / "new.txt", "-k", 3)
    record = json.loads(again)
    assert record["exact"] and len(record["latents"]) == 3
    assert all(latent["log_prob"] <= 0 for latent in record["latents"])


@pytest.mark.slow
def test_what_is_evaluated(folder, capsys):
    found = printed(capsys, "evaluate", folder / "tree")
    names = [line.split()[0] for line in found.splitlines()]
    expected = {"nll", "free_gap", "log_z", "log_z_learned", "gap", "parser_kl", "total_variation"}
    assert expected | {"sampler_nll", "sentence_f1"} <= set(names)
    assert call("report", folder / "tree") == 0
    assert "P_F" in (folder / "tree" / "report.html").read_text()


@pytest.mark.slow
def test_words_from_left_to_right_have_no_trees(folder, capsys):
    record = json.loads(printed(capsys, "sample", folder / "words", "-n", 1))
    assert record["latent"] is None
    (folder / "new.txt").write_text("a b\n")
    assert "cannot parse" in refused(capsys, "parse", folder / "words", folder / "new.txt")
    record = json.loads(printed(capsys, "infer", folder / "words", folder / "new.txt"))
    assert record["exact"] and record["latents"] == []
    assert "parser_kl" not in printed(capsys, "evaluate", folder / "words")

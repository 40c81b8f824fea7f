"""Training on text as it is found, on public datasets, and with a logger."""

import csv
import json
import random
import re

import datasets
import pytest
import torch
from commands import SMALL, call, printed, refused

from gfnem.running import training

pytestmark = pytest.mark.slow


def messy_lines(count: int) -> list[str]:
    """What a text from the web looks like, sentence by sentence."""
    rng = random.Random(0)
    words = [f"w{number}" for number in range(300)] + [
        "naïve",
        "日本語",
        "don't",
        "Straße",
        "e-mail",
    ]
    oddities = [
        lambda: "",
        lambda: "   \t ",
        lambda: "?!... --- «»",
        lambda: "Yes",
        lambda: " ".join(rng.choices(words, k=rng.randint(21, 400))),
        lambda: "x" * rng.randint(1000, 5000) + " and more",
        lambda: f"On {rng.randint(1, 31)}/12/1999 it cost $ {rng.randint(1, 9999):,}.50 (VAT) :-)",
        lambda: "tab\tseparated\u00a0and \u200bodd \u2028spaces\x0b here",
        lambda: "👍🏽 emoji in e\u0301crit\u202e text",
        lambda: "(( unbalanced ( brackets ) [1] {2}",
    ]
    return [
        rng.choice(oddities)()
        if rng.random() < 0.3
        else " ".join(rng.choices(words, k=rng.randint(2, 25))).capitalize() + rng.choice(".!?")
        for _ in range(count)
    ]


@pytest.mark.slow
def test_twenty_thousand_lines_of_mixed_quality(capsys, tmp_path):
    lines = messy_lines(20_000)
    file = tmp_path / "web.txt"
    ends = random.Random(1)
    file.write_bytes("".join(line + ends.choice(["\n", "\r\n"]) for line in lines).encode())
    run = tmp_path / "run"
    out = printed(capsys, "train", *SMALL, "--max-updates=4", "--data", file, "--out", run)
    assert "20,000 lines: " in out
    summary = out.splitlines()[0]
    figures = {
        reason: int(number.replace(",", ""))
        for number, reason in re.findall(r"([\d,]+) (sent|blank|only|longer|shorter)", summary)
    }
    assert sum(figures.values()) == 20_000 and figures["sent"] > 10_000
    blank = sum(not line.strip() for line in lines)
    assert figures["blank"] == blank
    with open(run / "metrics.csv", newline="") as stream:
        (row,) = csv.DictReader(stream)
    assert row["update"] == "4" and 0 < float(row["val_nll"]) < 20


@pytest.fixture
def hub(monkeypatch):
    """The public dataset hub, without a network."""
    asked = []

    def load_dataset(name, config=None, *, split=None, **_):
        asked.append((name, config, split))
        if name == "someone/nothing":
            raise ConnectionError("no route to host\nsecond line")
        rows = ["the cat sleeps", "the dog sees the cat\nthe cat sees it", None, "Yes."] * 10
        return datasets.Dataset.from_dict({"text": rows, "label": list(range(len(rows)))})

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    return asked


@pytest.mark.slow
def test_a_public_dataset(capsys, tmp_path, hub):
    arguments = ["--data", "hf:someone/news/plain:text", "--valid", "hf:other:text@test[:10]"]
    out = printed(capsys, "train", *SMALL, "--max-updates=2", *arguments, "--out", tmp_path / "r")
    train = ("someone/news", "plain", "train")  # again for what the reward counts
    assert hub == [train, ("other", None, "test[:10]"), train]
    assert "hf:someone/news/plain:text: 50 rows: 30 sentences kept" in out
    assert "10 blank, 10 shorter than 2" in out
    content = torch.load(tmp_path / "r" / "last.ckpt", weights_only=True)
    words = content["hyper_parameters"]["metadata"]["vocabulary"]
    assert sorted(words) == ["<unk>", "cat", "dog", "it", "sees", "sleeps", "the"]


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("hf:someone/news", "is written hf:"),
        ("hf:someone/news:title", "no column 'title' (there are: text label)"),
        ("hf:someone/news:label", "column 'label' holds int"),
        ("hf:someone/nothing:text", "no connection to the dataset hub"),
    ],
)
def test_a_public_dataset_that_cannot_be_had(capsys, tmp_path, hub, source, expected):
    line = refused(capsys, "train", *SMALL, "--data", source, "--out", tmp_path / "run")
    assert source in line and expected in line
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_tensorboard_is_used_where_it_is_installed(monkeypatch, tmp_path):
    from pytorch_lightning import loggers

    made = []

    class Board(loggers.CSVLogger):
        """Stands in for Lightning's TensorBoard logger, which needs the package."""

        def __init__(self, save_dir, name, version):
            super().__init__(save_dir, name=name, version=version, flush_logs_every_n_steps=1)
            made.append((save_dir, name, version))

    real = training.importlib.util.find_spec
    monkeypatch.setattr(
        training.importlib.util,
        "find_spec",
        lambda name: object() if name == "tensorboard" else real(name),
    )
    monkeypatch.setattr(loggers, "TensorBoardLogger", Board)
    run = tmp_path / "run"
    assert call("train", *SMALL, "--dataset.sentences=100", "--out", run) == 0
    assert made == [(run, "", "tensorboard")]
    with open(run / "tensorboard" / "metrics.csv", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert sum(bool(row["e_loss"]) for row in rows) == 2  # one figure for each interval
    assert sum(bool(row["val_nll"]) for row in rows) == 2


CONTEXT = """
S -> NP VP [1]
NP^S -> Det N [0.5] | 'he' [0.5]
NP -> Det N [0.7] | 'him' [0.2] | NP PP [0.1]
VP -> V NP [0.8] | V NP PP [0.2]
PP -> 'with' NP [1]
V -> 'saw' [1]
Det -> 'a' [1]
N -> 'dog' [0.6] | 'bird' [0.4]
"""


@pytest.mark.slow
def test_a_corpus_from_a_grammar_that_looks_at_parents(capsys, tmp_path):
    file = tmp_path / "toy.ncfg"
    file.write_text(CONTEXT)
    arguments = [f"--dataset.grammar={file}", "--dataset.sentences=100", "--recipe", "exact"]
    for model in ("NeuralPCFG", "NeuralParentPCFG"):
        run = tmp_path / model
        out = printed(
            capsys, "train", "--model", model, *SMALL, *arguments, "--max-updates=4", "--out", run
        )
        assert f"sampled from the grammar '{file}': 100 sentences" in out
        figures = json.loads(printed(capsys, "evaluate", run, "--limit=50", "--format=json"))
        assert figures["exact"] and figures["true_nll"] < figures["nll"]
        assert figures["sentence_f1"] <= figures["true_sentence_f1"] > 50


@pytest.mark.slow
def test_a_run_finds_its_grammar_from_another_folder(capsys, tmp_path, monkeypatch):
    (tmp_path / "toy.ncfg").write_text(CONTEXT)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path)
    flags = ["--dataset.grammar=toy.ncfg", "--dataset.sentences=100", "--recipe=exact"]
    assert call("train", *SMALL, *flags, "--max-updates=2", "--out=run") == 0
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert call("train", "--resume=../run", "--max-updates=4") == 0
    figures = json.loads(printed(capsys, "evaluate", "../run", "--limit=20", "--format=json"))
    assert figures["true_nll"] > 0


def test_a_grammar_that_cannot_be_read_is_one_line(capsys, tmp_path):
    file = tmp_path / "toy.ncfg"
    file.write_text(CONTEXT + "N^VP -> 'cat' [1]\n")
    error = refused(capsys, "train", *SMALL, f"--dataset.grammar={file}", "--out", tmp_path / "r")
    assert f"{file}:10: VP can never be the parent of N" in error
    assert not (tmp_path / "r").exists()
    error = refused(capsys, "train", *SMALL, "--dataset.grammar=klingon", "--out", tmp_path / "r")
    assert "the grammars shipped are: english, english_context" in error

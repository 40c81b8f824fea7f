"""`parse`, `generate` and `evaluate` of trained runs."""

import itertools
import json
import math

import pytest
from commands import SMALL, TINY, printed, refused, trained
from nltk import Tree

pytestmark = pytest.mark.slow

FORTY = " ".join(["the dog sees a cat with the park"] * 5)
LINES = ["dog sleeps", FORTY, "", "Xyzzy plugh, frobnicates!", "the dog sleeps"]
WORDS = [line.split() for line in LINES]  # the run's data came from a grammar, words as they are


@pytest.fixture
def text(tmp_path):
    file = tmp_path / "text.txt"
    file.write_text("\n".join(LINES) + "\n")
    return file


@pytest.fixture(scope="module")
def exact_run(tmp_path_factory):
    from commands import call

    run = tmp_path_factory.mktemp("exact") / "run"
    assert call("train", *TINY, "--recipe=exact", "--max-updates=2", "--out", run) == 0
    return run


@pytest.mark.parametrize("kind", ["gflownet", "exact"])
@pytest.mark.parametrize(
    ("decode", "samples"), list(itertools.product(["map", "mbr", "sample"], [None, 1, 3]))
)
def test_every_way_to_parse(capsys, text, exact_run, kind, decode, samples):
    run = trained() if kind == "gflownet" else exact_run
    flags = ["--decode", decode, *(["--samples", samples] if samples else [])]
    trees_a_line = samples if decode == "sample" and samples else 1
    expected = [words for words in WORDS for _ in range(trees_a_line if words else 1)]
    drawn = [words for words in expected if words]

    lines = printed(capsys, "parse", run, text, *flags).split("\n")[:-1]
    assert [Tree.fromstring(line).leaves() if line else [] for line in lines] == expected

    records = [
        json.loads(line)
        for line in printed(capsys, "parse", run, text, *flags, "--format=json").splitlines()
    ]
    assert [record["tokens"] for record in records] == expected
    for record in records:
        if not record["tokens"]:
            assert record["tree"] is None
            continue
        assert Tree.fromstring(record["tree"]).leaves() == record["tokens"]
        assert record["log_q"] <= 1e-4
        marginal = record["log_marginal"]
        if samples and decode != "sample":
            assert marginal["method"] == "importance-weighted" and marginal["samples"] == samples
            assert 1 - 1e-4 <= marginal["effective_samples"] <= samples + 1e-4
        else:
            assert marginal["method"] == "exact"
            assert record["log_joint"] <= marginal["value"] + 1e-3  # one tree of all

    page = printed(capsys, "parse", run, "--format", "svg", *flags, text)  # the file comes last
    assert page.startswith("<!DOCTYPE html>") and page.count("<svg") == len(drawn)


def test_the_words_are_those_of_the_text_and_unknown_ones_are_parsed(capsys, tmp_path):
    file = tmp_path / "text.txt"
    file.write_text("Xyzzy (plugh) 42\n")
    (line,) = printed(capsys, "parse", trained(), file).splitlines()
    assert Tree.fromstring(line).leaves() == ["Xyzzy", "-LRB-plugh-RRB-", "42"]


def test_a_seed_makes_sampling_repeatable(capsys, text):
    flags = ["--decode=sample", "--samples=5"]
    one, again, other = (
        printed(capsys, "parse", trained(), text, *flags, f"--seed={seed}") for seed in (1, 1, 2)
    )
    assert one == again != other


def test_map_is_the_most_probable_tree(capsys, tmp_path):
    file = tmp_path / "text.txt"
    file.write_text("the dog sees a cat\n")

    def records(*flags):
        out = printed(capsys, "parse", trained(), file, "--format=json", *flags)
        return [json.loads(line) for line in out.splitlines()]

    (best,) = records("--decode=map")
    drawn = records("--decode=sample", "--samples=200")
    assert max(record["log_joint"] for record in drawn) <= best["log_joint"] + 1e-4
    trees = {record["tree"]: record["log_joint"] for record in drawn}
    assert len(trees) > 1
    assert math.log(sum(map(math.exp, trees.values()))) <= best["log_marginal"]["value"] + 1e-4


def test_generate(capsys):
    lines = printed(capsys, "generate", trained(), "-n", 4).splitlines()
    assert len([Tree.fromstring(line) for line in lines]) == 4
    records = printed(capsys, "generate", trained(), "-n", 4, "--format=json").splitlines()
    for line, record in zip(lines, map(json.loads, records), strict=True):  # the same seed
        assert record["tree"] == line and record["log_joint"] < 0
    assert printed(capsys, "generate", trained(), "-n4", "--format=svg").count("<svg") == 4
    assert printed(capsys, "generate", trained(), "-n4", "--seed=1").splitlines() != lines


@pytest.mark.slow
def test_evaluate(capsys, tmp_path):
    out = printed(capsys, "evaluate", trained(), "--limit=20", "--samples=4")
    for words in ("NLL per token", "true grammar", "sentence F1", "random branching", "left out"):
        assert words in out
    text = printed(capsys, "evaluate", trained(), "--limit=20", "--format=json")
    figures = json.loads(text)
    assert figures["sentences"] == 20 and figures["exact"]
    assert figures["true_nll"] < figures["nll"] <= figures["bound"] + 0.05
    assert 0 <= figures["sentence_f1"] <= figures["true_sentence_f1"] <= 100
    file = tmp_path / "plain.txt"  # without trees there is nothing to score
    file.write_text(f"the dog sees a cat\n\n{'dog ' * 2000}\n")
    figures = json.loads(printed(capsys, "evaluate", trained(), "--data", file, "--format=json"))
    assert figures["sentences"] == 1 and "sentence_f1" not in figures
    assert "1 blank, 1 longer than 150" in printed(capsys, "evaluate", trained(), "--data", file)


@pytest.mark.slow
def test_evaluate_on_the_held_out_sentences_of_the_run(capsys, tmp_path):
    file = tmp_path / "trees.mrg"
    file.write_text("(S (NP (DT the) (NN dog)) (VP (VBZ sees) (NP (DT a) (NN cat))))\n" * 24)
    run = tmp_path / "run"
    printed(capsys, "train", *SMALL, "--max-updates=2", "--data", file, "--out", run)
    out = printed(capsys, "evaluate", run)
    assert "held-out sentences of" in out and "2 sentences kept" in out and "sentence F1" in out
    out = printed(capsys, "evaluate", run, "--data", file, "--decode=map")
    assert "24 trees: 24 sentences kept" in out and "function tags" in out
    file.write_text("(S (NP (DT the) (NN dog)) (VP (VBZ sees) (NP (DT a) (NN cat))))\n" * 30)
    assert "has changed" in refused(capsys, "evaluate", run)
    file.unlink()
    line = refused(capsys, "evaluate", run)
    assert str(file) in line and "--data" in line


MIXTURE = """
dataset:
  class_path: gfnem.mixtures.Petals
  init_args: {points: 60, batch_size: 20, interval: 5}
model: {class_path: gfnem.mixtures.PetalMixture}
space: {class_path: gfnem.mixtures.PetalSpace}
policy: {class_path: gfnem.mixtures.PetalPolicy}
max_updates: 10
accelerator: cpu
"""


@pytest.mark.slow
def test_a_run_of_another_world(capsys, tmp_path):
    settings, run = tmp_path / "mixture.yaml", tmp_path / "run"
    settings.write_text(MIXTURE)
    points = tmp_path / "points.txt"
    points.write_text("".join(f"{x} {y}\n" for x in range(-3, 4) for y in range(-3, 4)))
    out = printed(capsys, "train", "--config", settings, "--data", points, "--out", run)
    assert "49 points" in out and "4 super-clusters" in out
    figures = dict(line.split() for line in printed(capsys, "evaluate", run).splitlines())
    # the run's own points, which have no true centres to recover
    assert {"posterior_tv", "nll", "elbo_gap", "ess"} < set(figures)
    assert "recovered" not in figures
    assert 0 <= float(figures["posterior_tv"]) <= 1
    figures = json.loads(printed(capsys, "evaluate", run, "--data", points, "--format", "json"))
    assert figures["nll"] > 0
    bad = tmp_path / "bad.txt"
    bad.write_text("1 2\nnorth 3\n")
    assert "bad.txt, line 2" in refused(capsys, "evaluate", run, "--data", bad)
    assert "bad.txt, line 2" in refused(
        capsys, "train", "--config", settings, "--data", bad, "--out", tmp_path / "other"
    )
    assert not (tmp_path / "other").exists()
    for command in (["parse", run, points], ["generate", run]):
        assert "not trained on text" in refused(capsys, *command)

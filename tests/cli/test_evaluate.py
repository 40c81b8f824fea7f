"""What `gfnem evaluate` says beside NLL and F1, and what it refuses."""

import json
import math

import pytest
import torch
from commands import SMALL, printed, refused, trained

from gfnem.parsing import Sentences
from gfnem.parsing.commands import _different, _Unigrams, remarks
from gfnem.parsing.trees.trees import Trees

SENTENCES = ["the dog sees a cat", "a cat sleeps", "the dog sleeps", "a dog sees the cat"] * 6


def figures(capsys, *arguments):
    def refuse(name):
        raise AssertionError(f"{name} is not JSON")

    text = printed(capsys, "evaluate", *arguments, "--format=json")
    return json.loads(text, parse_constant=refuse)


@pytest.mark.slow
def test_undefined_figures_are_null(capsys, tmp_path):
    file = tmp_path / "trees.mrg"
    file.write_text("(S (DT the) (NN dog))\n" * 3)  # no span to score: corpus F1 is undefined
    found = figures(capsys, trained(), "--data", file)
    assert found["corpus_f1"] is None and found["sentence_f1"] == 100


@pytest.mark.slow
def test_unknown_words_are_a_figure_and_said(capsys, tmp_path):
    file = tmp_path / "text.txt"
    file.write_text("zyx wvu tsr qpo\nthe dog sees mnl\n")
    assert figures(capsys, trained(), "--data", file)["unknown"] == 5 / 8
    out = printed(capsys, "evaluate", trained(), "--data", file)
    assert "unknown words" in out and "62.5%" in out and "62% of the words are unknown" in out


@pytest.mark.slow
def test_unigrams_stand_beside_the_model(capsys, tmp_path):
    file = tmp_path / "text.txt"
    file.write_text("\n".join(SENTENCES) + "\n")
    run = tmp_path / "run"
    printed(capsys, "train", *SMALL, "--max-updates=2", "--data", file, "--out", run)
    held_out = tmp_path / "other.txt"
    held_out.write_text("the dog sees a bird\n")
    found = figures(capsys, run, "--data", held_out)
    # by hand, from the training sentences alone: those held out are counted by no model
    data = torch.load(run / "last.ckpt", weights_only=True)["hyper_parameters"]["metadata"]
    counts = dict(zip(data["vocabulary"], data["counts"], strict=True))
    assert data["sentences"] == 22 and sum(counts.values()) < sum(len(s.split()) for s in SENTENCES)
    total = sum(counts.values()) + 22 + len(counts) + 1
    words = ["the", "dog", "sees", "a", "<unk>"]
    nll = -sum(math.log((counts[word] + 1) / total) for word in words) - math.log(23 / total)
    assert found["unigram_nll"] == pytest.approx(nll / 5)
    assert "of unigrams" in printed(capsys, "evaluate", run, "--data", held_out)


def test_unigrams_are_a_distribution_over_sentences():
    unigrams = _Unigrams([2, 1, 0], 3)
    x = Sentences(torch.tensor([[1, 2], [0, 0]]), torch.tensor([2, 1]))
    one = math.log(2 / 10) + math.log(1 / 10) + math.log(4 / 10)
    assert unigrams.log_prob(x) == pytest.approx(one + math.log(3 / 10) + math.log(4 / 10))
    assert unigrams.logs.exp().sum() == pytest.approx(1)


@pytest.mark.slow
def test_labels_in_use(capsys):
    found = figures(capsys, trained(), "--limit=20")
    assert found["labels"] == 4 and 1 <= found["labels_in_use"] <= 4
    assert "labels in use, of 4" in printed(capsys, "evaluate", trained(), "--limit=20")


def test_different_trees():
    nodes = [
        [[(0, 3, 1, 0), (1, 3, 2, 1)], [(0, 3, 1, 0), (1, 3, 2, 1)], [(0, 3, 2, 0), (0, 2, 1, 1)]],
        [[(0, 2, 1, 0)], [(0, 2, 1, 1)], [(0, 2, 1, 2)]],
    ]
    assert _different(Trees.from_nodes(nodes, [3, 2])).tolist() == [2, 3]


def test_a_collapsed_sampler_is_named(capsys, tmp_path):
    usual = {"unknown": 0.0, "nll": 5.0, "unigram_nll": 6.0, "labels": 8, "labels_in_use": 5}
    own = "estimate, from its own samples: blind to what it never draws"
    assert list(remarks({**usual, "elbo_gap_is": own, "different_trees": 9.0}, 64)) == []
    (line,) = remarks({**usual, "elbo_gap_is": own, "different_trees": 1.0}, 64)
    assert "Collapsed" in line and "do not show it" in line
    (line,) = remarks({**usual, "labels_in_use": 1}, 64)
    assert "one label of 8" in line
    (line,) = remarks({**usual, "nll": 7.2}, 64)
    assert "less well than unigrams" in line


@pytest.mark.slow
def test_a_gap_without_exact_inference_says_what_it_is(capsys, tmp_path):
    run = tmp_path / "run"
    rnng = [
        "--model=RNNG",
        "--model.dim=8",
        "--policy.dim=8",
        "--recipe.samples=4",
        "--max-updates=2",
    ]
    rnng += ["--dataset.sentences=50", "--dataset.valid_sentences=5", "--accelerator=cpu"]
    printed(capsys, "train", *rnng, "--out", run)
    out = printed(capsys, "evaluate", run, "--limit=3", "--samples=4")
    assert "blind to" in out and "true grammar" in out
    assert figures(capsys, run, "--limit=3", "--samples=4")["elbo_gap_is"].startswith("estimate")
    assert figures(capsys, trained(), "--limit=3")["elbo_gap_is"] == "exact"


POINTS = """
dataset: {class_path: gfnem.mixtures.Petals, init_args: {points: 60, batch_size: 20, interval: 5}}
model: {class_path: gfnem.mixtures.PetalMixture}
space: {class_path: gfnem.mixtures.PetalSpace}
policy: {class_path: gfnem.mixtures.PetalPolicy}
max_updates: 2
accelerator: cpu
"""


@pytest.mark.slow
def test_flags_of_text_are_refused_for_other_worlds(capsys, tmp_path):
    settings, run = tmp_path / "mixture.yaml", tmp_path / "run"
    settings.write_text(POINTS)
    printed(capsys, "train", "--config", settings, "--out", run)
    for flag in ("--limit=3", "--decode=map", "--max-length=7"):
        line = refused(capsys, "evaluate", run, flag)
        assert flag.split("=")[0] in line and "text" in line
    assert "posterior_tv" in printed(capsys, "evaluate", run)

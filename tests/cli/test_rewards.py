"""The reward that a text of one's own is trained with, and how to do without it."""

import json

import pytest
import torch
import yaml
from commands import SMALL, TINY, call, printed, refused, same

import gfnem

pytestmark = pytest.mark.slow

TEXT = """\
the old man saw the red house.
the old man, who saw a bird, left the red house
a bird saw the old man
the red house was old; the old man was not

a bird left
the bird saw a red house, and the old man left
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("rewards")
    (folder / "text").write_text(TEXT * 8)
    assert call("train", *SMALL, "--data", folder / "text", "--out", folder / "run") == 0
    return folder


def settings(run):
    return yaml.safe_load((run / "config.yaml").read_text())


def test_a_text_of_ones_own_is_trained_with_its_substrings(capsys, place, tmp_path):
    out = printed(capsys, "train", *SMALL, "--data", place / "text", "--out", tmp_path / "r")
    line = next(line for line in out.splitlines() if line.startswith("reward "))
    assert "Substrings" in line and "9 documents (parts between blank lines)" in line
    made = settings(tmp_path / "r")
    assert made["reward"]["class_path"] == "gfnem.parsing.Substrings"
    assert made["recipe"]["init_args"]["m_step"] == "equal"
    figures = json.loads(printed(capsys, "evaluate", place / "run", "--format=json"))
    assert figures["reward"] == "Substrings" and figures["elbo_gap_is"] == "exact"
    assert 0 < figures["elbo_gap"] < 20
    out = printed(capsys, "evaluate", place / "run")
    assert "to the posterior times Substrings" in " ".join(out.split())
    (place / "one").write_text("the old man saw a bird\nquite other words\n")
    records = [
        json.loads(line)
        for line in printed(
            capsys, "parse", place / "run", place / "one", "--format=json"
        ).splitlines()
    ]
    assert [record["log_marginal"]["method"] for record in records] == ["exact", "exact"]
    assert len(printed(capsys, "generate", place / "run", "--count=2").splitlines()) == 2


@pytest.mark.parametrize("flags", [["--reward", "none"], ["--reward=none"], ["--reward=null"]])
def test_one_flag_away(capsys, place, tmp_path, flags):
    out = printed(
        capsys, "train", *SMALL, "--data", place / "text", *flags, "--out", tmp_path / "r"
    )
    assert "reward " not in out
    assert settings(tmp_path / "r")["reward"] is None
    more = printed(capsys, "train", "--resume", tmp_path / "r", "--max-updates=30")
    assert "reward " not in more and settings(tmp_path / "r")["reward"] is None


def test_no_reward_where_there_is_no_text_or_there_are_brackets(capsys, place, tmp_path):
    assert "reward " not in printed(capsys, "train", *TINY, "--out", tmp_path / "r")
    (tmp_path / "bank.mrg").write_text("(S (NP (DT the) (NN dog)) (VP (VBZ sees) (NP it)))\n" * 20)
    flags = ["--data", place / "text", "--brackets", tmp_path / "bank.mrg", "--out", tmp_path / "b"]
    assert "reward " not in printed(capsys, "train", *SMALL, *flags)


def test_it_resumes(capsys, place, tmp_path):
    flags = [*SMALL, "--data", place / "text", "--out", tmp_path / "r"]
    assert call("train", *flags, "--max-updates=10") == 0
    printed(capsys, "train", "--resume", tmp_path / "r", "--max-updates=20")
    once, twice = (
        torch.load(run / "last.ckpt", weights_only=True)["state_dict"]
        for run in (place / "run", tmp_path / "r")
    )
    assert once.keys() == twice.keys() and "em.reward._extra_state" in once
    for name, value in once.items():
        assert same(value, twice[name]), name


def test_a_run_goes_on_with_its_documents_from_another_folder(place, tmp_path, monkeypatch):
    """Statistics of a checkpoint are of the documents that batches name, whatever the path."""
    from gfnem.running.runs import load_run

    (tmp_path / "texts").mkdir()
    for name in ("a.txt", "b.txt"):
        (tmp_path / "texts" / name).write_text(TEXT * 4)
    monkeypatch.chdir(tmp_path)
    assert call("train", *SMALL, "--data", "texts", "--out", "r", "--max-updates=2") == 0
    run = load_run(tmp_path / "r")
    for path in ("texts", str(tmp_path / "texts")):
        data = gfnem.parsing.TextData(path, valid_sentences=0)
        data.texts()
        x = data.batch(range(8))
        found = run.reward.table.look_up(x.keys, x.lengths, x.documents)
        assert (found.local[:, 1] > 1).any(), path


@pytest.mark.parametrize("kind", ["Coverage", "Agreement"])
@pytest.mark.parametrize(
    "model",
    [
        [],
        ["--model.parent_classes=2"],
        ["--model=RNNG", "--space=ShiftReduceSpace", "--policy=ShiftReducePolicy"],
        ["--space=ForestSpace", "--policy=ForestPolicy"],
    ],
    ids=["pcfg", "classes", "rnng", "forest"],
)
def test_rewards_of_whole_bracketings(capsys, place, tmp_path, kind, model):
    if "--model=RNNG" in model:
        model = [*model, "--model.dim=16", "--policy.dim=16"]
        small = [flag for flag in SMALL if "--model" not in flag and "--policy" not in flag]
    else:
        small = SMALL
    flags = [*small, *model, "--data", place / "text", "--reward", kind, "--max-updates=4"]
    out = printed(capsys, "train", *flags, "--dataset.interval=2", "--out", tmp_path / "r")
    assert f"reward {kind}" in out
    figures = json.loads(printed(capsys, "evaluate", tmp_path / "r", "--format=json"))
    assert figures["reward"] == kind and figures["elbo_gap_is"] != "exact"


@pytest.mark.parametrize("recipe", ["exact", "exact_sampling", "wake_sleep", "reverse_kl", "iw"])
def test_every_recipe_takes_it(capsys, place, tmp_path, recipe):
    flags = [*SMALL, "--data", place / "text", "--recipe", recipe, "--max-updates=2"]
    out = printed(capsys, "train", *flags, "--dataset.interval=2", "--out", tmp_path / "r")
    assert "reward Substrings" in out


def test_more_text(capsys, place, tmp_path):
    (tmp_path / "more").write_text("a bird saw the red house\nthe blue moon, the blue moon\n")
    flags = [*SMALL, "--data", place / "text", "--out", tmp_path / "r", "--max-updates=2"]
    out = printed(capsys, "train", *flags, "--reward.text", tmp_path / "more")
    assert "in 50 sentences of 10 documents" in out
    line = refused(capsys, "train", *flags[:-3], "--reward.text", tmp_path / "none")
    assert "none: no such file" in line
    assert "Ellipsis" not in refused(capsys, "train", *flags[:-3], "--reward", "Nope")


def test_in_python(place, tmp_path):
    small = {
        "model": {"nonterminals": 4, "preterminals": 6, "dim": 16},
        "policy": {"dim": 16},
        "max_updates": 4,
        "dataset": {"interval": 2, "valid_sentences": 10},
    }
    run = gfnem.train(place / "text", tmp_path / "a", **small)
    assert type(run.reward).__name__ == "Substrings"
    for number, nothing in enumerate((None, "none")):
        run = gfnem.train(place / "text", tmp_path / str(number), reward=nothing, **small)
        assert run.reward is None and run.target is run.model
    run = gfnem.train(
        place / "text", tmp_path / "b", reward=gfnem.parsing.Substrings(2.0, right=0.3), **small
    )
    assert run.reward.weight == 2.0
    assert run.parse("the old man saw a bird")

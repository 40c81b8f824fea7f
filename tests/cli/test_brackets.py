"""`gfnem train --brackets`: a text without trees, and a treebank whose words are not looked at."""

import json
import os
from pathlib import Path

import pytest
import torch
import yaml
from commands import SMALL, call, printed, refused

from gfnem import GFlowNetEM, LearnBeside

pytestmark = pytest.mark.slow

TREES = """\
(S (NP (DT the) (NN cat)) (VP (VBZ sees) (NP (DT the) (NN dog))) (. .))
(S (NP (DT a) (NN dog)) (VP (VBZ sleeps)))
(S (NP (DT the) (JJ old) (NN cat)) (VP (VBZ sees) (NP (NP (DT a) (NN dog)) (ADVP (RB there)))))
"""
TEXT = "the cat sees a dog\na dog sees the old cat there\nthe dog sleeps\n"


@pytest.fixture
def place(tmp_path, monkeypatch):
    (tmp_path / "bank.mrg").write_text(TREES * 10)
    (tmp_path / "text").write_text(TEXT * 20)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def trained_module(run):
    """The run as it is trained on, its side information too."""
    return GFlowNetEM.load_from_checkpoint(Path(run) / "last.ckpt", weights_only=True)


def _side(run):
    """What a run's model learns from beside its text."""
    (phase,) = [p for p in trained_module(run).em.phases.modules() if isinstance(p, LearnBeside)]
    return phase.side


@pytest.mark.parametrize("recipe", ["gflownet", "exact", "mcmc"])
def test_a_run_with_shapes(capsys, place, recipe):
    more = ["--recipe.steps=5"] if recipe == "mcmc" else []
    flags = [*SMALL, "--recipe", recipe, *more]
    out = printed(capsys, "train", *flags, "--data=text", "--brackets=bank.mrg", "--out=run")
    assert "brackets of trees from bank.mrg: 30 trees: 30 sentences kept" in out
    head, *rows = (place / "run" / "metrics.csv").read_text().splitlines()
    column = head.split(",").index("side_log_likelihood")
    first, last = (float(row.split(",")[column]) for row in (rows[0], rows[-1]))
    assert first < last < 0  # nats a tree
    weight = _side("run").weight  # brackets come first
    assert [weight(update) for update in (0, 10, 20)] == pytest.approx([10, 1, 1])
    figures = json.loads(printed(capsys, "evaluate", "run", "--data=bank.mrg", "--format=json"))
    assert figures["exact"] is True and 0 <= figures["sentence_f1"] <= 100
    (place / "bank.mrg").unlink()  # parsing needs the grammar alone
    assert "(" in printed(capsys, "parse", "run", "text")


def test_an_interrupted_run_goes_on_as_if_it_had_not_been(capsys, place):
    side = ["--brackets=bank.mrg", "--recipe.side=TreebankBrackets", "--recipe.side.weight=0.5"]
    flags = [*SMALL, "--data=text", *side]
    assert call("train", *flags, "--out=whole") == 0
    assert call("train", *flags, "--max-updates=10", "--out=half") == 0
    elsewhere = place / "elsewhere"
    elsewhere.mkdir()
    os.chdir(elsewhere)  # the treebank's place is kept as the data's is
    assert call("train", "--resume", "../half", "--max-updates=20") == 0
    capsys.readouterr()
    whole, half = (trained_module(place / name) for name in ("whole", "half"))
    assert _side(place / "whole").weight == 0.5
    for name, value in whole.model.state_dict().items():
        torch.testing.assert_close(half.model.state_dict()[name], value)


def test_shapes_in_a_settings_file(capsys, place):
    side = {"class_path": "TreebankBrackets", "init_args": {"treebank": "bank.mrg", "weight": 2.0}}
    (place / "settings.yaml").write_text(
        yaml.safe_dump({"recipe": {"class_path": "gflownet", "init_args": {"side": side}}})
    )
    assert call("train", *SMALL, "--config=settings.yaml", "--data=text", "--out=run") == 0
    assert _side(place / "run").weight == 2.0
    (place / "elsewhere").mkdir()
    os.chdir(place / "elsewhere")
    assert call("train", "--resume=../run", "--max-updates=22") == 0
    assert trained_module(place / "run").updates == 22


def test_bad_shapes_are_refused_before_a_run_is_made(capsys, place):
    where = ["train", *SMALL, "--data=text", "--out=run"]
    assert "nowhere.mrg" in refused(capsys, *where, "--brackets=nowhere.mrg")
    assert "text: no trees in it" in refused(capsys, *where, "--brackets=text")
    (place / "broken.mrg").write_text("(S (A a) (B b)\n")
    assert "broken.mrg" in refused(capsys, *where, "--brackets=broken.mrg")
    flags = [*where, "--model=RNNG", "--brackets=bank.mrg"]
    flags = [flag for flag in flags if "terminals" not in flag]
    assert "RNNG has no exact likelihood of a bracketing" in refused(capsys, *flags)
    missing = refused(capsys, *where, "--recipe.side=TreebankBrackets")
    assert "treebank is needed (or --brackets TREEBANK)" in missing
    assert not (place / "run").exists()

"""The recurrent generator through the command line, with either space of trees."""

import json

import pytest
from commands import printed, refused

from gfnem.parsing import ShiftReducePolicy
from gfnem.running.runs import load_run

pytestmark = pytest.mark.slow

SMALL = [
    "--model=RNNG",
    "--model.dim=8",
    "--policy.dim=8",
    "--max-updates=4",
    "--recipe.samples=4",
    "--recipe.sleep=0.5",
    "--dataset.interval=2",
    "--dataset.valid_sentences=10",
    "--dataset.sentences=60",
    "--accelerator=cpu",
]
SHIFT_REDUCE = ["--space=ShiftReduceSpace", "--policy=ShiftReducePolicy"]


@pytest.mark.parametrize("flags", [[], SHIFT_REDUCE], ids=["down", "shift"])
def test_train_resume_parse_generate_evaluate(capsys, tmp_path, monkeypatch, flags):
    monkeypatch.chdir(tmp_path)
    printed(capsys, "train", *SMALL, *flags, "--out=run")
    assert "update 6/6" in printed(capsys, "train", "--resume=run", "--max-updates=6")
    (tmp_path / "text").write_text("the dog sees a cat\n")
    record = json.loads(printed(capsys, "parse", "run", "text", "--format=json"))
    assert record["log_marginal"]["method"] == "importance-weighted" and record["log_q"] < 0
    for decode in ("map", "mbr", "sample"):
        assert printed(capsys, "parse", "run", "text", "--decode", decode).count("X") == 4
    assert printed(capsys, "generate", "run", "-n", "3").count("\n") == 3
    figures = json.loads(
        printed(capsys, "evaluate", "run", "--samples=4", "--limit=20", "--format=json")
    )
    assert not figures["exact"] and figures["nll"] > 4 and figures["elbo_gap"] >= 0
    policy = load_run("run").policy
    assert isinstance(policy, ShiftReducePolicy) == bool(flags)
    if flags:  # it was told how large the generator's states are
        assert policy.memory.in_features == 16


def test_what_does_not_fit_is_refused(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    plain = [flag for flag in SMALL if not flag.startswith("--recipe")]
    line = refused(capsys, "train", *plain, "--recipe=exact", "--out=run")
    assert "RNNG offers no log_marginal" in line and "it can be trained with gflownet" in line
    wrong = [*SMALL[1:], *SHIFT_REDUCE, "--model.nonterminals=3", "--out=run"]
    assert "without labels" in refused(capsys, "train", *wrong)
    assert not (tmp_path / "run").exists()

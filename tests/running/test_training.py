"""One training run of the toy world: what its folder holds, and what is refused."""

import csv

import pytest
import yaml
from commands import call, refused

from gfnem.running.runs import load_run

PARTS = ("--dataset=toy.BitData", "--model=toy.BitModel", "--space=toy.BitSpace")
FLAGS = (*PARTS, "--policy=toy.BitPolicy", "--recipe.samples=2", "--accelerator=cpu")


@pytest.mark.slow
def test_a_run_leaves_settings_metrics_and_a_checkpoint(tmp_path, capsys):
    run = tmp_path / "run"
    own = ("--dataset.held=[0,1]", "--dataset.interval=2")
    assert call("train", *FLAGS, *own, "--max-updates=4", "--seed=3", "--out", run) == 0
    said = capsys.readouterr().out
    assert "model BitModel" in said and "update 4/4" in said and f"done: {run} holds" in said
    settings = yaml.safe_load((run / "config.yaml").read_text())
    assert settings["seed"] == 3 and settings["max_updates"] == 4 and "out" not in settings
    with open(run / "metrics.csv", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [row["update"] for row in rows] == ["2", "4"] and float(rows[-1]["val_nll"]) > 0
    assert int(load_run(run).m_updates) == 4
    before = (run / "last.ckpt").read_bytes()
    assert "already holds a run" in refused(capsys, "train", *FLAGS, "--out", run)
    assert (run / "last.ckpt").read_bytes() == before


@pytest.mark.slow
def test_unusable_settings_leave_no_folder(tmp_path, capsys):
    run = tmp_path / "run"
    said = refused(capsys, "train", *FLAGS, "--recipe.samples=1", "--out", run)
    assert "samples 1" in said and not run.exists()

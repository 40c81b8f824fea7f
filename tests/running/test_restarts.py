"""Training from several starts: one run folder, the best start, resumed where it was left."""

import csv

import pytest
import torch

import gfnem
from gfnem.errors import UserError
from gfnem.running import restarts
from gfnem.running.runs import read_checkpoint

SMALL = {
    "model": {"nonterminals": 2, "preterminals": 3, "dim": 8},
    "policy": {"dim": 8},
    "recipe": {"samples": 2},
    "dataset": {"sentences": 60, "valid_sentences": 10, "interval": 2},
    "eval_samples": 2,
    "accelerator": "cpu",
}


def rows(path):
    with open(path, newline="") as stream:
        return list(csv.DictReader(stream))


@pytest.mark.slow
def test_the_best_start_is_kept_and_an_interrupted_run_goes_on(tmp_path, monkeypatch):
    out = tmp_path / "run"
    begun = []
    once = restarts.train_once

    def until_the_second(settings, *others):
        begun.append(settings["seed"])
        if len(begun) == 2:
            raise KeyboardInterrupt
        return once(settings, *others)

    monkeypatch.setattr(restarts, "train_once", until_the_second)
    with pytest.raises(KeyboardInterrupt):
        gfnem.train(out=out, restarts=3, seed=5, max_updates=4, **SMALL)
    assert gfnem.load(out).path == out / "best.ckpt"  # the first start is there already
    begun.clear()
    monkeypatch.setattr(
        restarts,
        "train_once",
        lambda settings, *others: (begun.append(settings["seed"]), once(settings, *others)),
    )
    gfnem.train(resume=str(out), restarts=3, seed=5, max_updates=4, **SMALL)
    assert begun == [6, 7]  # and is not trained again
    table = rows(out / "restarts.csv")
    lowest = [
        min(float(row["val_nll"]) for row in rows(out / f"restart-{number}" / "metrics.csv"))
        for number in (1, 2, 3)
    ]
    assert [float(row["val_nll"]) for row in table] == pytest.approx(lowest, rel=1e-5)
    best = lowest.index(min(lowest)) + 1
    kept, start = (
        read_checkpoint(path / "best.ckpt")["state_dict"] for path in (out, out / f"restart-{best}")
    )
    assert all(torch.equal(kept[name], start[name]) for name in kept if torch.is_tensor(kept[name]))
    # all starts have held out the same
    digests = [
        read_checkpoint(out / f"restart-{n}" / "last.ckpt")["hyper_parameters"]["metadata"]["data"]
        for n in (1, 2, 3)
    ]
    assert digests[0] == digests[1] == digests[2]


def test_what_restarts_cannot_do(tmp_path):
    with pytest.raises(UserError, match="one process"):
        gfnem.train(out=tmp_path / "a", restarts=2, devices=2, **SMALL)
    nothing = {**SMALL, "dataset": {"sentences": 60, "valid_sentences": 0}}
    with pytest.raises(UserError, match="hold data out"):  # before it has trained
        gfnem.train(out=tmp_path / "a", restarts=2, max_updates=10**6, **nothing)
    assert not (tmp_path / "a").exists()


@pytest.mark.slow
def test_what_is_refused_changes_nothing_and_a_start_may_go_on_by_itself(tmp_path):
    out = tmp_path / "run"
    gfnem.train(out=out, restarts=2, max_updates=2, **SMALL)
    before = (out / "config.yaml").read_bytes()
    worse = {**SMALL, "dataset": {**SMALL["dataset"], "interval": 0}}
    with pytest.raises(UserError, match="interval 0"):
        gfnem.train(resume=str(out), restarts=2, max_updates=4, **worse)
    assert (out / "config.yaml").read_bytes() == before
    gfnem.train(resume=str(out / "restart-1"), max_updates=6, **SMALL)
    gfnem.train(resume=str(out), restarts=2, max_updates=2, **SMALL)
    nlls = [float(row["val_nll"]) for row in rows(out / "restart-1" / "metrics.csv")]
    assert float(rows(out / "restarts.csv")[0]["val_nll"]) == pytest.approx(min(nlls), rel=1e-5)
    assert len(nlls) == 3
    (out / "restarts.csv").write_text("restart,seed\n1,x\n")
    with pytest.raises(UserError, match="not a table of restarts"):
        gfnem.train(resume=str(out), restarts=2, max_updates=2, **SMALL)

"""Runs that are killed or interrupted, and resumed, end as runs that never were."""

import csv
import os
import signal
import subprocess
import sys
import time
from functools import lru_cache

import pytest
import torch
from commands import SMALL, TINY, call, printed, refused, same

pytestmark = pytest.mark.slow

#: adaptive timing and sleep, so that their state must survive as well
SETTINGS = [
    *TINY,
    "--max-updates=40",
    "--dataset.interval=5",
    "--schedule=AdaptiveThreshold",
    "--schedule.level=Anneal",
    "--schedule.level.start=1.5",
    "--schedule.level.end=0.5",
    "--schedule.level.updates=20",
    "--recipe.sleep=0.5",
    "--recipe.epsilon=0.1",
]


def metrics(run):
    with open(run / "metrics.csv", newline="") as stream:
        return [
            {name: value for name, value in row.items() if name != "seconds"}
            for row in csv.DictReader(stream)
        ]


@lru_cache
def undisturbed(folder):
    assert call("train", *SETTINGS, "--out", folder / "run") == 0
    return folder / "run"


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return undisturbed(tmp_path_factory.mktemp("whole"))


def start(run):
    """A training run in a process of its own, as a shell starts it."""
    return subprocess.Popen(
        [sys.executable, "-m", "gfnem", "train", *SETTINGS, "--out", str(run)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ,
        # a suite that a script started in the background has inherited to ignore it
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def stop(process, file, by, patience=120):
    """Sends a signal as soon as a file is there; exit code and standard error."""
    deadline = time.monotonic() + patience
    while not file.exists():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline, "the run did not start"
        time.sleep(0.002)
    process.send_signal(by)
    _, errors = process.communicate(timeout=patience)
    return process.returncode, errors


def same_end(one, other):
    assert metrics(one) == metrics(other)
    a, b = (torch.load(run / "last.ckpt", weights_only=True) for run in (one, other))
    assert a["state_dict"].keys() == b["state_dict"].keys()
    for name, value in a["state_dict"].items():
        assert same(value, b["state_dict"][name]), name
    for first, second in zip(a["optimizer_states"], b["optimizer_states"], strict=True):
        for index, moments in first["state"].items():
            for name, value in moments.items():
                assert same(value, second["state"][index][name]), name


@pytest.mark.parametrize("file", ["config.yaml", "last.ckpt"])
def test_sigkill_before_and_after_the_first_checkpoint(capsys, tmp_path, whole, file):
    run = tmp_path / "run"
    code, _ = stop(start(run), run / file, signal.SIGKILL)
    assert code == -signal.SIGKILL
    assert not (run / "metrics.csv").exists() or len(metrics(run)) < 8, "killed too late"
    (run / ".last.ckpt.tmp").write_bytes(b"half a checkpo")
    out = printed(capsys, "train", "--resume", run)
    assert ("going on after" if file == "last.ckpt" else "starting again") in out
    assert not [path.name for path in run.iterdir() if path.name.endswith(".tmp")]
    same_end(run, whole)


def test_ctrl_c_leaves_a_run_that_can_be_resumed(capsys, tmp_path, whole):
    run = tmp_path / "run"
    code, errors = stop(start(run), run / "last.ckpt", signal.SIGINT)
    assert code == 130
    assert errors == f"gfnem: interrupted (go on with: gfnem train --resume {run})\n"
    printed(capsys, "train", "--resume", run)
    same_end(run, whole)


def test_killed_between_metrics_and_checkpoint(capsys, tmp_path, whole, monkeypatch):
    """The metrics may be one interval ahead of the checkpoint; they are written again."""
    from gfnem.running import runs

    run, replaced = tmp_path / "run", os.replace

    class Killed(BaseException):
        pass

    def replace(source, target):
        if str(target).endswith("last.ckpt") and (run / "last.ckpt").exists():
            raise Killed
        replaced(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(runs.os, "replace", replace)
        with pytest.raises(Killed):
            call("train", *SETTINGS, "--out", run)
    assert len(metrics(run)) == 2
    assert "already holds a run" in refused(capsys, "train", *SETTINGS, "--out", run)
    assert "going on after update 5" in printed(capsys, "train", "--resume", run)
    same_end(run, whole)


def test_a_run_is_resumed_from_another_folder(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    lines = "".join(f"the dog saw {word}\n" for word in ("a bird", "him", "it and slept") * 20)
    (tmp_path / "text.txt").write_text(lines)
    call("train", *SMALL, "--data", "text.txt", "--out", "run", "--max-updates", 10)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    out = printed(capsys, "train", "--resume", "../run", "--max-updates", 20)
    assert "going on after update 10" in out

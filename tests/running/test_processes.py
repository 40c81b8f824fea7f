"""Several processes train one run: the same result, one folder, and an end in good order."""

import csv
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from commands import SMALL, call

from gfnem.running.trained import CLOCK

SETTINGS = [*SMALL, "--dataset.sentences=100", "--dataset.batch_size=9", "--max-updates=20"]
#: exact EM draws nothing, so two processes give what one gives, up to the order of sums; Adam makes
#: much of that where a gradient is all but zero, unless sums are precise
EXACT = [*SETTINGS, "--recipe=exact", "--precision=64-true"]


def outside():
    """The environment of a shell that is none of several processes."""
    return {k: v for k, v in os.environ.items() if k not in ("RANK", "LOCAL_RANK", "WORLD_SIZE")}


def start(*arguments, launcher=(), environment=None):
    command = [sys.executable, "-m", *launcher, "gfnem", "train", *map(str, arguments)]
    if launcher:
        command.remove("gfnem")
        command.insert(command.index("train"), "gfnem")
    return subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**outside(), **(environment or {})},
        # a suite that a script started in the background has inherited to ignore it
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def finished(process, code=0, patience=300):
    out, errors = process.communicate(timeout=patience)
    assert process.returncode == code, (out, errors)
    return out, errors


def weights(run, name="last.ckpt"):
    return torch.load(Path(run) / name, weights_only=True)["state_dict"]


def rows(run):
    with open(Path(run) / "metrics.csv", newline="") as stream:
        return list(csv.DictReader(stream))


def close(one, other, tolerance):
    for name, value in one.items():
        if not torch.is_tensor(value):  # counts of updates
            assert value == other[name]
            continue
        difference = (value.double() - other[name].double()).abs().max()
        assert difference <= tolerance, (name, float(difference))


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    run = tmp_path_factory.mktemp("alone") / "run"
    assert call("train", *EXACT, "--out", run) == 0
    return run


@pytest.mark.slow
def test_two_processes_give_what_one_gives(tmp_path, alone):
    run = tmp_path / "run"
    out, _ = finished(start(*EXACT, "--out", run, "--devices=2"))
    assert out.count("done:") == out.count("training on") == 1
    close(weights(alone), weights(run), 1e-6)
    assert [float(row["val_nll"]) for row in rows(run)] == pytest.approx(
        [float(row["val_nll"]) for row in rows(alone)], rel=1e-5
    )
    assert [float(row["m_loss"]) for row in rows(run)] == pytest.approx(
        [float(row["m_loss"]) for row in rows(alone)],
        rel=0.02,  # shares of 5 and 4 sentences
    )
    assert not [path.name for path in run.iterdir() if path.name.endswith(".tmp")]


@pytest.mark.slow
def test_a_run_goes_on_with_more_processes_that_torchrun_starts(tmp_path, alone):
    run = tmp_path / "run"
    assert call("train", *EXACT, "--out", run, "--max-updates=10") == 0
    launcher = ("torch.distributed.run", "--nproc-per-node", "2", "--standalone", "-m")
    out, _ = finished(start("--resume", run, "--max-updates=20", launcher=launcher))
    assert out.count("going on after update 10") == out.count("done:") == 1
    close(weights(alone), weights(run), 1e-6)


@pytest.mark.slow
def test_two_machines(tmp_path, alone):
    """As far as one machine can show: the same command twice, with a number for each."""
    run = tmp_path / "run"
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        port = server.getsockname()[1]
    place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    first, second = (
        start(*EXACT, "--out", run, "--num-nodes=2", environment={**place, "NODE_RANK": str(node)})
        for node in (0, 1)
    )
    assert finished(second) == ("", "")
    assert finished(first)[0].count("done:") == 1
    close(weights(alone), weights(run), 1e-6)


@pytest.mark.slow
def test_each_process_draws_for_itself_and_resumes_bit_by_bit(tmp_path):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    settings = [*SETTINGS, "--recipe.epsilon=0.1", "--recipe.sleep=0.5", "--devices=2"]
    finished(start(*settings, "--out", whole))
    finished(start(*settings, "--out", parts, "--max-updates=10"))
    states = torch.load(parts / "last.ckpt", weights_only=True)["rng"]
    assert len(states) == 2 and not torch.equal(states[0]["cpu"], states[1]["cpu"])
    finished(start("--resume", parts, "--max-updates=20"))
    close(weights(whole), weights(parts), 0.0)


def children(process):
    listed = subprocess.run(["ps", "-eo", "pid=,ppid="], capture_output=True, text=True).stdout
    return [int(p) for p, parent in map(str.split, listed.splitlines()) if int(parent) == process]


@pytest.mark.slow
@pytest.mark.parametrize("which", [0, 1])
def test_a_killed_process_ends_the_others_with_one_line(tmp_path, which):
    run = tmp_path / "run"
    process = start(*SETTINGS, "--out", run, "--devices=2", "--max-updates=100000")
    deadline = time.monotonic() + 300
    while not (run / "last.ckpt").exists():
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.05)
    (beside,) = children(process.pid)
    os.kill(beside if which else process.pid, signal.SIGKILL)
    _, errors = process.communicate(timeout=60)  # both hold the pipes: both have ended
    assert process.returncode == (2 if which else -signal.SIGKILL)
    assert errors.count("\n") == 1 and "go on with --resume" in errors, errors
    assert f"process {which} of 2 ended" in errors
    if which:  # one process goes on where two were
        done = int(weights(run)[CLOCK]["updates"])
        assert call("train", "--resume", run, "--devices=1", f"--max-updates={done + 5}") == 0
        assert int(weights(run)[CLOCK]["updates"]) == done + 5


@pytest.mark.slow
def test_ctrl_c_stops_all_at_the_same_update_and_saves(tmp_path):
    run = tmp_path / "run"
    process = start(
        *SETTINGS, "--out", run, "--devices=2", "--max-updates=100000", "--dataset.interval=500"
    )
    assert any("training on" in line for line in process.stdout)
    time.sleep(2)  # into the first interval
    process.send_signal(signal.SIGINT)
    _, errors = finished(process, code=130, patience=120)
    assert errors == f"gfnem: interrupted (go on with: gfnem train --resume {run})\n"
    if (run / "last.ckpt").exists():
        assert int(weights(run)[CLOCK]["updates"]) > 0


def test_more_processes_than_observations_are_refused():
    from toy import BitData

    from gfnem.errors import UserError

    with pytest.raises(UserError, match="batches of 2 cannot be shared out among 3 processes"):
        BitData(batch_size=2, kinds=(0, 1, 0, 1)).training_batch(0, 0, 3)

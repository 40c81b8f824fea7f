"""Kills a training run at random moments and resumes it: does each end bit by bit as undisturbed?

python experiments/kill_and_resume.py --times 20 [--devices 2]

Prints a line for each kill, and at the end how many of the resumed runs were the same in every
weight, every optimiser moment and every row of metrics.
"""

from __future__ import annotations

import argparse
import csv
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

SETTINGS = [
    "--model.nonterminals=4",
    "--model.preterminals=6",
    "--model.dim=16",
    "--policy.dim=16",
    "--max-updates=60",
    "--dataset.interval=5",
    "--dataset.sentences=200",
    "--dataset.valid_sentences=20",
    "--schedule=AdaptiveThreshold",
    "--schedule.level=Anneal",
    "--schedule.level.start=1.5",
    "--schedule.level.end=0.5",
    "--schedule.level.updates=20",
    "--recipe.sleep=0.5",
    "--recipe.epsilon=0.1",
    "--accelerator=cpu",
]


def train(*arguments: object) -> subprocess.Popen:
    """A run in a process group of its own, so that a kill reaches all of it."""
    command = [sys.executable, "-m", "gfnem", "train", *map(str, arguments)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        command, env=environment, stdout=subprocess.DEVNULL, start_new_session=True
    )


def rows(run: Path) -> list[dict[str, str]]:
    """The metrics, times left out."""
    with open(run / "metrics.csv", newline="") as stream:
        return [{k: v for k, v in row.items() if k != "seconds"} for row in csv.DictReader(stream)]


def difference(one: Path, other: Path) -> str:
    """What differs between two finished runs; "" if nothing does."""
    if rows(one) != rows(other):
        return "metrics"
    a, b = (torch.load(run / "last.ckpt", weights_only=True) for run in (one, other))
    for name, value in a["state_dict"].items():
        other_value = b["state_dict"][name]
        tensor = isinstance(value, torch.Tensor)  # the clock is plain numbers
        if not (torch.equal(value, other_value) if tensor else value == other_value):
            return name
    for first, second in zip(a["optimizer_states"], b["optimizer_states"], strict=True):
        for index, moments in first["state"].items():
            for name, value in moments.items():
                if not torch.equal(value, second["state"][index][name]):
                    return f"optimiser {name}"
    left = [path.name for path in other.iterdir() if path.name.endswith(".tmp")]
    return f"left behind: {left}" if left else ""


def main() -> int:
    """Runs the trial; 0 if all runs were the same."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--times", type=int, default=20)
    parser.add_argument("--devices", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    options = parser.parse_args()
    chance = random.Random(options.seed)
    settings = [*SETTINGS, f"--devices={options.devices}"]
    same = 0
    with tempfile.TemporaryDirectory() as folder:
        whole = Path(folder) / "whole"
        start = time.monotonic()
        if train(*settings, "--out", whole).wait():
            return 1
        length = time.monotonic() - start
        print(f"undisturbed: {length:.1f} s", flush=True)
        for number in range(1, options.times + 1):
            run = Path(folder) / f"run{number}"
            moment = chance.uniform(0.2, 1.0) * length
            process = train(*settings, "--out", run)
            try:
                process.wait(moment)
                reached = "had ended"
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
                done = (run / "last.ckpt").exists()
                reached = f"killed after {'a checkpoint' if done else 'no checkpoint'}"
            if not (run / "config.yaml").exists():  # killed before there was a run
                code = train(*settings, "--out", run).wait()
            else:
                code = train("--resume", run).wait()
            wrong = f"exit code {code}" if code else difference(whole, run)
            same += not wrong
            print(f"{number}: at {moment:.1f} s {reached}: {wrong or 'the same'}", flush=True)
    print(f"{same} of {options.times} the same")
    return int(same != options.times)


if __name__ == "__main__":
    sys.exit(main())

"""How much faster two processes train than one, each with one thread, in turn.

python experiments/benchmarks/bench_processes.py [--data TEXT]

Prints, for each turn, wall seconds for each update, without start and validation, and the ratio.
Wall time is what several processes are for, so the machine must have nothing else to do. What is
recorded is the CPU time of the whole runs.
"""

from __future__ import annotations

import argparse
import csv
import os
import statistics
import sys
import tempfile
from pathlib import Path

from record import Seconds, program_seconds, record


def seconds(folder: Path, devices: int, options: argparse.Namespace) -> Seconds:
    """Wall time of an update, by the run's own clock, and CPU time of the whole run."""
    command = [sys.executable, "-m", "gfnem", "train", "--accelerator", "cpu"]
    command += ["--devices", str(devices), "--out", str(folder)]
    command += ["--max-updates", str(3 * options.updates), "--dataset.valid_sentences", "0"]
    command += ["--dataset.interval", str(options.updates), "--dataset.min_length", "3"]
    command += ["--dataset.batch_size", str(options.batch)]
    if options.data:
        command += ["--data", options.data]
    if options.exact:
        command += ["--recipe", "exact"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}
    whole = program_seconds(command, env=environment)
    with open(folder / "metrics.csv", newline="") as stream:
        clock = [float(row["seconds"]) for row in csv.DictReader(stream)]
    return Seconds((clock[-1] - clock[0]) / (2 * options.updates), whole.cpu)


def main() -> None:
    """Prints the timings."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", help="what to train on (default: the embedded grammar)")
    parser.add_argument("--updates", type=int, default=30, help="updates in an interval")
    parser.add_argument("--batch", type=int, default=32, help="observations of an update in all")
    parser.add_argument("--turns", type=int, default=2)
    parser.add_argument("--exact", action="store_true", help="exact EM rather than GFlowNet-EM")
    options = parser.parse_args()
    ratios = []
    for turn in range(options.turns):
        with tempfile.TemporaryDirectory() as folder:
            one, two = (seconds(Path(folder) / str(n), n, options) for n in (1, 2))
        ratios.append(one.wall / two.wall)
        print(
            f"turn {turn + 1}: {one.wall:.3f} s an update with one process, {two.wall:.3f} s with "
            f"two: {ratios[-1]:.2f} times as fast",
            flush=True,
        )
        for count, measured in ((1, one), (2, two)):
            record(f"{3 * options.updates} updates, processes: {count}", measured.cpu)
    print(f"median {statistics.median(ratios):.2f}")


if __name__ == "__main__":
    main()

"""Times `gfnem parse`: how long it takes to start, and how many sentences it answers a second.

    python experiments/benchmarks/bench_parse.py RUN SENTENCES [--repeats 3] [--python PATH]

SENTENCES is a text file with one sentence a line. Each repeat runs the program twice, on one line
and on all lines; the difference is what reading, parsing and writing take. Medians, in wall time
and in CPU time (of all threads): on a machine that does other work, CPU time is what to compare.
With `--threads 1` wall time and CPU time of a quiet machine agree. To compare two versions, run
them in turn, each with its own checkout in PYTHONPATH.
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path


def seconds(command: list[str], environment: dict[str, str]) -> tuple[float, float]:
    """Wall and CPU time of a program whose output is thrown away."""
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run(command, env=environment, stdout=subprocess.DEVNULL, check=True)
    wall, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    return wall, sum(getattr(after, f) - getattr(before, f) for f in ("ru_utime", "ru_stime"))


def main() -> None:
    """Prints the timings."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("run")
    parser.add_argument("sentences")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--decode", default="mbr")
    parser.add_argument("--format", default="bracket")
    parser.add_argument("--python", default=sys.executable)
    options = parser.parse_args()
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": str(options.threads),
        "OMP_WAIT_POLICY": "PASSIVE",
    }
    lines = Path(options.sentences).read_text().splitlines()
    flags = ["--decode", options.decode, "--format", options.format]
    with tempfile.TemporaryDirectory() as folder:
        one = Path(folder) / "one.txt"
        one.write_text(lines[0] + "\n")
        command = [options.python, "-m", "gfnem", "parse", options.run]
        starts, alls = [], []
        for _ in range(options.repeats):
            starts.append(seconds([*command, str(one), *flags], environment))
            alls.append(seconds([*command, options.sentences, *flags], environment))
    words = sum(len(line.split()) for line in lines) / len(lines)
    print(
        f"{len(lines):,} sentences of {words:.1f} words, {options.threads} threads, "
        f"{options.decode}, {options.format}; medians of {options.repeats}"
    )
    for clock, name in enumerate(("wall", "CPU")):
        start = statistics.median(times[clock] for times in starts)
        both = zip(alls, starts, strict=True)
        work = statistics.median(whole[clock] - begun[clock] for whole, begun in both)
        print(
            f"{name:4} time: one line {start:6.2f} s; then {work:6.2f} s, "
            f"{(len(lines) - 1) / work:6.0f} sentences/s"
        )


if __name__ == "__main__":
    main()

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
import statistics
import sys
import tempfile
from pathlib import Path

from record import program_seconds, record


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
            starts.append(program_seconds([*command, str(one), *flags], env=environment))
            alls.append(program_seconds([*command, options.sentences, *flags], env=environment))
    words = sum(len(line.split()) for line in lines) / len(lines)
    print(
        f"{len(lines):,} sentences of {words:.1f} words, {options.threads} threads, "
        f"{options.decode}, {options.format}; medians of {options.repeats}"
    )
    for clock, name in (("wall", "wall"), ("cpu", "CPU")):
        start = statistics.median(getattr(times, clock) for times in starts)
        work = statistics.median(
            getattr(whole, clock) - getattr(begun, clock)
            for whole, begun in zip(alls, starts, strict=True)
        )
        print(
            f"{name:4} time: one line {start:6.2f} s; then {work:6.2f} s, "
            f"{(len(lines) - 1) / work:6.0f} sentences/s"
        )
    # the loop ends with CPU time
    name = "gfnem parse" if options.decode == "mbr" else f"gfnem parse --decode {options.decode}"
    record(f"{name}, one line from start to end", start)
    record(f"{name}, {len(lines) - 1:,} sentences after the first", work)


if __name__ == "__main__":
    main()

"""What the benchmarks share: times of a job, and the table that their measurements go to.

Every measurement is a row of `experiments/results/speed.csv`: commit, date, machine, command, what
was timed and its CPU seconds, of all threads. On a machine that does other work, CPU time is what
can be compared.
"""

from __future__ import annotations

import csv
import os
import platform
import resource
import shlex
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path

ROOT = Path(__file__).parents[2]
TABLE = ROOT / "experiments" / "results" / "speed.csv"
COLUMNS = ("commit", "date", "machine", "command", "what", "cpu_seconds")


@dataclass
class Seconds:
    """How long something took, on the clock and in CPU time of all threads."""

    wall: float
    cpu: float


def median_seconds(
    job: Callable[[], object], repeats: int, wait: Callable[[], None] = lambda: None
) -> Seconds:
    """Medians over `repeats` calls of `job`, after two that do not count.

    Args:
        job: what is timed, in this process.
        repeats: calls that count.
        wait: called after each, for devices that work on by themselves.
    """
    return medians_in_turn([job], repeats, wait)[0]


def medians_in_turn(
    jobs: Sequence[Callable[[], object]], repeats: int, wait: Callable[[], None] = lambda: None
) -> list[Seconds]:
    """Of each of several jobs what `median_seconds` says, one call of each after the other.

    A machine that is slower for a while is slower for all of them.
    """
    found: list[list[Seconds]] = [[] for _ in jobs]
    for _ in range(repeats + 2):
        for job, seconds in zip(jobs, found, strict=True):
            start, before = time.perf_counter(), time.process_time()
            job()
            wait()
            seconds.append(Seconds(time.perf_counter() - start, time.process_time() - before))
    return [
        Seconds(
            statistics.median(each.wall for each in seconds[2:]),
            statistics.median(each.cpu for each in seconds[2:]),
        )
        for seconds in found
    ]


def program_seconds(command: list[str], **settings) -> Seconds:
    """Of a program, its children included, whose output is thrown away.

    Args:
        command: the program and its arguments.
        settings: of `subprocess.run`.
    """
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run(command, stdout=subprocess.DEVNULL, check=True, **settings)
    wall, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    return Seconds(
        wall, sum(getattr(after, f) - getattr(before, f) for f in ("ru_utime", "ru_stime"))
    )


def record(what: str, cpu_seconds: float) -> None:
    """Appends a measurement of the running command to the table."""
    command = shlex.join(
        ["python", f"experiments/benchmarks/{Path(sys.argv[0]).name}", *sys.argv[1:]]
    )
    row = (commit(), date.today().isoformat(), machine(), command, what, f"{cpu_seconds:.4g}")
    new = not TABLE.exists()
    TABLE.parent.mkdir(exist_ok=True)
    with open(TABLE, "a", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerows([COLUMNS, row] if new else [row])


def commit() -> str:
    """The short name of the commit, with `+` where the working tree differs from it."""
    command = ["git", "-C", str(ROOT), "describe", "--always", "--exclude=*", "--dirty=+"]
    done = subprocess.run(command, capture_output=True, text=True)
    return done.stdout.strip() or "unknown"


def machine() -> str:
    """Cores and processor."""
    name = platform.processor() or platform.machine()
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{os.cpu_count()} x {models[0] if models else name}"

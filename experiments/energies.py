"""Tables of energies and their samplers, one cell after the other.

    python experiments/energies.py points8 --updates 20000 --seeds 0 1 2 --device cuda --jobs 8
    python experiments/energies.py rbm --seconds 60

Each cell is a row of `experiments/results/energies_TABLE.csv`, with its command, commit, date and
machine; a second call does what the table still lacks. `--minutes` starts no cell after so long,
and `--jobs` trains several cells at a time.
"""

from __future__ import annotations

import argparse
import csv
import multiprocessing
import os
import shlex
import sys
import time
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from datetime import date
from functools import partial
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE / "benchmarks")]

import energy_tasks as tasks  # noqa: E402
from parity_tasks import ORDERS, parity  # noqa: E402
from record import commit, machine  # noqa: E402

RESULTS = HERE / "results"
SETS = tasks.POINTS
#: what each table's cells are: what they are called, methods, and what makes a row
TABLES: dict[str, tuple[tuple[str, ...], tuple[str, ...], Callable[..., dict]]] = {
    "points8": (SETS, tuple(tasks.POINT_METHODS), partial(tasks.points, bits=8)),
    "points16": (SETS, tuple(tasks.FINE_METHODS), partial(tasks.points, bits=16)),
    "rbm": (("digits",), ("exact", "eb_gfn", "eb_gfn_units", "pcd1", "pcd10", "cd1", "sklearn"),
            partial(tasks.machine, "rbm")),
    "machine": (("digits",), ("exact", "eb_gfn", "eb_gfn_units", "pcd1", "mean_field_pcd"),
                partial(tasks.machine, "machine")),
    "bars": (("bars_and_stripes",), ("exact", "eb_gfn", "eb_gfn_draws", "eb_gfn_units", "pcd1"),
             partial(tasks.machine, "bars")),
    "fixed_ising": (("0.1", "0.22", "0.3"), ("free_sampler",),
                    lambda name, _, *rest: tasks.fixed_ising(float(name), *rest)),
    "ising": (("10x10",), ("logistic", *tasks.ISING_METHODS),
              lambda _, *rest: tasks.learned_ising(*rest)),
    "parity": (("0", "4", "12", "28"), tuple(ORDERS), parity),
}  # fmt: skip
PROVENANCE = ("command", "commit", "date", "machine")


def cell(table: str, name: str, method: str, seed: int, options: argparse.Namespace) -> dict:
    """One row, made in a process of its own."""
    import torch

    torch.set_num_threads(1)
    found = TABLES[table][2](name, method, seed, options.device, options.updates, options.seconds)
    return {"data": name, "method": method, "seed": seed, "budget": budget(options), **found}


def budget(options: argparse.Namespace) -> str:
    """What a cell was given."""
    return f"{options.seconds:g} s" if options.seconds else f"{options.updates} updates"


def provenance(command: str) -> dict[str, str]:
    """Where a row comes from that a command makes now, by the names of `PROVENANCE`."""
    facts = (command, commit(), date.today().isoformat(), machine())
    return dict(zip(PROVENANCE, facts, strict=True))


def read(path: Path) -> list[dict[str, str]]:
    """The rows that are there."""
    if not path.exists():
        return []
    with open(path, newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def write(path: Path, rows: list[dict[str, Any]]) -> None:
    """The whole table; rows may have different figures."""
    from gfnem.files import write_atomically

    columns = list(dict.fromkeys(name for row in rows for name in row if name not in PROVENANCE))
    lines = [[*columns, *PROVENANCE]]
    lines += [[row.get(name, "") for name in lines[0]] for row in rows]
    import io

    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(lines)
    write_atomically(path, text.getvalue())


def main() -> None:
    """Makes the rows that are missing."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("table", choices=TABLES)
    parser.add_argument("--data", nargs="+", help="which cells; all if not given")
    parser.add_argument("--methods", nargs="+")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--updates", type=int)
    parser.add_argument("--seconds", type=float, help="in place of updates")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--minutes", type=float, default=1e9, help="no cell is started later")
    parser.add_argument("--out", type=Path, help="the file; of the table's name if not given")
    options = parser.parse_args()
    if options.seconds is None and options.updates is None:
        options.updates = 5000
    started = time.monotonic()
    path = options.out or RESULTS / f"energies_{options.table}.csv"
    rows: list[dict[str, Any]] = list(read(path))
    done = {(row["data"], row["method"], row["seed"], row["budget"]) for row in rows}
    names, methods, _ = TABLES[options.table]
    todo = [
        (options.table, name, method, seed, options)
        for seed in options.seeds
        for name in options.data or names
        for method in options.methods or methods
        if (name, method, str(seed), budget(options)) not in done
    ]
    command = shlex.join(["python", "experiments/energies.py", *sys.argv[1:]])
    facts = provenance(command)
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(options.jobs, mp_context=context) as pool:
        running = set()
        while todo or running:
            late = time.monotonic() - started > 60 * options.minutes
            while todo and len(running) < options.jobs and not late:
                running.add(pool.submit(cell, *todo.pop(0)))
            if not running:
                break
            finished, running = wait(running, return_when=FIRST_COMPLETED)
            for future in finished:
                found = future.result()
                shown = {k: f"{v:.5g}" if isinstance(v, float) else v for k, v in found.items()}
                rows.append({**shown, **facts})
                write(path, rows)
                print("  ".join(f"{k} {v}" for k, v in shown.items()), flush=True)


if __name__ == "__main__":
    main()

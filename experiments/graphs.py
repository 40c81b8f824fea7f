"""Posteriors over graphs beside exact ones and beside rivals: the measurements.

    python experiments/graphs.py five --seeds 20
    python experiments/graphs.py sachs --data sachs.txt --truth consensus.txt
    python experiments/graphs.py larger --variables 12 14
    python experiments/graphs.py twenty
    python experiments/graphs.py amortised
    python experiments/graphs.py parameters
    python experiments/graphs.py mixture
    python experiments/graphs.py grammar
    python experiments/graphs.py networks
    python experiments/graphs.py summary

Each measurement is a line of `runs/graphs/TASK.csv`, written as it is done; a second call passes
over what is there, so several processes may share the seeds (`--seeds 3 4 5`). Seconds are those
of the CPU: machines are shared. `summary` makes the tables in `experiments/results` from them.
"""

from __future__ import annotations

import argparse
import csv
import math
import shlex
import statistics
import sys
from collections.abc import Callable, Iterator
from datetime import date
from pathlib import Path
from typing import Any

import torch

sys.path.append(str(Path(__file__).parent / "benchmarks"))
from graph_parameters import grammar, mixture, networks, parameters
from graph_tables import amortised, five, larger, sachs, twenty
from record import commit, machine

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "experiments" / "results"

TASKS: dict[str, Callable[[int, Any], Iterator[tuple[str, Callable[[], dict]]]]] = {
    "five": five,
    "sachs": sachs,
    "larger": larger,
    "twenty": twenty,
    "amortised": amortised,
    "parameters": parameters,
    "mixture": mixture,
    "grammar": grammar,
    "networks": networks,
}
COLUMNS = ("task", "seed", "method", "figures", "command", "commit", "date", "machine")

# -------------------------------------------------------------------------------- the tables


def rows_of(path: Path) -> list[dict[str, str]]:
    """What has been measured."""
    if not path.exists():
        return []
    with open(path, newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def measure(args: argparse.Namespace) -> None:
    """Measures what is not there yet."""
    path = Path(args.output) / f"{args.task}.csv"
    path.parent.mkdir(parents=True, exist_ok=True)
    # where the user's own files are is nobody's business
    words = [Path(word).name if Path(word).is_absolute() else word for word in sys.argv[1:]]
    command = shlex.join(["python", "experiments/graphs.py", *words])
    for seed in args.seeds:
        for method, job in TASKS[args.task](seed, args):
            done = {(row["seed"], row["method"]) for row in rows_of(path)}
            wanted = not args.methods or any(part in method for part in args.methods)
            if (str(seed), method) in done or not wanted:
                continue
            torch.manual_seed(seed)
            figures = ";".join(f"{name}={value:.6g}" for name, value in job().items())
            facts = command, commit(), date.today().isoformat(), machine()
            new = not path.exists()
            with open(path, "a", newline="", encoding="utf-8") as stream:
                writer = csv.writer(stream, lineterminator="\n")
                row = (args.task, seed, method, figures, *facts)
                writer.writerows([COLUMNS, row] if new else [row])
            print(seed, method, figures, flush=True)


def summary(args: argparse.Namespace) -> None:
    """Medians and worst values over seeds, a row for each method.

    Rows of methods that have not been measured here stay as they are.
    """
    for task in TASKS:
        rows = rows_of(Path(args.output) / f"{task}.csv")
        if not rows:
            continue
        methods = list(dict.fromkeys(row["method"] for row in rows))
        found, names = [], []
        for method in methods:
            own = [row for row in rows if row["method"] == method]
            parts = [dict(pair.split("=") for pair in row["figures"].split(";")) for row in own]
            names += [name for name in parts[0] if name not in names]
            found.append((method, own, parts))
        lines = []
        for method, own, parts in found:
            line = {"method": method, "seeds": len(own)}
            for name in names:
                values = [float(part[name]) for part in parts if name in part]
                if not values:
                    line[name] = ""
                    continue
                line[name] = f"{statistics.median(values):.4g}"
                if len(values) > 1:
                    line[name] += f" ({min(values):.4g} to {max(values):.4g})"
            last = own[-1]
            lines.append({**line, **{key: last[key] for key in COLUMNS[4:]}})
        path = RESULTS / f"graphs_{task}.csv"
        kept = [row for row in rows_of(path) if row["method"] not in methods]
        columns = ["method", "seeds", *names]
        for row in kept:
            columns += [name for name in row if name not in (*columns, *COLUMNS[4:])]
        with open(path, "w", newline="", encoding="utf-8") as stream:
            columns += COLUMNS[4:]
            writer = csv.DictWriter(stream, columns, restval="", lineterminator="\n")
            writer.writeheader()
            writer.writerows([*lines, *kept])
        print(f"experiments/results/graphs_{task}.csv")


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("task", choices=(*TASKS, "summary"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--methods", nargs="+", help="only those whose names hold one of these")
    parser.add_argument("--data", help="the table of sachs, with named columns")
    parser.add_argument("--truth", help="its graph of 20 edges, an edge A --> B a line")
    parser.add_argument("--variables", type=int, nargs="+", default=[12, 14])
    parser.add_argument("--updates", type=int)
    parser.add_argument(
        "--seconds", type=float, default=math.inf, help="CPU seconds, most of each training"
    )
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--output", default=str(ROOT / "runs" / "graphs"))
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    summary(args) if args.task == "summary" else measure(args)


if __name__ == "__main__":
    main()

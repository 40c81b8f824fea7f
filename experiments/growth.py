"""A grammar grown from a smaller one, beside the same grammar trained from the start.

    python experiments/growth.py [--seeds 0 1 2] [--out runs/growth]
    python experiments/growth.py --train TEXT --valid TEXT --test TREES --name CRAFT

Both have 2,000 updates: all of them with 30+60 symbols, or 500 with 10+30, 500 with 20+40 and
1,000 with 30+60, each from the one before (`--model.grown_from`). By exact EM and by GFlowNet-EM,
on the embedded default or on a text. Each stage is a `gfnem train` in a folder of its own under
`--out`, the last one is evaluated, and makes a row of `experiments/results/growth.csv`. What has a
row is not run again, and a run that was interrupted goes on.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE / "benchmarks")]

from energies import provenance, read, write  # noqa: E402
from trained_runs import evaluated, trained  # noqa: E402

RESULTS = HERE / "results" / "growth.csv"
#: nonterminals, preterminals and updates of each stage
WAYS = {
    "from the start": ((30, 60, 2000),),
    "grown": ((10, 30, 500), (20, 40, 500), (30, 60, 1000)),
}
#: figures of a row, and what `gfnem evaluate` calls them
FIGURES = {
    "NLL per token": "nll",
    "ELBO gap per sentence": "elbo_gap",
    "sentence F1": "sentence_f1",
    "right branching": "right_sentence_f1",
}
RECIPES = {"exact EM": ("--recipe", "exact"), "GFlowNet-EM": ("--recipe.m_step", "equal")}


def falling(rate: str, start: float, end: float) -> tuple[str, ...]:
    """Flags for a learning rate that falls in the course of a stage."""
    name, ends = f"--rates.{rate}", (("start", start), ("end", end), ("share", 1))
    return name, "Anneal", *(word for key, value in ends for word in (f"{name}.{key}", str(value)))


#: of the last stage; before it rates stay high: what has settled early is not told apart later
RATES = (*falling("model", 0.006, 0.0004), *falling("policy", 0.003, 0.001))
BEFORE = (*falling("model", 0.01, 0.006), "--rates.policy", "0.003")


def row(way: str, recipe: str, seed: int, options: argparse.Namespace) -> dict[str, Any]:
    """Trains the stages and evaluates the last, as far as that has not been done."""
    told = ["--reward", "none", *RECIPES[recipe], "--seed", str(seed)]
    data = ["--data", options.train, "--valid", options.valid] if options.train else []
    before: list[str] = []
    for number, (inner, leaves, updates) in enumerate(WAYS[way], 1):
        name = f"{way}-{recipe}-{seed}-{number}".replace(" ", "-")
        run = options.out / name
        sizes = ["--model.nonterminals", str(inner), "--model.preterminals", str(leaves)]
        rates = RATES if number == len(WAYS[way]) else BEFORE
        words = [*told, *sizes, *rates, "--max-updates", str(updates)]
        trained(run, *words, *before, *data)
        before = ["--model.grown_from", str(run)]
    flags = ["--data", options.test, "--max-length", "20"] if options.test else []
    figures = evaluated(run, FIGURES, *flags)
    if number > 1:
        words += ["--model.grown_from", "SMALLER"]
    words += ["--data", "TRAIN", "--valid", "DEV"] if data else []
    command = shlex.join(["gfnem", "train", *words])
    named = {"text": options.name, "E-step": recipe, "way": way, "seed": seed}
    return {**named, **figures, **provenance(command)}


def main() -> None:
    """Makes the rows that are missing."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    for name in ("train", "valid", "test"):
        parser.add_argument(f"--{name}", help="a file or folder; all three or none")
    parser.add_argument("--name", default="embedded", help="of the text, in the table")
    parser.add_argument("--out", type=Path, default=Path("runs/growth"))
    parser.add_argument("--recipes", nargs="+", choices=RECIPES, default=list(RECIPES))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--results", type=Path, default=RESULTS)
    options = parser.parse_args()
    if len({bool(given) for given in (options.train, options.valid, options.test)}) > 1:
        parser.error("--train, --valid and --test: all three or none")
    rows: list[dict[str, Any]] = list(read(options.results))
    done = {(each["text"], each["E-step"], each["way"], each["seed"]) for each in rows}
    for seed in options.seeds:
        for recipe in options.recipes:
            for way in WAYS:
                if (options.name, recipe, way, str(seed)) in done:
                    continue
                rows.append(row(way, recipe, seed, options))
                write(options.results, rows)
                print("  ".join(f"{k} {v}" for k, v in list(rows[-1].items())[:8]), flush=True)


if __name__ == "__main__":
    main()

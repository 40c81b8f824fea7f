"""Several starts on a small corpus: single runs, the one kept by held-out NLL, and all together.

    python experiments/small_corpus.py --train TREES --valid TREES --test TREES --out runs/small
        [--limit 5000] [--seeds 0 10 20] [--restarts 4 | --differ] [--max-updates 1000] [--pauses]
    python experiments/small_corpus.py --name NAME --test TREES --runs RUN RUN ...

The first form trains, for each seed, `gfnem train --restarts` on the words of the first trees, or
with `--differ` four runs that see words and count samples in different ways; what is there is not
trained again. The second form takes runs that there are. Trees are there to be compared with;
nothing is trained on them. Rows are appended to `experiments/results/small_corpus.csv`.
"""

from __future__ import annotations

import argparse
import csv
import statistics
import sys
from datetime import date
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "benchmarks"))
from record import commit, machine
from trained_runs import trained

from gfnem.parsing import Ensemble

TABLE = Path(__file__).parent / "results" / "small_corpus.csv"
COLUMNS = (
    *("row", "runs", "sentences", "single runs", "best single run", "kept by NLL", "together"),
    *("agreement", "last NLL over best", "command", "commit", "date", "machine"),
)
#: with --differ: settings of all runs, and of each
CLASSES = "--dataset.unknown_classes true"
KINDS = (
    "--reward.right 0",
    "--dataset.min_count 15 --recipe.m_step importance",
    "--dataset.min_count 40",
    "--dataset.min_count 15 --reward.right 0",
)


def train(options: argparse.Namespace, seed: int) -> list[Path]:
    """The runs of one seed, trained where they are not there."""
    words = ["--data", options.train, "--valid", options.valid]
    words += ["--dataset.limit", str(options.limit), "--max-updates", str(options.max_updates)]
    if options.differ:
        runs = [Path(options.out) / f"{seed}-{number + 1}" for number in range(len(KINDS))]
        for number, (run, kind) in enumerate(zip(runs, KINDS, strict=True)):
            trained(run, *words, "--seed", str(seed + number), *f"{CLASSES} {kind}".split())
        return runs
    folder = Path(options.out) / str(seed)
    trained(folder, *words, "--seed", str(seed), "--restarts", str(options.restarts))
    return [folder / f"restart-{number + 1}" for number in range(options.restarts)]


def held_out(run: Path) -> tuple[float, float]:
    """Lowest and last held-out NLL of a run, in nats."""
    path = run if run.is_dir() else run.parent
    with open(path / "metrics.csv", newline="", encoding="utf-8") as stream:
        values = [float(row["val_nll"]) for row in csv.DictReader(stream) if row.get("val_nll")]
    return min(values), values[-1]


def measured(runs: list[Path], options: argparse.Namespace) -> dict[str, object]:
    """The figures of some runs alone and together."""
    ensemble = Ensemble(runs, options.pauses)
    figures = ensemble.evaluate(options.test, max_length=options.max_length)
    single, nll = figures["single"], [held_out(run) for run in runs]
    kept = min(range(len(runs)), key=lambda number: nll[number][0])
    spread = f" ± {statistics.stdev(single):.1f}" if len(single) > 1 else ""
    return {
        "runs": len(runs),
        "sentences": figures["sentences"],
        "single runs": f"{statistics.mean(single):.1f}{spread}",
        "best single run": f"{max(single):.1f}",
        "kept by NLL": f"{single[kept]:.1f}",
        "together": f"{figures['sentence_f1']:.1f}",
        "agreement": f"{figures['agreement']:.1f}",
        "last NLL over best": f"{max(last / best for best, last in nll):.4f}",
    }


def record(row: dict[str, object], command: str, options: argparse.Namespace) -> None:
    """Appends a row, and prints it."""
    new = not TABLE.exists()
    made = {"command": command, "commit": commit(), "date": date.today().isoformat()}
    if options.pauses:
        row = {**row, "row": f"{row['row']}, pauses heeded"}
    with open(TABLE, "a", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, COLUMNS, lineterminator="\n")
        if new:
            writer.writeheader()
        writer.writerow({**row, **made, "machine": machine()})
    print(", ".join(f"{name} {value}" for name, value in row.items()), flush=True)


def main() -> None:
    """Trains what is to be trained, and measures it."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--train")
    parser.add_argument("--valid")
    parser.add_argument("--test", required=True)
    parser.add_argument("--out", default="runs/small")
    parser.add_argument("--limit", type=int, default=5000, help="trees read, of all lengths")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 10, 20])
    parser.add_argument("--restarts", type=int, default=4)
    parser.add_argument("--differ", action="store_true", help="four runs of different settings")
    parser.add_argument("--max-updates", type=int, default=1000)
    parser.add_argument("--max-length", type=int, default=20, help="of sentences of --test")
    parser.add_argument("--pauses", action="store_true", help="heed the text's punctuation")
    parser.add_argument("--name", help="of the row")
    parser.add_argument("--command", help="how --runs were trained")
    parser.add_argument("--runs", type=Path, nargs="+", help="runs that there are")
    options = parser.parse_args()
    if options.runs:
        row = {"row": options.name or "runs", **measured(options.runs, options)}
        record(row, options.command or "", options)
        return
    command = f"gfnem train --data TRAIN --valid DEV --dataset.limit {options.limit}"
    for seed in options.seeds:
        row = {"row": f"{options.name or 'restarts'}, seed {seed}"}
        row |= measured(train(options, seed), options)
        own = f"{seed} --restarts {options.restarts}"
        if options.differ:
            own = f"{seed} and on {CLASSES} ({'|'.join(KINDS)})"
        record(row, f"{command} --seed {own} --max-updates {options.max_updates}", options)


if __name__ == "__main__":
    main()

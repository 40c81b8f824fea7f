"""Takes a reward from raw text apart: which part of it makes which trees.

    python experiments/rewards_table.py --train TREES --valid TREES --test TREES --name craft
        --out runs/rewards [--text TEXT] [--rows ROW ...] [--seeds 0 1 2] [--jobs 6]

Trees are there to be compared with; nothing is trained on them. Every run is a `gfnem train` and a
`gfnem evaluate` of its own in a folder under `--out`; a run that is there is not made again, so the
command can be stopped and given anew, also on another machine that has the folder. The rows go to
`experiments/results/rewards_NAME.csv`.
"""

from __future__ import annotations

import argparse
import csv
import io
import json
import os
import platform
import shlex
import statistics
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from datetime import date
from pathlib import Path

import torch

sys.path.append(str(Path(__file__).parent / "benchmarks"))
from record import commit

from gfnem.files import write_atomically
from gfnem.parsing import Sentences, Substrings, TextData
from gfnem.parsing.inference.decoding import max_span_tree
from gfnem.parsing.text.corpus import read_corpus
from gfnem.parsing.trees.scores import SpanF1, right_branching

ROOT = Path(__file__).parents[1]
EXACT, EQUAL = ("--recipe", "exact"), ("--recipe.m_step", "equal")
BARE = ("--reward", "none")
SHIFT_REDUCE = (
    *("--model", "RNNG", "--space", "ShiftReduceSpace", "--policy", "ShiftReducePolicy"),
    *("--recipe.samples", "4", "--max-updates", "1000"),  # an update is several times as dear
)
CLASSES = (
    *("--model.nonterminals", "10", "--model.preterminals", "20", "--model.parent_classes", "5"),
    *("--max-updates", "1000"),
)
MANY = ("--model", "SimplePCFG", "--model.nonterminals", "128", "--model.preterminals", "256")
RECURSION = ("--policy", "RecursionPolicy")
#: what is trained, by the name of its row
RUNS: dict[str, tuple[str, ...]] = {
    "grammar alone, exact EM": (*EXACT, *BARE),
    "grammar alone, GFlowNet-EM": (*EQUAL, *BARE),
    "grammar and reward, exact EM": EXACT,
    "grammar and reward, GFlowNet-EM": EQUAL,
    "grammar and reward, GFlowNet-EM by recursion": (*EQUAL, *RECURSION),
    "grammar and reward, GFlowNet-EM at temperature 1": (*EQUAL, "--recipe.temperature", "1.0"),
    "grammar and reward, GFlowNet-EM, unknown words in classes": (
        *EQUAL,
        *("--dataset.unknown_classes", "true"),
    ),
    "Coverage, GFlowNet-EM": (*EQUAL, "--reward", "Coverage"),
    "Agreement, GFlowNet-EM": (*EQUAL, "--reward", "Agreement"),
    "5 parent classes and reward, GFlowNet-EM": (*EQUAL, *CLASSES),
    "128+256 symbols and reward, exact EM": (*EXACT, *MANY),
    "128+256 symbols and reward, GFlowNet-EM": (*EQUAL, *MANY),
    "128+256 symbols and reward, GFlowNet-EM by recursion": (*EQUAL, *MANY, *RECURSION),
    "RNNG alone, GFlowNet-EM": (*EQUAL, *BARE, *SHIFT_REDUCE),
    "RNNG and reward, GFlowNet-EM": (*EQUAL, *SHIFT_REDUCE),
    "RNNG that sees 2 items of its stack, and reward, GFlowNet-EM": (
        *EQUAL,
        *SHIFT_REDUCE,
        "--model.memory",
        "2",
    ),
}
#: rows without learning: the tree with the greatest sum of scores, and the weights of its parts
NOTHING = dict.fromkeys(("information", "terms", "cohesion", "pauses"), 0.0)
UNLEARNED = {
    "preference for the right alone, by CKY": NOTHING,
    "substrings and pauses alone, by CKY": {"right": 0.0},
    "reward alone, by CKY": {},
}
COLUMNS = ("row", "seeds", "NLL per token", "ELBO gap per sentence", "sentence F1", "above right "
           "branching", "command", "commit", "date", "machine")  # fmt: skip


def unlearned(args: argparse.Namespace) -> dict[str, float]:
    """Sentence F1 of right branching, and of the reward alone, by the names of their rows.

    The reward's statistics are those of the training text.
    """
    corpus = read_corpus(args.test, min_length=2, max_length=20)
    spans = {"right branching": [right_branching(len(tokens)) for tokens in corpus.tokens]}
    data = TextData(args.train, min_length=3)
    reward = Substrings(1.0, text=args.text)
    reward.prepare(data)
    x, shipped = Sentences.from_words(corpus.tokens, data.vocabulary), reward.weights
    for row, weights in UNLEARNED.items():
        reward.weights = {**shipped, **weights}
        trees = max_span_tree(reward.spans(x), x.lengths)
        spans[row] = [{span[:2] for span in trees.spans(at)} for at in range(len(corpus))]
    found = {}
    for row, predicted in spans.items():
        score = SpanF1()
        for each, gold, tokens in zip(predicted, corpus.spans, corpus.tokens, strict=True):
            score.update(each, gold, len(tokens))
        found[row] = score.sentence_f1
    return found


def command(args: argparse.Namespace, row: str, seed: int | str) -> list[str]:
    """The `gfnem train` of a row."""
    flags = list(RUNS[row])
    if args.text and "none" not in flags:
        flags += ["--reward.text", args.text]
    if args.symbols and not {"RNNG", "--model.nonterminals"} & set(flags):
        names = ("--model.nonterminals", "--model.preterminals")
        flags += [word for pair in zip(names, args.symbols, strict=True) for word in pair]
    return [
        "train", "--config", "text", "--data", args.train, "--valid", args.valid,
        "--max-updates", str(args.updates), "--seed", str(seed), *flags,
    ]  # fmt: skip


def make(args: argparse.Namespace, row: str, seed: int) -> None:
    """Trains and evaluates one run, as far as that has not been done."""
    folder = args.out / f"{args.name}-{row.replace(' ', '_').replace(',', '')}-{seed}"
    found = folder / "figures.json"
    if found.exists():
        return
    run = folder / "run"
    folder.mkdir(parents=True, exist_ok=True)
    words = command(args, row, seed)
    started = (run / "config.yaml").exists()
    with (folder / "log.txt").open("a") as log:

        def gfnem(*words: str, out=log) -> None:
            path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
            where = {**os.environ, "PYTHONPATH": path}
            subprocess.run(
                [sys.executable, "-m", "gfnem", *words],
                stdout=out,
                stderr=log,
                env=where,
                check=True,
            )

        gfnem(*(["train", "--resume", str(run)] if started else [*words, "--out", str(run)]))
        with (folder / "figures.tmp").open("w") as out:
            gfnem("evaluate", str(run), "--data", args.test, "--max-length", "20", "--samples",
                  "16", "--format", "json", out=out)  # fmt: skip
    (folder / "figures.tmp").rename(found)
    print(f"{row}, seed {seed}: done", flush=True)


def collect(args: argparse.Namespace) -> list[dict[str, str]]:
    """The rows of the table, of what is there."""
    shown = argparse.Namespace(
        **{**vars(args), "train": "TRAIN", "valid": "DEV", "text": args.text and "TEXT"}
    )
    machine = f"{torch.get_num_threads()} threads, {platform.machine()}"
    if torch.cuda.is_available():
        machine = torch.cuda.get_device_name()
    common = {"commit": args.commit or commit(), "date": str(date.today()),
              "machine": args.machine or machine}  # fmt: skip
    plain = unlearned(args)
    right = plain["right branching"]
    script = f"python experiments/rewards_table.py --name {args.name}"
    rows = [{"row": "right branching", "sentence F1": f"{right:.1f}", "command": script}]
    for row in UNLEARNED:
        above = f"{plain[row] - right:+.1f}"
        figures = {"sentence F1": f"{plain[row]:.1f}", "above right branching": above}
        rows.append({"row": row, **figures, "command": script})
    for row in RUNS:
        name = f"{args.name}-{row.replace(' ', '_').replace(',', '')}"
        files = sorted(args.out.glob(f"{name}-[0-9]*/figures.json"))
        if not files:
            continue
        found = [json.loads(file.read_text()) for file in files]
        f1 = [figures["sentence_f1"] for figures in found]
        rows.append(
            {
                "row": row,
                "seeds": str(len(found)),
                "NLL per token": _spread([figures["nll"] for figures in found], 3),
                "ELBO gap per sentence": _spread(
                    [figures["elbo_gap"] for figures in found if "elbo_gap" in figures], 2
                ) + ("" if found[0].get("elbo_gap_is", "exact") == "exact" else " (own samples)"),
                "sentence F1": _spread(f1, 1),
                "above right branching": f"{statistics.mean(f1) - right:+.1f}",
                "command": shlex.join(["gfnem", *command(shown, row, "SEED")]),
            }
        )  # fmt: skip
    return [{**row, **common} for row in rows]


def _spread(values: list[float], digits: int) -> str:
    if not values:
        return ""
    spread = f" ± {statistics.stdev(values):.{digits}f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.{digits}f}{spread}"


def main() -> None:
    """Makes the runs that are missing and writes the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    for name in ("train", "valid", "test"):
        parser.add_argument(f"--{name}", required=True, help="a file or folder of trees")
    parser.add_argument("--name", required=True, help="of the corpus")
    parser.add_argument("--text", help="more text for the statistics")
    parser.add_argument("--out", type=Path, default=Path("runs/rewards"))
    parser.add_argument("--rows", nargs="*", choices=list(RUNS), default=list(RUNS))
    parser.add_argument("--seeds", nargs="*", type=int, default=[0, 1, 2])
    parser.add_argument("--symbols", nargs=2, help="nonterminals and preterminals")
    parser.add_argument("--updates", type=int, default=2000)
    parser.add_argument("--jobs", type=int, default=1, help="runs beside each other")
    parser.add_argument("--no-table", action="store_true", help="only make the runs")
    parser.add_argument("--commit", help="that the runs were made with, if not this one")
    parser.add_argument("--machine", help="that they were made on, if not this one")
    args = parser.parse_args()
    args.out = args.out.resolve()
    with ThreadPoolExecutor(args.jobs) as pool:
        jobs = [pool.submit(make, args, row, seed) for seed in args.seeds for row in args.rows]
        for job in jobs:
            job.result()
    if args.no_table:
        return
    stream = io.StringIO()
    writer = csv.DictWriter(stream, COLUMNS, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(collect(args))
    write_atomically(ROOT / "experiments/results" / f"rewards_{args.name}.csv", stream.getvalue())
    print(stream.getvalue())


if __name__ == "__main__":
    main()

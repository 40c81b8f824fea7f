"""Every grammar that has exact inference, by exact EM and by GFlowNet-EM.

    python experiments/every_grammar.py --train TEXT --valid TEXT --test TEXT [--out runs/grammars]
        [--grammars GRAMMAR ...] [--seeds 0 1 2] [--updates 1000]

No rewards. Each run is a `gfnem train` and a `gfnem evaluate` in a folder of its own under `--out`,
and a row of `experiments/results/every_grammar.csv`. What has a row is not run again, and a run
that was interrupted goes on: the command can be stopped and given anew.
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

from gfnem.files import write_atomically  # noqa: E402
from gfnem.parsing.text.corpus import read_corpus  # noqa: E402

RESULTS = HERE / "results" / "every_grammar.csv"
TEXT = ("--config", "text", "--reward", "none")
MANY = ("--model", "SimplePCFG", "--model.nonterminals", "128", "--model.preterminals", "256")
COMPOUND = ("--model", "CompoundPCFG", "--model.nonterminals", "10", "--model.preterminals", "20")
#: how each is trained, and by which sampler where that is not the one of the world
GRAMMARS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "128+256 symbols, rules of rank 64": (
        (*TEXT, *MANY, "--model.rank", "64"),
        ("--policy", "RecursionPolicy"),
    ),
    "30+60 symbols, words by their forms": ((*TEXT, "--model.forms", "true"), ()),
    "10+20 symbols, compound": ((*TEXT, *COMPOUND), ()),
    "dependencies with valence": (("--world", "dependencies"), ()),
}
#: figures of a row, and what `gfnem evaluate` calls them
FIGURES = {"NLL per token": "nll", "ELBO gap per sentence": "elbo_gap", "NLL is": "nll_is"}


def test_sentences(options: argparse.Namespace) -> Path:
    """A file of the first sentences of the test data, for all worlds alike."""
    path = options.out / "test.txt"
    if not path.exists():
        corpus = read_corpus(options.test, min_length=3, max_length=20)
        lines = (" ".join(tokens) for tokens in corpus.tokens[: options.limit])
        write_atomically(path, "".join(f"{line}\n" for line in lines))
    return path


def row(grammar: str, recipe: str, seed: int, options: argparse.Namespace) -> dict[str, Any]:
    """Trains and evaluates one run, as far as that has not been done."""
    flags, sampler = GRAMMARS[grammar]
    flags += ("--recipe", "exact") if recipe == "exact EM" else sampler
    words = [*flags, "--max-updates", str(options.updates), "--seed", str(seed)]
    run = options.out / f"{list(GRAMMARS).index(grammar)}-{recipe.replace(' ', '-')}-{seed}"
    trained(run, *words, "--data", options.train, "--valid", options.valid)
    figures = evaluated(run, FIGURES, "--data", str(test_sentences(options)))
    command = shlex.join(["gfnem", "train", *words, "--data", "TRAIN", "--valid", "DEV"])
    return {"grammar": grammar, "E-step": recipe, "seed": seed, **figures, **provenance(command)}


def main() -> None:
    """Makes the rows that are missing."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    for name in ("train", "valid", "test"):
        parser.add_argument(f"--{name}", required=True, help="a file or folder of text or trees")
    parser.add_argument("--out", type=Path, default=Path("runs/grammars"))
    parser.add_argument("--grammars", nargs="+", choices=GRAMMARS, default=list(GRAMMARS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--updates", type=int, default=1000)
    parser.add_argument("--limit", type=int, default=1000, help="sentences of --test")
    parser.add_argument("--results", type=Path, default=RESULTS)
    options = parser.parse_args()
    rows: list[dict[str, Any]] = list(read(options.results))
    done = {(row["grammar"], row["E-step"], row["seed"]) for row in rows}
    for seed in options.seeds:
        for grammar in options.grammars:
            for recipe in ("exact EM", "GFlowNet-EM"):
                if (grammar, recipe, str(seed)) in done:
                    continue
                rows.append(row(grammar, recipe, seed, options))
                write(options.results, rows)
                print("  ".join(f"{k} {v}" for k, v in list(rows[-1].items())[:6]), flush=True)


if __name__ == "__main__":
    main()

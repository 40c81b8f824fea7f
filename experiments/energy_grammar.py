"""A grammar times an energy of whole sentences, beside the grammar alone, at equal updates.

    python experiments/energy_grammar.py --train FOLDER --valid FOLDER --test FOLDER --updates 400

All runs have the same grammar, rates and updates, and no reward; the grammar alone is trained by
its sampler and by exact EM. Each is a row of `experiments/results/energy_grammar.csv`, with its
command, commit, date and machine; a second call does what the table still lacks. `seconds` is CPU
time.
"""

from __future__ import annotations

import argparse
import shlex
import sys
import time
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE / "benchmarks")]

from energies import provenance, read, write  # noqa: E402

import gfnem  # noqa: E402

METHODS = ("alone", "alone, exact EM", "times energy")
FIGURES = ("nll", "nll_error", "log_z", "log_z_error", "elbo_gap", "ess", "sentence_f1")


def settings(method: str, options: argparse.Namespace) -> dict[str, Any]:
    """Those of a run."""
    symbols, words = options.symbols
    grammar = {"nonterminals": symbols, "preterminals": words, "dim": 128}
    model = {"class_path": "gfnem.parsing.NeuralPCFG", "init_args": grammar}
    recipe: dict[str, Any] = {"samples": options.samples, "m_step": "importance"}
    if method == "times energy":
        energy = {"grammar": model, "dim": options.dim, "bound": options.bound}
        model = {"class_path": "gfnem.parsing.EnergyGrammar", "init_args": energy}
        chains = {"samples": options.chains}
        recipe["negative"] = {"class_path": "gfnem.parsing.SentenceChains", "init_args": chains}
    recipe = {"class_path": "gfnem.recipes.gflownet", "init_args": recipe}
    if method == "alone, exact EM":
        recipe = {"class_path": "gfnem.recipes.exact"}
    falls = {"class_path": "gfnem.schedules.Anneal"}
    end = {"end": 5e-4, "updates": options.updates}
    return {
        "model": model,
        "policy": {"dim": 64},
        "recipe": recipe,
        "rates": {
            "policy": {**falls, "init_args": {"start": 3e-3, **end}},
            "model": {**falls, "init_args": {"start": 4e-3, **end}},
        },
        "reward": "none",
        "dataset": {
            "path": options.train, "valid": options.valid, "valid_sentences": 100,
            "interval": max(options.updates // 2, 1), "min_length": 3,
            "max_length": options.max_length,
        },
    }  # fmt: skip


def main() -> None:
    """Makes the rows that are missing."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    for name in ("train", "valid", "test"):
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--methods", nargs="+", default=METHODS)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--updates", type=int, default=400)
    parser.add_argument("--symbols", nargs=2, type=int, default=[10, 20])
    parser.add_argument("--samples", type=int, default=4, help="trees for each sentence")
    parser.add_argument("--chains", type=int, default=256)
    parser.add_argument("--dim", type=int, default=32, help="of the energy")
    parser.add_argument("--bound", type=float, default=3.0, help="of the energy, in nats")
    parser.add_argument("--max-length", type=int, default=20, help="tokens of a sentence")
    parser.add_argument("--limit", type=int, default=500, help="sentences to test on")
    parser.add_argument("--runs", type=Path, default=Path("runs/energy_grammar"))
    parser.add_argument("--out", type=Path, default=HERE / "results" / "energy_grammar.csv")
    options = parser.parse_args()
    rows: list[dict[str, Any]] = list(read(options.out))
    done = {(row["grammar"], row["seed"], row["updates"]) for row in rows}
    command = shlex.join(["python", "experiments/energy_grammar.py", *sys.argv[1:]])
    facts = provenance(command)
    for seed in options.seeds:
        for method in options.methods:
            if (method, str(seed), str(options.updates)) in done:
                continue
            folder = options.runs / f"{METHODS.index(method)}-{seed}-{options.updates}"
            start = time.process_time()
            run = gfnem.train(
                out=folder, seed=seed, max_updates=options.updates, accelerator="cpu",
                **settings(method, options),
            )  # fmt: skip
            took = time.process_time() - start
            found = run.evaluate(options.test, max_length=options.max_length, limit=options.limit)
            row = {"grammar": method, "seed": seed, "updates": options.updates, "seconds": took}
            row |= {name: found[name] for name in FIGURES if name in found}
            row = {k: f"{v:.5g}" if isinstance(v, float) else v for k, v in row.items()}
            print(row, flush=True)
            rows.append({**row, **facts})
            write(options.out, rows)


if __name__ == "__main__":
    main()

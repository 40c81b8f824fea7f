"""A table of every model under every recipe that it can be trained by, at equal training time.

    python experiments/results_table.py --train FOLDER --valid FOLDER --test FOLDER --out runs/table
    python experiments/results_table.py --grammar english_context --out runs/table_context

A cell is one model, one recipe and one seed. Its updates are counted out beforehand, from the time
that a few of them take, so that each cell trains for about `--seconds`. Learning rates are annealed
over these updates, and training samples of `gflownet` stray from the sampler in their first half.
A finished cell is not run again, an interrupted one goes on where it stopped: call it again until
it is done, with other `--models`, `--recipes` or `--seeds` to add to it. Then `table.md` and
`table.csv` are made from all the cells in the folder.
"""

from __future__ import annotations

import argparse
import csv
import io
import json
import math
import os
import shutil
import statistics
import subprocess
import sys
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from gfnem.files import write_atomically
from gfnem.parsing.text.data import TextData
from gfnem.parsing.text.language_models import NGramModel
from gfnem.phases import M_STEPS, POLICY
from gfnem.recipes import RECIPES

#: the class of each model
MODELS = {
    "PCFG": "NeuralPCFG",
    "parent": "NeuralParentPCFG",
    "shaped": "NeuralPCFG",
    "PCFG-brackets": "NeuralPCFG",
    "parent-brackets": "NeuralParentPCFG",
    "RNNG": "RNNG",
}
#: learn from the brackets of a treebank as well (`gfnem train --brackets`)
TAUGHT = ("PCFG-brackets", "parent-brackets")
#: no exact inference: after training without a sampler one is trained, to score and parse with
SAMPLED = ("RNNG", "shaped")
SAMPLES = {"RNNG": 4}  # in training; the others: the recipe's default
#: settings of recipes, where they are not the defaults
SETTINGS: dict[str, dict[str, Any]] = {"mcmc": {"steps": 100}}
DATA: dict[str, Any] = {"min_length": 3, "valid_sentences": 200, "interval": 10**6}
#: learning rates that are annealed over a cell's updates: first and last value
RATES = {"policy": (3e-3, 3e-4), "model": (4e-3, 4e-4)}
#: temperature of training samples at first; it falls to 1 in the first half of a cell's updates
EXPLORATION = {"parent": 1.5, "parent-brackets": 1.5}  # the others: 2
CALIBRATION = 40  # updates that are timed to find how many fit; the first ones are slow


@dataclass(frozen=True)
class Cell:
    """One run of the table."""

    model: str
    recipe: str
    seed: int

    @property
    def name(self) -> str:
        """Its folder's name."""
        return f"{self.model}-{self.recipe}-{self.seed}".replace(" ", "_")


class Table:
    """A folder of cells, and what they are trained and tested on."""

    def __init__(self, args: argparse.Namespace):
        self.args, self.out = args, Path(args.out)
        self.environment = {**os.environ, "OMP_NUM_THREADS": str(args.threads)}

    def cells(self) -> list[Cell]:
        """Those asked for, seed by seed, so that the table fills evenly."""
        args = self.args
        return [Cell(m, r, s) for s in args.seeds for m in args.models for r in args.recipes]

    def run(self, cell: Cell) -> None:
        """Trains and tests a cell, as far as that is not done yet."""
        folder = self.out / cell.name
        result, run = folder / "figures.json", folder / "run"
        if result.exists():
            return
        folder.mkdir(parents=True, exist_ok=True)
        try:
            updates = self._updates(cell, folder)
            if (run / "config.yaml").exists():
                self._gfnem("train", "--resume", run, log=folder / "train.log")
            else:
                config = self._config(cell, folder / "settings.yaml", updates)
                self._gfnem("train", "--config", config, "--out", run, log=folder / "train.log")
            phases = RECIPES[cell.recipe]().phases()
            if cell.model in SAMPLED and not any(phase.trains == POLICY for phase in phases):
                flags = ["--recipe", "gflownet", "--rates.model", 0, "--max-updates", 2 * updates]
                self._gfnem("train", "--resume", run, *flags, log=folder / "sampler.log")
            seconds = float(_last_row(run / "metrics.csv")["seconds"])
            figures = {**asdict(cell), "updates": updates, "seconds": seconds, "valid": {}}
            for part in ("valid", "test"):
                data = getattr(self.args, part)
                if data is None and part == "valid":
                    continue
                where = ["--data", data, "--max-length", "20"] if data else []
                words = ["evaluate", run, *where, "--format", "json"]
                limit = ["--limit", str(self.args.limit)] if self.args.limit else []
                samples = ["--samples", str(self.args.samples)]
                out = self._gfnem(*words, *limit, *samples, log=folder / f"{part}.log")
                found = json.loads(out.splitlines()[-1])
                figures[part] = {**found, "samples": self.args.samples}
        except subprocess.CalledProcessError as error:
            why = (error.stderr or "").strip().splitlines()
            print(f"{cell.name}: {why[-1] if why else error}", file=sys.stderr, flush=True)
            if error.returncode == 2:  # this model cannot be trained by this recipe
                write_atomically(result, json.dumps({"refused": why[-1] if why else "?"}))
            return
        write_atomically(result, json.dumps(figures))
        nll = figures["test"].get("nll")
        print(f"{cell.name}: {updates} updates, test NLL {nll}", flush=True)

    def _updates(self, cell: Cell, folder: Path) -> int:
        """How many updates fit the time, from the first seed's timing."""
        if self.args.updates:
            return self.args.updates
        notes = self.out / f"{cell.model}-{cell.recipe}.updates".replace(" ", "_")
        if not notes.exists():
            trial = folder / "trial"
            shutil.rmtree(trial, ignore_errors=True)
            settings = self._config(cell, folder / "trial.yaml", CALIBRATION)
            flags = ["--dataset.valid_sentences", "1"]
            self._gfnem(
                "train", "--config", settings, "--out", trial, *flags, log=folder / "trial.log"
            )
            seconds = float(_last_row(trial / "metrics.csv")["seconds"])
            shutil.rmtree(trial)
            fit = max(1, round(self.args.seconds * CALIBRATION / seconds))
            write_atomically(notes, f"{fit}\n")
        return int(notes.read_text())

    def _config(self, cell: Cell, path: Path, updates: int) -> Path:
        """Writes the settings file of a cell."""
        args = self.args
        size = dict(zip(("nonterminals", "preterminals"), args.symbols, strict=True))
        init = {} if cell.model == "RNNG" else size
        reward = None  # a text's own is another table's matter
        if cell.model == "shaped":
            temperature = anneal(*args.prior_temperature, updates, shape="exponential")
            reward = part("BracketPrior", prior=args.prior, temperature=temperature)
        recipe = dict(SETTINGS.get(cell.recipe, {}))
        if cell.model in SAMPLES and cell.recipe != "exact":
            recipe["samples"] = SAMPLES[cell.model]
        if cell.recipe == "gflownet":
            first = EXPLORATION.get(cell.model, 2.0)
            recipe["m_step"] = args.m_step
            recipe["temperature"] = anneal(first, 1.0, max(1, updates // 2))
        sampled = {} if args.train else {"grammar": args.grammar}
        settings = {
            "dataset": part("TextData", **DATA, **sampled),
            "model": part(MODELS[cell.model], **init),
            "recipe": part(cell.recipe, **recipe),
            "reward": reward,
            "schedule": part("EveryUpdate", e_every=args.e_every),
            "rates": {name: anneal(*ends, updates) for name, ends in RATES.items()},
            "max_updates": updates,
            "seed": cell.seed,
        }
        if args.train:
            settings |= {"data": args.train, "valid": args.valid}
        if cell.model in TAUGHT:
            settings["brackets"] = args.brackets or args.train
        write_atomically(path, yaml.safe_dump(settings, sort_keys=False))
        return path

    def _gfnem(self, *words: Any, log: Path) -> str:
        """Runs a command of gfnem; what it printed also goes to a file."""
        command = [sys.executable, "-m", "gfnem", *map(str, words)]
        done = subprocess.run(command, capture_output=True, text=True, env=self.environment)
        write_atomically(log, done.stdout + done.stderr)
        done.check_returncode()
        return done.stdout

    def report(self) -> str:
        """Writes `table.csv` and `table.md` of all finished cells; returns the latter."""
        groups: dict[tuple[str, str], list[dict[str, Any]]] = defaultdict(list)
        for path in sorted(self.out.glob("*/figures.json")):
            figures = json.loads(path.read_text())
            if "refused" not in figures:
                groups[figures["model"], figures["recipe"]].append(figures)
        rows = [_row(*key, runs) for key, runs in sorted(groups.items(), key=_in_order)]
        text = io.StringIO()
        writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        write_atomically(self.out / "table.csv", text.getvalue())
        lines = [COLUMNS, ["---"] * len(COLUMNS), *([row[c] for c in COLUMNS] for row in rows)]
        page = "".join(f"| {' | '.join(map(str, line))} |\n" for line in lines)
        if groups:
            page += "\n" + self._baselines(next(iter(groups.values()))[0]["test"])
        write_atomically(self.out / "table.md", page)
        return page

    def _baselines(self, test: dict[str, float]) -> str:
        """Branching baselines, and word-level models on the same tokens, in a sentence each."""
        lines = [
            f"{name} branching: sentence F1 {test[f'{name}_sentence_f1']:.1f}, corpus F1 "
            f"{test[f'{name}_corpus_f1']:.1f}"
            for name in ("left", "right", "random")
            if f"{name}_sentence_f1" in test
        ]
        if "true_nll" in test:
            lines.append(
                f"true grammar: exact NLL {test['true_nll']:.3f} nats per token, sentence F1 "
                f"{test['true_sentence_f1']:.1f}"
            )
        for order, name in ((1, "unigram"), (3, "trigram")):
            lines.append(f"word {name}s: NLL {self._ngrams(order):.3f} nats per token")
        return "".join(f"- {line}\n" for line in lines)

    def _ngrams(self, order: int) -> float:
        """Test NLL per token of an n-gram model, with the vocabulary of the cells."""
        known, train, test = self._corpora
        return NGramModel(train, known, order).nll(test)

    @cached_property
    def _corpora(self) -> tuple[list[str], list[list[str]], list[list[str]]]:
        """The vocabulary, and the training and test tokens with unknown words replaced."""
        if self.args.train:
            data = TextData(self.args.train, self.args.valid, **DATA)
            test = data.read(self.args.test)
        else:
            data = TextData(grammar=self.args.grammar, **DATA)
            test = data.sampled(500, 2)
        known = data.vocabulary.to_list()

        def seen(corpus: list[list[str]]) -> list[list[str]]:
            return [[known[i] for i in data.vocabulary.encode(tokens)] for tokens in corpus]

        return known, seen(data.train.tokens), seen(test.tokens[: self.args.limit])


def part(name: str, **arguments: Any) -> dict[str, Any]:
    """A component as a settings file has it."""
    return {"class_path": name, "init_args": arguments}


def anneal(start: float, end: float, updates: int, **more: str) -> dict[str, Any]:
    """An `Anneal` as a settings file has it."""
    return part("Anneal", start=start, end=end, updates=updates, **more)


COLUMNS = [
    "model",
    "recipe",
    "seeds",
    "NLL/token",
    "perplexity",
    "sentence F1",
    "dev sentence F1",
    "corpus F1",
    "ELBO gap",
    "ESS %",
    "s/update",
    "M-updates",
    "minutes",
]


def _in_order(group: tuple[tuple[str, str], Any]) -> tuple[int, int]:
    (model, recipe), _ = group
    return list(MODELS).index(model), list(RECIPES).index(recipe)


def _row(model: str, recipe: str, runs: list[dict[str, Any]]) -> dict[str, str]:
    """A line of the table: means over seeds, and the spread where there are several."""

    def over(part: str, name: str, digits: int, scale: float = 1.0) -> str:
        values = [scale * run[part][name] for run in runs if name in run[part]]
        if not values:
            return "–"
        spread = f" ± {statistics.stdev(values):.{digits}f}" if len(values) > 1 else ""
        return f"{statistics.mean(values):.{digits}f}{spread}"

    test = runs[0]["test"]
    bound = "" if test["exact"] else f" (bound, {test['samples']} samples)"
    nll = statistics.mean(run["test"]["nll"] for run in runs)
    seconds = statistics.mean(run["seconds"] for run in runs)
    updates = statistics.mean(run["updates"] for run in runs)
    return {
        "model": model,
        "recipe": recipe,
        "seeds": str(len(runs)),
        "NLL/token": over("test", "nll", 3) + bound,
        "perplexity": f"{math.exp(nll):.0f}",
        "sentence F1": over("test", "sentence_f1", 1),
        "dev sentence F1": over("valid", "sentence_f1", 1),
        "corpus F1": over("test", "corpus_f1", 1),
        "ELBO gap": over("test", "elbo_gap", 2),
        "ESS %": over("test", "ess", 0, 100),
        "s/update": f"{seconds / updates:.3f}",
        "M-updates": f"{updates:.0f}",
        "minutes": f"{seconds / 60:.1f}",
    }


def _last_row(path: Path) -> dict[str, str]:
    with open(path, newline="") as stream:
        return list(csv.DictReader(stream))[-1]


def main() -> None:
    """Runs what is missing, then writes the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--train", help="a treebank (as `gfnem train --data`); else --grammar")
    parser.add_argument("--valid", help="likewise; F1 on it is what choices are made by")
    parser.add_argument("--test", help="likewise")
    parser.add_argument("--grammar", default="english", help="embedded grammar to sample from")
    parser.add_argument("--prior", help="of the model `shaped`: what `gfnem train-prior` wrote")
    parser.add_argument(
        "--brackets",
        help="of the models `PCFG-brackets` and `parent-brackets`: a treebank (default: --train's)",
    )
    parser.add_argument(
        "--prior-temperature",
        nargs=2,
        type=float,
        default=[1.0, 1000.0],
        metavar=("FIRST", "LAST"),
        help="the prior's T, annealed exponentially over a cell's updates",
    )
    parser.add_argument(
        "--symbols",
        nargs=2,
        type=int,
        default=[30, 60],
        metavar=("N", "T"),
        help="nonterminals and preterminals of the grammars",
    )
    parser.add_argument("--out", required=True, help="the table's folder")
    parser.add_argument("--models", nargs="+", default=list(MODELS), choices=MODELS)
    usual = [name for name in RECIPES if name != "eb_gfn"]  # it is for energies
    parser.add_argument("--recipes", nargs="+", default=usual, choices=usual)
    parser.add_argument("--m-step", default="importance", choices=M_STEPS, help="of gflownet")
    parser.add_argument(
        "--e-every",
        type=int,
        default=1,
        metavar="N",
        help="train samplers, where there are any, only in each N-th update",
    )
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--seconds", type=float, default=240, help="training time of a cell")
    parser.add_argument("--updates", type=int, help="of a cell, instead of --seconds")
    parser.add_argument("--samples", type=int, default=64, help="importance samples a sentence")
    parser.add_argument("--limit", type=int, help="test on the first so many sentences")
    parser.add_argument("--jobs", type=int, default=1, help="cells at a time")
    parser.add_argument("--threads", type=int, default=1, help="of each")
    args = parser.parse_args()
    if args.train and not args.test:
        parser.error("--train needs --test")
    if "shaped" in args.models and not args.prior:
        parser.error("the model `shaped` needs --prior (see `gfnem train-prior --help`)")
    if set(TAUGHT) & set(args.models) and not (args.brackets or args.train):
        parser.error("the models with brackets need --brackets or --train")
    table = Table(args)
    with ThreadPoolExecutor(args.jobs) as pool:
        list(pool.map(table.run, table.cells()))
    print(table.report())


if __name__ == "__main__":
    main()

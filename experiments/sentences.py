"""The table of samplers of sentences: by a tree, with a learned or an exact parser, and without.

    python experiments/sentences.py
    python experiments/sentences.py --tasks english --seconds 900

Each cell is a row of `experiments/results/sentences.csv`, with its command, commit, date and
machine; a second call does what the table still lacks. `--minutes` starts no cell after so long.
In the small worlds, two to five of three or four words, all sentences are listed. Half of what a
sampler is trained on are sentences of others: of a text of 2,000 that follow the reward. In the
large world, sentences of the embedded grammar, these are the demo's 10,000 training sentences; a
sampler's grammar is first fitted to them by exact EM, the best of several. Seconds are of CPU time.
"""

from __future__ import annotations

import argparse
import shlex
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import torch

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE / "benchmarks")]

from energies import provenance, read, write  # noqa: E402

from gfnem.em import EM  # noqa: E402
from gfnem.parsing.commands import by_length  # noqa: E402
from gfnem.parsing.generation import (  # noqa: E402
    Copied,
    Counted,
    GrammarSampler,
    GrammarTarget,
    LeftToRight,
    NGram,
    SentenceData,
    SentenceSpace,
    sentence_sampler,
)
from gfnem.parsing.generation.figures import figures, likelihood, parser_f1  # noqa: E402
from gfnem.parsing.generation.run import as_parser  # noqa: E402
from gfnem.parsing.generation.strings import all_sentences  # noqa: E402
from gfnem.parsing.grammars.splitting import split_symbols  # noqa: E402
from gfnem.rates import Descent, Rates  # noqa: E402
from gfnem.recipes import exact  # noqa: E402
from gfnem.running.trained import Trained  # noqa: E402
from gfnem.schedules import Anneal  # noqa: E402

RESULTS = HERE / "results" / "sentences.csv"
TINY = str(HERE / "tiny.pcfg")
#: by a tree, with sentences and trees balanced apart or at once; without a tree
SAMPLERS = APART, RECURSIVE, ONCE, FLAT = (
    "tree, two balances",
    "tree, two balances, recursion",
    "tree, one balance",
    "left to right",
)
#: rank of the recursion that the second one's parser looks ahead by
RANK = 16
#: words in the small worlds, the unknown one included
WORDS = {"grammar": 4, "bigrams": 4, "copy": 3, "counted": 3}
#: fewest and most words of a sentence there
LENGTHS = (2, 5)
#: weight of sentences of the text beside its own: in the small worlds, and in the large one. A
#: sampler that sees more of the text misses less, and writes more that the reward does not know
SHARES = 0.5, 0.05
#: sentences of the text in an update in the large world, beside 64 of its own
BESIDE = 16
#: fits of a grammar to the data alone in the large world: how many, their nonterminals and
#: preterminals, for how many seconds each, and the learning rate at the end. Those with the lowest
#: NLL of other sentences go on, and their symbols are split: what stands for two in a fit does so
#: in the sampler
FIT_RATE = 8e-3
FITS = (
    (6, 10, 30, 8, FIT_RATE),
    (3, 20, 40, 20, FIT_RATE),
    (2, 30, 60, 30, FIT_RATE),
    (1, 40, 80, 120, 4e-4),
)
#: nonterminals, preterminals, size of the grammar's network and of the parser's, spread
SMALL = (12, 12, 32, 128, 2.0)
SIZES = {
    "copy": (24, 12, 32, 128, 2.0),
    "english": (*FITS[-1][1:3], 128, 64, 1.0),
}
#: sentences of the text in the small worlds
TEXT = 2000
#: updates in the small worlds, and sentences of its own and of others in each
UPDATES, SAMPLES = 500, 128


class Cell:
    """A reward, a sampler, and sentences to train it on.

    Args:
        task: the reward.
        sampler: one of `SAMPLERS`.
        seed: of everything.
    """

    def __init__(self, task: str, sampler: str, seed: int):
        torch.manual_seed(seed)
        self.data: SentenceData | None = None
        if task == "english":
            self.data = SentenceData(batch_size=64, valid_sentences=500, seed=seed)
            told = self.data.facts()
            limits = (told["vocab_size"], told["shortest"], told["longest"])
            model: Any = GrammarTarget(None, told["vocabulary"], 0.01, limits[2], limits[1])
        else:
            limits = (WORDS[task], *LENGTHS)
            self.every = all_sentences(*limits)
            model = _small(task)
            drawn = torch.multinomial(model.log_reward(self.every).softmax(0), TEXT, True)
            self.every = self.every[drawn]
        vocab_size, shortest, longest = limits
        inner, leaves, dim, parser_dim, spread = SIZES.get(task, SMALL)
        torch.manual_seed(seed)
        rank = RANK if sampler == RECURSIVE else None

        def sampler_of(inner: int, leaves: int) -> GrammarSampler:
            sizes = (vocab_size, longest, shortest, inner, leaves, dim)
            return GrammarSampler(*sizes, "learned", parser_dim, spread, rank)

        self.sampler_of, policy = sampler_of, cast(Any, sampler_of(inner, leaves))
        if sampler == FLAT:
            policy = _as_large(policy, lambda dim: LeftToRight(vocab_size, longest, shortest, dim))
        self.run = Trained(model, SentenceSpace(vocab_size, longest, shortest), policy)
        self.task, self.apart = task, sampler in (APART, RECURSIVE)

    def batch(self, number: int) -> Any:
        """Sentences of one update."""
        if self.data is not None:
            return self.data.training_batch(number)
        return self.every[torch.randint(len(self.every), (SAMPLES,))]

    def train(self, updates: int, seconds: float | None) -> tuple[int, float]:
        """Updates, or as many as fit into so many seconds of CPU time; both are returned."""
        start, fitted = time.process_time(), 0
        if seconds is not None:
            if isinstance(self.run.policy, GrammarSampler):
                fitted = self._fit(0.4 * seconds)
            self._descend(4, True)  # the first ones are slower and would say too much
            begun = time.process_time()
            self._descend(16, True)
            each = (time.process_time() - begun) / 16
            updates = max(int((start + seconds - time.process_time()) / each), 1)
        done = self._descend(updates, seconds is not None)
        return fitted + done, time.process_time() - start

    def _fit(self, seconds: float) -> int:
        """Maximum likelihood of the data by the sampler's grammar, exact, the best of several.

        Fewer seconds are shared out alike. Returns the updates of all fits.
        """
        updates, held_out = 0, self._held_out()
        share = min(1.0, seconds / sum(count * each for count, _, _, each, _ in FITS))
        fits = [self.sampler_of(*FITS[0][1:3]).grammar for _ in range(FITS[0][0])]
        for count, inner, leaves, each, last in FITS:
            fits = fits[:count]
            if inner > fits[0].nonterminals:
                fits = [split_symbols(fit, held_out, inner, leaves) for fit in fits]
            for fit in fits:
                descent = Descent(EM(fit, None, None, exact()))
                start, gone = time.process_time(), 0.0
                while gone < 1:
                    fallen = max(2 * gone - 1, 0)  # it falls in the second half
                    descent.rates.model = FIT_RATE * (last / FIT_RATE) ** fallen
                    descent.update(self.batch(updates))
                    updates += 1
                    gone = (time.process_time() - start) / (share * each)
            fits.sort(key=lambda fit: _nll(fit, held_out))
        grammar: Any = self.run.policy.grammar
        grammar.load_state_dict(fits[0].state_dict())
        return updates

    def _held_out(self) -> list[Any]:
        """Sentences that are neither trained nor tested on, in batches of like lengths."""
        assert self.data is not None
        corpus = self.data.sampled(300, 1).tokens
        return [self.data.encode([corpus[row] for row in rows]) for rows in by_length(corpus)]

    def _descend(self, updates: int, large: bool) -> int:
        run, rate = self.run, 4e-3 if large else 1e-2
        fitted = isinstance(run.policy, GrammarSampler)
        imitation = Anneal(20.0, 0.0, max(updates // 2, 1)) if large and not fitted else 0.0
        samples = 64 if large else SAMPLES
        recipe = sentence_sampler(
            samples=samples, share=SHARES[large], imitation=imitation, collapse=self.apart
        )
        em = EM(run.model, run.space, run.policy, recipe)
        falling = Anneal(rate, rate / (20 if large else 50), updates, "exponential")
        level = Anneal(0.1, 1e-3, updates, "exponential")
        descent = Descent(em, Rates(policy=falling, log_z=level))
        for number in range(updates):
            x = self.batch(number)
            descent.update(x[:BESIDE] if large else x)
        return updates

    def figures(self) -> dict[str, float]:
        """What the row says."""
        found = {k: v for k, v in figures(self.run).items() if k != "sums_to"}
        if self.data is not None:
            corpus = self.data.sampled(500, 2)
            tokens = corpus.tokens
            batches = (
                self.data.encode([tokens[row] for row in rows]) for rows in by_length(tokens)
            )
            found["sampler_nll"] = likelihood(self.run, batches)
            parser = as_parser(self.run)
            if parser is not None:
                found |= parser_f1(parser, self.data, corpus, 500)
        return found


@torch.no_grad()
def _nll(grammar: Any, batches: list[Any]) -> float:
    """A grammar's exact NLL of sentences, in nats."""
    return -float(sum(grammar.log_marginal(x).double().sum() for x in batches))


def _small(task: str) -> Any:
    vocab_size, (shortest, longest) = WORDS[task], LENGTHS
    limits = {"vocab_size": vocab_size, "shortest": shortest, "longest": longest}
    if task == "grammar":
        return GrammarTarget(TINY, None, 0.01, longest, shortest)
    if task == "copy":
        return Copied(**limits)
    if task == "counted":
        return Counted(**limits)
    text = SentenceData(grammar=TINY, sentences=500, max_length=longest, valid_sentences=0, seed=0)
    model = NGram(2, **limits)
    model.prepare(text)
    return model


def _as_large(other: torch.nn.Module, made: Callable[[int], torch.nn.Module]) -> torch.nn.Module:
    """The largest module with no more parameters than another."""
    limit, dim = _size(other), 1
    while _size(made(dim + 1)) <= limit:
        dim += 1
    return made(dim)


def _size(module: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def cell(task: str, sampler: str, seed: int, seconds: float | None) -> dict[str, Any]:
    """One row."""
    made = Cell(task, sampler, seed)
    done, took = made.train(UPDATES, seconds)
    row = {"parameters": _size(made.run.policy), "updates": done, "CPU seconds": took}
    named = {"reward": task, "sampler": sampler, "data": "text", "seed": seed}
    return {**named, **row, **made.figures()}


def main() -> None:
    """Makes the rows that are missing."""
    tasks = ("grammar", "bigrams", "copy", "counted", "english")
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--tasks", nargs="+", choices=tasks, default=tasks)
    parser.add_argument("--samplers", nargs="+", choices=SAMPLERS, default=SAMPLERS)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--seconds", type=float, default=900, help="of CPU time in the large one")
    parser.add_argument("--minutes", type=float, default=1e9, help="no cell is started later")
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows: list[dict[str, Any]] = list(read(options.out))
    done = {(row["reward"], row["sampler"], row["seed"]) for row in rows}
    command = shlex.join(["python", "experiments/sentences.py", *sys.argv[1:]])
    facts = provenance(command)
    start = time.monotonic()
    for seed in options.seeds:
        for sampler in options.samplers:
            for task in options.tasks:
                late = time.monotonic() - start > 60 * options.minutes
                if late or (task, sampler, str(seed)) in done:
                    continue
                seconds = options.seconds if task == "english" else None
                found = cell(task, sampler, seed, seconds)
                shown = {k: f"{v:.4g}" if isinstance(v, float) else v for k, v in found.items()}
                rows.append({**shown, **facts})
                write(options.out, rows)
                print("  ".join(f"{k} {v}" for k, v in shown.items()), flush=True)


if __name__ == "__main__":
    main()

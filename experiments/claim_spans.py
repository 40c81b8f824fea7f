"""Spans of held-out sentences: the flows of a top-down sampler beside inside-outside.

    python experiments/claim_spans.py RUN --data FILE

The grammar of a finished run of text stays as it is; fresh samplers are trained to its posterior on
the run's training data, with a look-ahead that a network reads off the sentence, and with one built
from narrow spans to wide ones. Rows go to `experiments/results/claims/spans.csv`, with their
command, commit, date and machine. `claims.py flows` does the same with a grammar that it fits to
the embedded corpus.
"""

from __future__ import annotations

import argparse
import shlex
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE / "benchmarks")]

from gfnem.em import EM  # noqa: E402
from gfnem.parsing import (  # noqa: E402
    NeuralPCFG,
    Sentences,
    TextData,
    TopDownPolicy,
    TopDownSpace,
)
from gfnem.posterior import Posterior  # noqa: E402
from gfnem.rates import Descent, Rates  # noqa: E402
from gfnem.recipes import exact, posterior  # noqa: E402
from gfnem.schedules import Anneal  # noqa: E402

RESULTS = HERE / "results" / "claims" / "spans.csv"
#: samplers: settings of the policy, first learning rate, updates
SAMPLERS: dict[str, tuple[dict[str, Any], float, int]] = {
    "network": ({"corners": True}, 3e-3, 400),
    "recursion of rank 16": ({"recursion": 16, "dropout": 0.0}, 1e-2, 200),
    "recursion of rank 32": ({"recursion": 32, "dropout": 0.0}, 1e-2, 300),
}


def embedded(name: str) -> Iterator[dict[str, Any]]:
    """Rows for a grammar of 30+60 symbols, fitted to 10,000 embedded sentences by exact EM.

    300 updates; it stays as it is from then on.

    Args:
        name: of `SAMPLERS`.
    """
    torch.manual_seed(0)
    data = TextData(sentences=10_000, valid_sentences=300)
    grammar = NeuralPCFG(data.facts()["vocab_size"], 30, 60)
    descent = Descent(EM(grammar, None, None, exact()), Rates(model=0.004))
    for update in range(300):
        descent.update(data.training_batch(update))
    grammar.requires_grad_(False).eval()
    held_out = list(data.validation_batches())
    yield from curve(name, grammar, lambda at: data.training_batch(300 + at), held_out)


def curve(
    name: str,
    grammar: Any,
    batch: Callable[[int], Sentences],
    held_out: Sequence[Sentences],
    seed: int = 0,
    points: int = 2,
) -> Iterator[dict[str, Any]]:
    """A row for each of some numbers of updates of a sampler, whose grammar does not move.

    Args:
        name: one of `SAMPLERS`.
        grammar: its posterior is the target.
        batch: training sentences of an update.
        held_out: sentences whose spans are measured.
        seed: of the sampler.
        points: rows after the first, which is before training.
    """
    settings, rate, updates = SAMPLERS[name]
    torch.manual_seed(seed)
    labels = grammar.nonterminals
    space, policy = TopDownSpace(labels), TopDownPolicy(grammar.vocab_size, labels, **settings)
    rates = Rates(policy=Anneal(rate, rate / 10, updates))
    descent = Descent(EM(grammar, space, policy, posterior(samples=16)), rates)
    seconds = 0.0
    for update in range(updates + 1):
        if update % (updates // points) == 0:
            policy.eval()
            found = {"CPU seconds": seconds, **error(held_out, grammar, space, policy)}
            policy.train()
            yield {"what": f"{name}, {update} updates", **found}
        if update < updates:
            start = time.process_time()
            descent.update(batch(update))
            seconds += time.process_time() - start


def error(held_out: Sequence[Sentences], grammar: Any, space: Any, policy: Any) -> dict[str, Any]:
    """Mean absolute error of the probability of each span that a tree may or may not have."""
    total, count = 0.0, 0
    for x in held_out:
        found = Posterior(grammar, space, policy, x).marginal()
        truth = grammar.span_marginals(x).sum(3)
        here = possible(x)
        total += (found - truth).abs()[here].sum().item()
        count += int(here.sum())
    return {"figure": "spans, mean absolute error", "value": total / count, "count": count}


def possible(x: Sentences) -> Tensor:
    """`(batch, n, n + 1)` bool: spans of two words or more that may or may not be nodes."""
    start, end = torch.arange(x.max_length)[:, None], torch.arange(x.max_length + 1)
    lengths = x.lengths[:, None, None]
    return (end - start >= 2) & (end <= lengths) & (end - start < lengths)


def main() -> None:
    """Makes the rows that are missing."""
    from energies import provenance, read, write

    import gfnem

    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("run", help="a run folder of gfnem train, of a PCFG")
    parser.add_argument("--data", required=True, help="held-out sentences")
    parser.add_argument("--name", required=True, help="what the rows call the run's data")
    parser.add_argument("--samplers", nargs="+", choices=list(SAMPLERS), default=list(SAMPLERS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--limit", type=int, default=300, help="sentences of --data")
    options = parser.parse_args()
    torch.set_num_threads(1)
    told = [
        "--name",
        options.name,
        "--limit",
        str(options.limit),
        "--seeds",
        *map(str, options.seeds),
    ]
    told += ["--samplers", *options.samplers]
    command = "python experiments/claim_spans.py RUN --data FILE " + shlex.join(told)
    facts = provenance(command)
    run = gfnem.load(options.run)
    data, grammar = run.data(), run.model.requires_grad_(False).eval()
    held_out = list(data.batches(data.read(options.data).tokens[: options.limit], 32))
    rows: list[dict[str, Any]] = list(read(RESULTS))
    done = {(row["data"], row["what"].split(",")[0], row["seed"]) for row in rows}
    for seed in options.seeds:
        for name in options.samplers:
            if (options.name, name, str(seed)) in done:
                continue
            for found in curve(name, grammar, data.training_batch, held_out, seed):
                shown = {k: f"{v:.4g}" if isinstance(v, float) else v for k, v in found.items()}
                row = {"data": options.name, "seed": seed, **shown}
                rows.append({**row, **facts})
                print("  ".join(f"{key} {value}" for key, value in row.items()), flush=True)
            write(RESULTS, rows)


if __name__ == "__main__":
    main()

"""Median CPU times of exact inference and of tree sampling, on random grammars.

python experiments/benchmarks/bench_inside.py --batch 32 --length 20
python experiments/benchmarks/bench_inside.py --classes 6
python experiments/benchmarks/bench_inside.py --apart --nonterminals 128 --preterminals 256
"""

from __future__ import annotations

import argparse
import statistics
import time

import torch
from record import record

from gfnem.parsing.inference.bracketing import bracketing_log_joint
from gfnem.parsing.inference.draws import sample_trees, score_trees
from gfnem.parsing.inference.factored import FactoredPotentials
from gfnem.parsing.inference.inside import inside, log_partition, span_marginals
from gfnem.parsing.inference.log_joint import tree_log_joint
from gfnem.parsing.inference.potentials import Potentials
from gfnem.parsing.inference.rule_potentials import RulePotentials
from gfnem.parsing.inference.viterbi import viterbi


def main() -> None:
    """Prints one line per operation."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch", type=int, default=32, help="sentences")
    parser.add_argument("--length", type=int, default=20, help="tokens a sentence")
    parser.add_argument("--nonterminals", type=int, default=30)
    parser.add_argument("--preterminals", type=int, default=60)
    parser.add_argument("--classes", type=int, default=1, help="of parents; 1: a PCFG")
    parser.add_argument("--apart", action="store_true", help="rules choose their children apart")
    parser.add_argument("--samples", type=int, default=4, help="trees a sentence")
    parser.add_argument("--repeats", type=int, default=11)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    device = torch.device(args.device)
    symbols = args.nonterminals + args.preterminals
    contexts = args.classes + 1 if args.classes > 1 else 1
    root = torch.randn(symbols, device=device).log_softmax(0)
    if args.apart:
        sides = torch.randn(2, args.nonterminals, symbols, device=device).log_softmax(2)
        tables = [root, *sides]
    else:
        rules = torch.randn(contexts, args.nonterminals, symbols**2, device=device).log_softmax(2)
        tables = [root, rules.unflatten(2, (symbols, symbols))]
    emissions = torch.randn(args.batch, args.length, contexts, args.preterminals, device=device) - 8
    lengths = torch.full((args.batch,), args.length, device=device)
    tables = [table.requires_grad_() for table in (*tables, emissions)]

    size = (
        f"{args.batch} sentences of {args.length} words, {args.nonterminals}+{args.preterminals} "
        f"symbols, {'children apart' if args.apart else f'parent classes: {args.classes}'}"
    )

    def clock() -> float:
        if device.type == "cuda":
            torch.cuda.synchronize()
            return time.perf_counter()
        return time.process_time()

    def measure(name: str, forward, backward: bool = False) -> None:
        times: list[tuple[float, float]] = []
        for _ in range(args.repeats + 2):
            start = clock()
            result = forward()
            middle = clock()
            if backward:
                result.sum().backward()
            times.append((middle - start, clock() - middle))
        ahead, behind = (statistics.median(column[2:]) for column in zip(*times, strict=True))
        after = f", backward {behind * 1000:7.1f} ms" if backward else ""
        print(f"{name:28s} forward {ahead * 1000:7.1f} ms{after}", flush=True)
        if device.type == "cpu":
            record(f"{name}, {size}", ahead + behind if backward else ahead)

    def potentials() -> Potentials:
        if args.apart:
            *sides, words = tables
            return FactoredPotentials.from_tables(*sides, words.squeeze(2), lengths)
        return RulePotentials.from_tables(*tables, lengths)

    if not args.apart:
        measure("potentials, left child", lambda: potentials().leaf_tables[0], True)
    measure("potentials + log partition", lambda: log_partition(potentials()), True)
    fixed = potentials().detach()
    measure("log partition, no gradient", lambda: log_partition(fixed))
    measure("span marginals", lambda: span_marginals(fixed))
    measure("viterbi", lambda: viterbi(fixed))
    chart = inside(fixed)
    trees, _ = sample_trees(fixed, chart, args.samples)
    measure("sample", lambda: sample_trees(fixed, chart, args.samples))
    measure("sample, explore", lambda: sample_trees(fixed, chart, args.samples, 1.5, 0.05))
    values = chart.clone().requires_grad_()
    measure("score", lambda: score_trees(fixed, values, trees), True)
    measure("log joint", lambda: tree_log_joint(potentials(), trees), True)
    measure("bracketing", lambda: bracketing_log_joint(potentials(), trees), True)


if __name__ == "__main__":
    main()

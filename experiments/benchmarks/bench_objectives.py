"""How fast each E-step objective brings the sampler to the posterior of one fixed grammar.

    python experiments/benchmarks/bench_objectives.py --out objectives.png

A seeded neural PCFG with sharpened rules, sentences drawn from it, and both tree spaces. Every
objective starts from the same weights and sees the same sentences. Prints the exact ELBO gap in
nats a sentence (the log marginal by the inside algorithm less the ELBO from many samples) after a
number of updates and after a number of seconds; draws the curves with `--out`.
"""

from __future__ import annotations

import argparse
import time

import torch
from record import record

from gfnem.em import EM
from gfnem.objectives import (
    BalancedVarGrad,
    DetailedBalance,
    Objective,
    SubTrajectoryBalance,
    TrajectoryBalance,
    VarGrad,
)
from gfnem.parsing import ForestPolicy, ForestSpace, NeuralPCFG, TopDownPolicy, TopDownSpace
from gfnem.phases import TrainPolicy
from gfnem.posterior import Posterior
from gfnem.rates import Descent, Rates
from gfnem.sources import Own

LABELS, PRETERMINALS, WORDS = 10, 20, 200
OBJECTIVES: dict[str, Objective] = {
    "VarGrad": VarGrad(),
    "VarGrad+3DB": BalancedVarGrad(),
    "TB": TrajectoryBalance(),
    "SubTB(0.9)": SubTrajectoryBalance(0.9),
    "DB": DetailedBalance(),
    "FL-DB": DetailedBalance(forward_looking=True),
    "FL-SubTB(0.9)": SubTrajectoryBalance(0.9, forward_looking=True),
}


class SharpPCFG(NeuralPCFG):
    """Rule probabilities far from uniform, so that the posterior has something to tell."""

    def tables(self):
        """The tables of a neural PCFG, to the 4th power and normalised again."""
        root, rules, emissions = super().tables()
        return (
            (root * 4).log_softmax(0),
            (rules * 4).flatten(1).log_softmax(1).view_as(rules),
            (emissions * 6).log_softmax(1),
        )


def draw_sentences(model: NeuralPCFG, count: int, shortest: int, longest: int):
    """`count` sentences of the model whose lengths are in range."""
    x, _ = model.sample(40 * count, max_length=longest)
    fits = (x.lengths >= shortest).nonzero().squeeze(1)[:count]
    if len(fits) < count:
        raise SystemExit(f"only {len(fits)} of {40 * count} draws had {shortest} words or more")
    return x[fits]


def train(objective: Objective, space_name: str, prior: bool, model, x, options):
    """`(updates, seconds, gap)` at regular intervals; evaluation is not timed."""
    torch.manual_seed(options.seed)
    down = space_name == "top-down"
    space = (TopDownSpace if down else ForestSpace)(LABELS)
    policy = (TopDownPolicy if down else ForestPolicy)(WORDS, LABELS, dim=64, use_prior=prior)
    em = EM(model, space, policy, [TrainPolicy(Own(options.samples, epsilon=0.02), objective)])
    descent = Descent(em, Rates(policy=options.lr, log_z=10 * options.lr))
    exact = model.log_marginal(x).detach()
    curve, spent = [], 0.0
    for update in range(options.updates + 1):
        if update % options.every == 0:
            with torch.random.fork_rng():
                torch.manual_seed(0)
                _, weights = Posterior(model, space, policy, x).log_weights(32)
            curve.append((update, spent, float((exact - weights.mean(1)).mean())))
        start = time.process_time()
        rows = torch.randint(len(x), (options.batch,))
        descent.update(x[rows])
        spent += time.process_time() - start
    return curve


def at_time(curve, seconds: float) -> float:
    """The gap last seen before so many seconds."""
    return [gap for _, spent, gap in curve if spent <= seconds][-1]


def draw(results: dict, path: str) -> None:
    """Gap against updates (above) and against seconds (below), a column for each problem."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(
        2, len(results), figsize=(5 * len(results), 7), squeeze=False, layout="constrained"
    )
    for column, (problem, curves) in enumerate(results.items()):
        for row, label in enumerate(("updates", "seconds (one thread)")):
            axis = axes[row, column]
            for index, (name, curve) in enumerate(curves.items()):
                axis.plot(
                    [point[row] for point in curve],
                    [max(point[2], 1e-3) for point in curve],
                    ("-", "--", ":")[index % 3],
                    label=name,
                )
            axis.set(yscale="log", xlabel=label, ylabel="ELBO gap (nats a sentence)")
            if row == 0:
                axis.set_title(problem)
    axes[0, 0].legend()
    figure.savefig(path, dpi=120)


def main() -> None:
    """Trains all, prints the table, draws the figure."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--updates", type=int, default=400)
    parser.add_argument("--every", type=int, default=20, help="updates between two evaluations")
    parser.add_argument("--sentences", type=int, default=64)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--samples", type=int, default=8)
    parser.add_argument("--lr", type=float, default=3e-3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--spaces", nargs="+", default=["top-down", "forest"])
    parser.add_argument(
        "--prior", nargs="+", type=int, default=[1], help="1: rule weights given; 0: not; or both"
    )
    parser.add_argument("--out", help="a picture of the curves (default: none)")
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(options.seed)
    model = SharpPCFG(WORDS, LABELS, PRETERMINALS, dim=32).requires_grad_(False)
    x = draw_sentences(model, options.sentences, 8, 12)
    results = {}
    for space in options.spaces:
        for prior in options.prior:
            problem = f"{space}, {'rule weights given' if prior else 'no rule weights'}"
            curves = {
                name: train(objective, space, bool(prior), model, x, options)
                for name, objective in OBJECTIVES.items()
            }
            results[problem] = curves
            budget = min(curve[-1][1] for curve in curves.values())
            print(f"{problem}: ELBO gap in nats a sentence, {curves['VarGrad'][0][2]:.2f} at first")
            middle, last = options.updates // options.every // 2, -1
            for name, curve in curves.items():
                per_update = 1000 * curve[-1][1] / max(options.updates, 1)
                print(
                    f"  {name:14} {curve[middle][2]:8.3f} after {curve[middle][0]} updates"
                    f" {curve[last][2]:8.3f} after {curve[last][0]}"
                    f" {at_time(curve, budget):8.3f} after {budget:.1f} s"
                    f" {per_update:6.0f} ms an update",
                    flush=True,
                )
                record(f"E-update by {name}, {problem}", per_update / 1000)
            if options.out:
                draw(results, options.out)


if __name__ == "__main__":
    main()

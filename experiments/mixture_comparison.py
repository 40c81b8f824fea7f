"""Exact EM, GFlowNet-EM and mean-field variational EM on the hierarchical mixture.

    python experiments/mixture_comparison.py --seeds 50 --output runs/mixture_comparison

Every method starts from the same data and the same initial means, seed by seed. One line of
`runs.csv` is written for each seed and method as it is done; a second call goes on where the first
was stopped. `summary.json` and `comparison.png` are made from that file. About 5 s of one thread
for each seed and GFlowNet method; the others take seconds in all.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import statistics
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import torch
from matplotlib.figure import Figure
from torch import Tensor

from gfnem.em import EM
from gfnem.errors import UserError
from gfnem.files import write_atomically
from gfnem.mixtures import PetalMixture, PetalPolicy, Petals, PetalSpace
from gfnem.mixtures.data import CENTRES, recovered
from gfnem.mixtures.drawing import save
from gfnem.mixtures.exact import exact_em, log_joint_table, normalise
from gfnem.mixtures.meanfield import mean_field_em
from gfnem.mixtures.policy import learned_posterior
from gfnem.rates import Descent, Rates
from gfnem.recipes import gflownet

METHODS = {
    "exact": "exact EM",
    "gflownet": "GFlowNet-EM",
    "gflownet_either": "GFlowNet-EM, either order",
    "meanfield": "mean-field EM",
    "meanfield_afresh": "mean-field EM, E-steps afresh",
    "meanfield_truth": "mean-field EM from the truth",
}
FIELDS = (
    "seed",
    "method",
    "log_likelihood",
    "optimum",  # where exact EM leads that starts from the means learned
    "bound",
    "recovered",
    "kl_coupled",
    "kl_other",
    "s",
)
ITERATIONS = 300  # of exact and mean-field EM: many more than they take to settle
COUPLED = 0.1  # nats of mutual information between the latents that make a point count as coupled


class World:
    """One seed's data and starting point."""

    def __init__(self, seed: int, points: int, batch_size: int):
        self.seed = seed
        self.data = Petals(points=points, batch_size=batch_size, interval=10**9, seed=seed)
        self.x, self.start = self.data.points, self.data.initial_means
        self.model = PetalMixture(self.start.tolist())
        self.offsets, self.sd = self.model.offsets, self.model.sd
        truth = self.posterior(torch.tensor(CENTRES))
        independent = truth.sum(2, keepdim=True) * truth.sum(1, keepdim=True)
        self.coupled = divergence(truth, independent) > COUPLED

    def posterior(self, means: Tensor) -> Tensor:
        """Exact `(points, clusters, petals)` under `means`."""
        return normalise(log_joint_table(self.x, means, self.offsets, self.sd))

    def row(self, method: str, means: Tensor, q: Tensor, seconds: float) -> dict:
        """A line of the table, from learned means and posterior `(points, clusters, petals)`."""
        table = log_joint_table(self.x, means, self.offsets, self.sd)
        log_likelihood = table.logsumexp((1, 2)).mean().item()
        gap = divergence(q, normalise(table))
        _, history = exact_em(self.x, means, self.offsets, self.sd, ITERATIONS)
        return {
            "seed": self.seed,
            "method": method,
            "log_likelihood": log_likelihood,
            "optimum": history[-1].item(),
            "bound": log_likelihood - gap.mean().item(),
            "recovered": recovered(means, torch.tensor(CENTRES), self.sd),
            "kl_coupled": gap[self.coupled].mean().item(),
            "kl_other": gap[~self.coupled].mean().item(),
            "s": round(seconds, 2),
        }


def divergence(q: Tensor, p: Tensor) -> Tensor:
    """`(points,)` `KL(q || p)` in nats of tables `(points, clusters, petals)`."""
    tiny = torch.finfo(q.dtype).tiny
    return (q * (q.clamp(min=tiny).log() - p.clamp(min=tiny).log())).sum((1, 2))


def run_exact(world: World) -> tuple[Tensor, Tensor]:
    """Learned means and posterior of exact EM."""
    means, _ = exact_em(world.x, world.start, world.offsets, world.sd, ITERATIONS)
    return means, world.posterior(means)


def run_meanfield(world: World, start: Tensor, afresh: bool) -> tuple[Tensor, Tensor]:
    """Learned means and posterior of mean-field variational EM."""
    run = mean_field_em(world.x, start, world.offsets, world.sd, ITERATIONS, afresh=afresh)
    return run.means, run.cluster.unsqueeze(2) * run.petal.unsqueeze(1)


def run_gflownet(world: World, order: str, args: argparse.Namespace) -> tuple[Tensor, Tensor]:
    """Learned means and the sampler's own posterior of GFlowNet-EM."""
    torch.manual_seed(world.seed)
    recipe = gflownet(samples=args.samples, epsilon=args.epsilon)
    em = EM(world.model, PetalSpace(order=order), PetalPolicy(), recipe)
    descent = Descent(em, Rates(policy=args.policy_rate, model=args.model_rate))
    for update in range(args.updates):
        descent.update(world.data.training_batch(update))
    q = learned_posterior(em.policy, em.space, world.x, world.model)
    return world.model.means.detach(), q


def learn(world: World, method: str, args: argparse.Namespace) -> dict:
    """Runs one method on one seed."""
    began = time.perf_counter()
    if method == "exact":
        means, q = run_exact(world)
    elif method.startswith("gflownet"):
        order = "either" if method.endswith("either") else "cluster_first"
        means, q = run_gflownet(world, order, args)
    else:
        start = torch.tensor(CENTRES) if method == "meanfield_truth" else world.start
        means, q = run_meanfield(world, start, method.endswith("afresh"))
    return world.row(method, means, q, time.perf_counter() - began)


def read_rows(path: Path) -> list[dict]:
    """Lines of an earlier call; none if there was no such call."""
    if not path.exists():
        return []
    with open(path, newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    try:
        return [{f: row[f] if f == "method" else float(row[f]) for f in FIELDS} for row in rows]
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{path}: not a table of this program ({error!r}); delete it") from error


def pending(rows: list[dict], args: argparse.Namespace) -> Iterator[tuple[int, str]]:
    """What remains to be run."""
    done = {(int(row["seed"]), row["method"]) for row in rows}
    for seed in range(args.seeds):
        for method in args.methods:
            if (seed, method) not in done:
                yield seed, method


def check_settings(args: argparse.Namespace, path: Path) -> None:
    """Refuses to mix runs of different settings in one table."""
    names = ("points", "batch_size", "updates", "samples", "epsilon", "policy_rate", "model_rate")
    settings = {name: getattr(args, name) for name in names}
    if path.exists() and (old := json.loads(path.read_text(encoding="utf-8"))) != settings:
        raise UserError(f"{path}: made with other settings ({old}); use another --output")
    write_atomically(path, json.dumps(settings, indent=2) + "\n")


def summarise(rows: list[dict]) -> dict[str, dict[str, float]]:
    """Figures over seeds for each method.

    Differences "from exact" are from exact EM on the same seed; "own optimum" is the fixed point
    of exact EM that the learned means lead to, so that luck with local optima does not enter.
    """
    exact = {row["seed"]: row["log_likelihood"] for row in rows if row["method"] == "exact"}
    summary = {}
    for method in METHODS:
        mine = [row for row in rows if row["method"] == method]
        if not mine:
            continue
        values = [row["log_likelihood"] for row in mine]
        ahead = [row["log_likelihood"] - exact[row["seed"]] for row in mine if row["seed"] in exact]
        summary[method] = {
            "seeds": len(mine),
            "recovered_all": statistics.fmean(row["recovered"] == 1 for row in mine),
            "log_likelihood_mean": statistics.fmean(values),
            "log_likelihood_sd": statistics.pstdev(values),
            "log_likelihood_median": statistics.median(values),
            "from_own_optimum_median": statistics.median(
                row["log_likelihood"] - row["optimum"] for row in mine
            ),
            "bound_mean": statistics.fmean(row["bound"] for row in mine),
            "kl_coupled": statistics.fmean(row["kl_coupled"] for row in mine),
            "kl_other": statistics.fmean(row["kl_other"] for row in mine),
            "seconds_median": statistics.median(row["s"] for row in mine),
        }
        if ahead:
            summary[method] |= {
                "from_exact_median": statistics.median(ahead),
                "worse_than_exact": statistics.fmean(a < -0.01 for a in ahead),
                "within_0.01_of_exact": statistics.fmean(abs(a) <= 0.01 for a in ahead),
                "better_than_exact": statistics.fmean(a > 0.01 for a in ahead),
            }
    return summary


def show(summary: dict[str, dict[str, float]]) -> str:
    """The summary as a Markdown table."""
    lines = [
        "| method | seeds | all centres found | log-lik. a point, mean (sd) | median | "
        "median from own optimum | median from exact EM | worse / within 0.01 / better | "
        "KL(q, p) coupled / other points |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for method, s in summary.items():
        shares = [s.get(f"{k}_exact", float("nan")) for k in ("worse_than", "within_0.01_of")]
        shares.append(s.get("better_than_exact", float("nan")))
        lines.append(
            f"| {METHODS[method]} | {s['seeds']} | {s['recovered_all']:.0%} | "
            f"{s['log_likelihood_mean']:.3f} ({s['log_likelihood_sd']:.3f}) | "
            f"{s['log_likelihood_median']:.3f} | "
            f"{s['from_own_optimum_median']:+.4f} | "
            f"{s.get('from_exact_median', float('nan')):+.4f} | "
            f"{' / '.join(f'{share:.0%}' for share in shares)} | "
            f"{s['kl_coupled']:.3f} / {s['kl_other']:.3f} |"
        )
    return "\n".join(lines)


def draw(rows: list[dict], summary: dict[str, dict[str, float]]) -> Figure:
    """Final log-likelihoods in order, GFlowNet-EM against exact EM, and centres found."""
    colours = dict(
        zip(
            METHODS, ("#000000", "#0072B2", "#56B4E9", "#D55E00", "#CC79A7", "#E69F00"), strict=True
        )
    )
    figure = Figure(figsize=(13, 4), layout="constrained")
    ordered, against, found = figure.subplots(1, 3)
    exact = {row["seed"]: row["log_likelihood"] for row in rows if row["method"] == "exact"}
    for method in summary:
        mine = [row for row in rows if row["method"] == method]
        values = sorted(row["log_likelihood"] for row in mine)
        places = [(k + 0.5) / len(values) for k in range(len(values))]
        ordered.plot(places, values, ".-", color=colours[method], label=METHODS[method], ms=4)
        if method in ("gflownet", "meanfield"):
            pairs = [(exact.get(row["seed"]), row["log_likelihood"]) for row in mine]
            pairs = [pair for pair in pairs if pair[0] is not None]
            against.scatter(
                *zip(*pairs, strict=True), s=14, color=colours[method], label=METHODS[method]
            )
    ordered.set_xlabel("fraction of seeds")
    ordered.set_ylabel("final log-likelihood, nats a point")
    ordered.legend(fontsize=7)
    if exact:
        ends = [min(exact.values()), max(exact.values())]
        against.plot(ends, ends, color="#999999", linewidth=1)
    against.set_xlabel("exact EM, same seed")
    against.set_ylabel("nats a point")
    against.legend(fontsize=7)
    names = list(summary)
    found.barh(
        [METHODS[name] for name in names],
        [summary[name]["recovered_all"] for name in names],
        color=[colours[name] for name in names],
    )
    found.set_xlim(0, 1)
    found.invert_yaxis()
    found.set_xlabel("fraction of seeds that found all four centres")
    return figure


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=50)
    parser.add_argument("--output", type=Path, default=Path("runs/mixture_comparison"))
    parser.add_argument(
        "--methods",
        nargs="+",
        choices=list(METHODS),
        default=["exact", "meanfield", "meanfield_afresh", "meanfield_truth", "gflownet"],
    )
    parser.add_argument("--points", type=int, default=800)
    parser.add_argument("--batch-size", type=int, default=200)
    parser.add_argument("--updates", type=int, default=400, help="of GFlowNet-EM")
    parser.add_argument("--samples", type=int, default=4, help="latents drawn for each point")
    parser.add_argument("--epsilon", type=float, default=0.05, help="uniform exploration")
    parser.add_argument("--policy-rate", type=float, default=1e-2)
    parser.add_argument("--model-rate", type=float, default=2e-2)
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> None:
    """Runs what is missing, then writes the summary and the figure."""
    args = parse(arguments)
    args.output.mkdir(parents=True, exist_ok=True)
    check_settings(args, args.output / "settings.json")
    path = args.output / "runs.csv"
    rows = read_rows(path)
    todo = list(pending(rows, args))
    new = not path.exists()
    with open(path, "a", newline="", encoding="utf-8") as stream:
        table = csv.DictWriter(stream, FIELDS)
        if new:
            table.writeheader()
        for number, (seed, method) in enumerate(todo, 1):
            row = learn(World(seed, args.points, args.batch_size), method, args)
            table.writerow(row)
            stream.flush()
            os.fsync(stream.fileno())
            rows.append(row)
            print(
                f"{number}/{len(todo)} seed {seed} {METHODS[method]}: "
                f"{row['log_likelihood']:.3f} nats a point, {row['recovered']:.0%} of centres",
                file=sys.stderr,
            )
    summary = summarise(rows)
    write_atomically(args.output / "summary.json", json.dumps(summary, indent=2) + "\n")
    save(draw(rows, summary), args.output / "comparison.png")
    print(show(summary))


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        sys.exit(f"error: {error}")

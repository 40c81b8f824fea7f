"""Samplers beside each other: recipes that train one, on one and the same model, at equal time.

    python experiments/fixed_model.py RUN --data FILE [--recipes gflownet wake_sleep reverse_kl iw]

An ELBO gap at the end of training says as much about the model as about the sampler: a model that
has learned little has posteriors that are easy to sample. Here the model is that of a finished run
and stays as it is; a fresh policy is trained towards its posterior by each recipe, on the run's own
training data, for about as many seconds each. The gaps are exact (the model needs an exact log
marginal, as grammars have), in nats a sentence, on the first sentences of `--data`.
"""

from __future__ import annotations

import argparse
import sys
import time

import torch

import gfnem
from gfnem.component import build
from gfnem.data import DataModule
from gfnem.em import EM
from gfnem.errors import UserError
from gfnem.phases import POLICY
from gfnem.policy import Policy
from gfnem.rates import Descent, Rates
from gfnem.recipes import RECIPES
from gfnem.running.run import Run, measured
from gfnem.running.runs import read_config
from gfnem.schedules import Anneal

TIMED = 20  # updates that are timed to find how many fit; as many before them warm up
SAMPLERS = [  # of latents alone, which `eb_gfn` is not
    name
    for name, made in RECIPES.items()
    if name != "eb_gfn" and any(p.trains == POLICY for p in made().phases())
]


def fit(run: Run, data: DataModule, recipe: str, updates: int, samples: int, first: float) -> float:
    """Trains a fresh policy of the run's kind; returns the seconds that it took."""
    more = {"temperature": Anneal(first, 1.0, max(1, updates // 2))} if recipe == "gflownet" else {}
    run.policy = build(run.policy.spec(), Policy)
    em = EM(run.model, run.space, run.policy, RECIPES[recipe](samples=samples, **more))
    descent = Descent(em, Rates(policy=Anneal(3e-3, 3e-4, updates)))
    start = time.perf_counter()
    for update in range(updates):
        descent.update(data.training_batch(update))
    return time.perf_counter() - start


def main() -> None:
    """Prints a line for each recipe and seed."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("run", help="a run folder of gfnem train, of a model with exact inference")
    parser.add_argument("--data", required=True, help="what the gaps are measured on")
    parser.add_argument("--recipes", nargs="+", default=SAMPLERS, choices=SAMPLERS)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--seconds", type=float, default=120, help="training time of each sampler")
    parser.add_argument("--temperature", type=float, default=1.5, help="first one of gflownet")
    parser.add_argument("--samples", type=int, default=64, help="for each gap")
    parser.add_argument("--limit", type=int, default=500, help="sentences of --data")
    args = parser.parse_args()
    try:
        run = gfnem.load(args.run)
        if not run.model.offers("log_marginal"):
            raise UserError(f"{args.run}: {type(run.model).__name__} has no exact log marginal")
        data, recipe = run.data(), read_config(args.run)["recipe"]
        samples = (recipe.get("init_args") or {}).get("samples", 16)
        batches = data.batches(data.read(args.data).tokens[: args.limit], 32)
    except UserError as error:
        print(f"fixed_model: {error}", file=sys.stderr)
        sys.exit(2)
    run.has_policy = True  # a run by exact EM has the kind of policy that is trained here
    print("recipe,seed,updates,seconds,elbo_gap,ess", flush=True)
    for seed in args.seeds:
        for recipe in args.recipes:
            torch.manual_seed(seed)
            for updates in (TIMED, 2 * TIMED):
                trial = fit(run, data, recipe, updates, samples, args.temperature)
            updates = max(1, round(args.seconds / (trial / updates)))
            torch.manual_seed(seed)
            seconds = fit(run, data, recipe, updates, samples, args.temperature)
            torch.manual_seed(0)
            found = measured(run.eval(), batches, args.samples)
            print(
                f"{recipe},{seed},{updates},{seconds:.0f},{found['elbo_gap']:.3f},"
                f"{found['ess']:.3f}",
                flush=True,
            )


if __name__ == "__main__":
    main()

"""Samplers beside each other: every E-step against one and the same model, at equal time.

    python experiments/fixed_model.py RUN --data FILE [--e-steps gflownet wake-sleep reverse-kl iw]

An ELBO gap at the end of training says as much about the model as about the sampler: a model that
has learned little has posteriors that are easy to sample. Here the model is that of a finished run
and stays as it is; a fresh policy is trained towards its posterior by each E-step, on the run's own
training data, for about as many seconds each. The gaps are exact (the model needs an exact log
marginal, as grammars have), in nats a sentence, on the first sentences of `--data`.
"""

from __future__ import annotations

import argparse
import logging
import sys
import time
import warnings

import pytorch_lightning as pl
import torch
from gfnem.esteps import E_STEPS

from gfnem import GFlowNetEM
from gfnem.component import build
from gfnem.data import DataModule
from gfnem.errors import UserError
from gfnem.estimates import effective_sample_size, elbo
from gfnem.parsing import Sentences
from gfnem.policy import Policy
from gfnem.running.runs import load_run, read_config
from gfnem.running.trained import Trained
from gfnem.running.training import build_data
from gfnem.schedules import Anneal

TIMED = 20  # updates that are timed to find how many fit; as many before them warm up
SAMPLERS = [name for name, e_step in E_STEPS.items() if e_step.policy]


def fresh(
    run: Trained, samples: int, e_step: str, updates: int, seed: int, temperature: float
) -> GFlowNetEM:
    """The run's model, which nothing changes, and an untrained policy of the run's kind."""
    pl.seed_everything(seed, verbose=False)
    return GFlowNetEM(
        run.model.requires_grad_(False),
        run.space,
        build(run.policy.spec(), Policy),
        e_step=e_step,
        samples=samples,
        policy_lr=Anneal(3e-3, 3e-4, updates),
        temperature=Anneal(temperature, 1.0, max(1, updates // 2)),
        max_updates=updates,
    )


def fit(module: GFlowNetEM, data: DataModule) -> float:
    """Trains; returns the seconds that it took."""
    trainer = pl.Trainer(
        max_epochs=-1,
        limit_val_batches=0,
        num_sanity_val_steps=0,
        reload_dataloaders_every_n_epochs=1,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    start = time.perf_counter()
    trainer.fit(module, datamodule=data)
    return time.perf_counter() - start


@torch.no_grad()
def gap(module: GFlowNetEM, batches: list[Sentences], samples: int) -> tuple[float, float]:
    """Mean exact ELBO gap in nats, and mean relative effective sample size."""
    module.eval()
    torch.manual_seed(0)
    gaps, sizes = [], []
    for x in batches:
        _, log_weights = module.posterior(x).log_weights(samples)
        gaps.append(module.model.log_marginal(x).double() - elbo(log_weights.double()))
        sizes.append(effective_sample_size(log_weights) / samples)
    return float(torch.cat(gaps).mean()), float(torch.cat(sizes).mean())


def main() -> None:
    """Prints a line for each E-step and seed."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("run", help="a run folder of gfnem train, of a model with exact inference")
    parser.add_argument("--data", required=True, help="what the gaps are measured on")
    parser.add_argument("--e-steps", nargs="+", default=SAMPLERS, choices=SAMPLERS)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--seconds", type=float, default=120, help="training time of each sampler")
    parser.add_argument("--temperature", type=float, default=1.5, help="first one of gflownet")
    parser.add_argument("--samples", type=int, default=64, help="for each gap")
    parser.add_argument("--limit", type=int, default=500, help="sentences of --data")
    args = parser.parse_args()
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module="pytorch_lightning")  # the model is not in training
    try:
        run, settings = load_run(args.run), read_config(args.run)
        data, samples = build_data(settings), settings["em"]["samples"]
        batches = data.batches(data.read(args.data).tokens[: args.limit], 32)
        if run.model.log_marginal(batches[0]) is None:
            raise UserError(f"{args.run}: {type(run.model).__name__} has no exact log marginal")
    except UserError as error:
        print(f"fixed_model: {error}", file=sys.stderr)
        sys.exit(2)
    data.interval = 10**6
    print("e_step,seed,updates,seconds,elbo_gap,ess", flush=True)
    for seed in args.seeds:
        for e_step in args.e_steps:
            for updates in (TIMED, 2 * TIMED):
                trial = fit(fresh(run, samples, e_step, updates, seed, args.temperature), data)
            updates = max(1, round(args.seconds / (trial / updates)))
            module = fresh(run, samples, e_step, updates, seed, args.temperature)
            seconds = fit(module, data)
            nats, size = gap(module, batches, args.samples)
            print(f"{e_step},{seed},{updates},{seconds:.0f},{nats:.3f},{size:.3f}", flush=True)


if __name__ == "__main__":
    main()

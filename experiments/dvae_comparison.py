"""Discrete VAEs under one decoder and one budget: GFlowNet-EM and its rivals.

    python experiments/dvae_comparison.py --source mnist.npz --codes 4 8 10 --seeds 0 1 2
    python experiments/dvae_comparison.py --log-z          # one log Z for all images, or one each

Every run writes one file into the output folder; what is already there, with the same settings, is
not run again. `table.md`, `table.csv` and `figure.png` beside them are written after each run.

All methods have the same decoder, optimiser, learning rates and order of images; the budget is
counted in updates of the decoder. Likelihoods are importance-sampled with the method's own
approximate posterior as proposal; that of the VQ-VAE draws codes independently, with probability
falling off with the distance to the encoder's number, the width chosen on validation images. Mean
field is a poor proposal: it gets a fifth of the samples, and what counts is a second estimate, with
a `GuidedPolicy` fitted to the finished model for `--refit` updates. All are bounds; the tightest is
the model's.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from gfnem.batched import pick
from gfnem.em import EM
from gfnem.files import write_atomically
from gfnem.images.data import Images
from gfnem.images.evaluation import likelihoods, summary
from gfnem.images.grids import AnyOrderGrid, RasterGrid
from gfnem.images.guided import GuidedPolicy
from gfnem.images.model import DiscreteVAE
from gfnem.images.policies import AnyOrderPolicy, MeanFieldPolicy, RasterPolicy
from gfnem.images.vqvae import NearestCode, fit_prior, fit_spread, train_vqvae
from gfnem.objectives import ForwardKL, Objective, TrajectoryBalance, VarGrad
from gfnem.phases import TrainPolicy
from gfnem.posterior import Posterior
from gfnem.rates import Descent, Rates
from gfnem.recipes import exact, gflownet, reverse_kl
from gfnem.schedules import AdaptiveThreshold, Alternating, Anneal, EveryUpdate
from gfnem.sources import Own

GFLOWNET = {
    "policy": GuidedPolicy,
    "recipe": gflownet,
    "objective": lambda: VarGrad(pseudo_huber=True),
    "settings": {"m_step": "best", "temperature": 1.1, "samples": 16, "sleep": 0.3},
}
AWAKE = {"settings": GFLOWNET["settings"] | {"sleep": 0.0}}
DRAWN = {"settings": GFLOWNET["settings"] | {"m_step": "one"}}
LEARNED = {"prior": "autoregressive"}
MEAN_FIELD = {"policy": MeanFieldPolicy, "recipe": reverse_kl}  # better without a flat start (K=4)
WAKE_SLEEP = {
    "policy": RasterPolicy,
    "recipe": gflownet,
    "objective": ForwardKL,
    "settings": {"sleep": 0.5},
}
METHODS: dict[str, dict[str, Any]] = {
    "gflownet": GFLOWNET,
    "gflownet-prior": GFLOWNET | LEARNED,
    "gflownet-unguided": GFLOWNET | {"policy": RasterPolicy},
    "gflownet-alternating": GFLOWNET | {"schedule": Alternating},
    "gflownet-threshold": GFLOWNET | {"schedule": lambda: AdaptiveThreshold(20.0)},
    "gflownet-awake": GFLOWNET | AWAKE,
    "gflownet-drawn": GFLOWNET | DRAWN,
    "gflownet-any-order": GFLOWNET | {"policy": AnyOrderPolicy, "space": AnyOrderGrid},
    "mean-field": MEAN_FIELD,
    "mean-field-prior": MEAN_FIELD | LEARNED,
    "wake-sleep": WAKE_SLEEP,
    "wake-sleep-prior": WAKE_SLEEP | LEARNED,
    "vqvae": LEARNED,
}
CLIP = 100.0
MAIN = ["gflownet", "gflownet-prior", "vqvae", "mean-field"]
POOR = ("mean-field", "mean-field-prior")  # as proposals


def fit(em: EM, rates: Rates, data: Images, m_updates: int, device: str) -> None:
    """Trains until the model has had its updates."""
    descent, update = Descent(em.to(device), rates), 0
    while em.clock.m_updates < m_updates:
        descent.update(data.training_batch(update).to(device))
        update += 1


def flat_start(settings: dict[str, Any]) -> Anneal:
    """The reward's temperature: `--flat` at first, 1 after a fifth of the updates.

    Samplers that aim at a sharp posterior from the start settle on the few codes that happened to
    be better first, and the decoder never learns the others.
    """
    return Anneal(settings["flat"], 1.0, max(1, settings["updates"] // 5), "exponential")


def rate(settings: dict[str, Any]) -> Anneal:
    """The learning rate of every method, for sampler and model alike: it falls to a thirtieth."""
    return Anneal(settings["lr"], settings["lr"] / 30, settings["updates"])


def measure(model, space, policy, data, settings, share=1) -> dict[str, float]:
    """Importance-sampled figures of held-out images, with a `share`-th of the samples."""
    device = settings["device"]
    images = data.images("test")[: settings["test_images"]].to(device)
    model.to(device), policy.to(device)
    chunk = 20_000 if device == "cpu" else 200_000
    samples = max(1, settings["test_samples"] // share)
    return summary(likelihoods(model, space, policy, images, samples, chunk))


def refit(model: DiscreteVAE, data: Images, settings: dict[str, Any]) -> dict[str, float]:
    """Figures with a proposal fitted to the finished model, which is not changed."""
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    facts = data.facts()
    space = RasterGrid(facts["rows"], facts["columns"], facts["codes"])
    policy = GuidedPolicy(**facts, trust=0.5)
    em = EM(model, space, policy, gflownet(VarGrad(pseudo_huber=True), settings["samples"]))
    rates = Rates(policy=rate({**settings, "updates": settings["refit"]}), clip=CLIP)
    fit(em, rates, data, settings["refit"], settings["device"])
    return measure(model, space, policy, data, settings)


def likely_codes(em: EM, data: Images, settings: dict[str, Any]) -> Callable[[int], torch.Tensor]:
    """For each update, one posterior sample of each image, drawn by importance weight."""

    def codes(update: int) -> torch.Tensor:
        x = data.training_batch(update).to(settings["device"])
        posterior = Posterior(em.model, em.space, em.policy, x)
        z, log_weights = posterior.log_weights(settings["samples"])
        return pick(z, torch.multinomial(log_weights.softmax(1), 1))[:, 0]

    return codes


def run(method: str, codes: int, seed: int, settings: dict[str, Any]) -> dict[str, Any]:
    """Trains and measures one model; the record that is kept of it."""
    chosen, device, began = METHODS[method], settings["device"], time.process_time()
    torch.manual_seed(seed)
    data = Images(
        settings["source"],
        settings["rows"],
        settings["columns"],
        codes,
        batch_size=settings["batch_size"],
        interval=1000,
        seed=seed,
    )
    facts = data.facts()
    grid = {name: facts[name] for name in ("rows", "columns", "codes")}
    model = DiscreteVAE(
        **facts, channels=settings["channels"], prior=chosen.get("prior", "uniform")
    ).to(device)
    record: dict[str, Any] = {}
    share = 5 if method in POOR else 1
    if method == "vqvae":
        space, policy = RasterGrid(**grid), NearestCode(**facts).to(device)

        def batch(update: int) -> torch.Tensor:
            return data.training_batch(update).to(device)

        train_vqvae(model, policy, batch, settings["updates"], lr=rate(settings))
        fit_prior(model, lambda update: policy.nearest(batch(update), model), settings["updates"])
        record["spread"] = fit_spread(model, policy, data.images("validation")[:100].to(device))
        prior, model.prior = model.prior, None
        record["uniform_prior"] = measure(model, space, policy, data, settings, share=5)
        model.prior = prior
    else:
        space, policy = chosen.get("space", RasterGrid)(**grid), chosen["policy"](**facts)
        more = {"samples": settings["samples"], **chosen.get("settings", {})}
        if "objective" in chosen:
            more |= {"objective": chosen["objective"](), "reward_temperature": flat_start(settings)}
        schedule = chosen.get("schedule", EveryUpdate)()
        em = EM(model, space, policy, chosen["recipe"](**more), schedule)
        rates = Rates(policy=rate(settings), model=rate(settings), clip=CLIP)
        fit(em, rates, data, settings["updates"], device)
        if model.prior is not None:  # as the VQ-VAE's is, for as long
            fit_prior(model, likely_codes(em, data, {**settings, **more}), settings["updates"])
    record["train_seconds"] = time.process_time() - began
    record["own"] = measure(model, space, policy, data, settings, share)
    if share > 1:
        record["refit"] = refit(model, data, settings)
    record["nll"] = min(record[part]["nll"] for part in ("own", "refit") if part in record)
    record["seconds"] = time.process_time() - began
    return {"method": method, "codes": codes, "seed": seed, "settings": settings, **record}


def rows(records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """A row for each method and dictionary size, over seeds; nats an image, in print order."""
    order = list(METHODS)
    groups: dict[tuple[int, int], list[dict[str, Any]]] = {}
    for record in records:
        groups.setdefault((record["codes"], order.index(record["method"])), []).append(record)
    result = []
    for (codes, index), group in sorted(groups.items()):

        def mean(*path: str, group: list[dict[str, Any]] = group) -> float | None:
            values = []
            for value in group:
                for name in path:
                    value = value.get(name) if value else None
                if value is not None:
                    values.append(value)
            return statistics.fmean(values) if values else None

        spread = [record["nll"] for record in group]
        result.append(
            {
                "K": codes,
                "method": order[index],
                "seeds": len(group),
                "nll": mean("nll"),
                "nll_spread": statistics.stdev(spread) if len(spread) > 1 else None,
                "nll_own": mean("own", "nll"),
                "nll_fitted": mean("refit", "nll"),
                "nll_uniform_prior": mean("uniform_prior", "nll"),
                "elbo": mean("own", "elbo"),
                "gap": mean("own", "gap"),
                "effective_samples": mean("own", "effective_samples"),
                "train_seconds": mean("train_seconds"),
            }
        )
    return result


def table(records: list[dict[str, Any]], separator: str = " | ") -> str:
    """`rows` as Markdown, or with another separator as plain lines."""
    found = rows(records)
    names = list(found[0])
    lines = [names] + ([["---"] * len(names)] if separator == " | " else [])
    for row in found:
        cells = (row[name] for name in names)
        lines.append(
            ["" if c is None else f"{c:.2f}" if isinstance(c, float) else str(c) for c in cells]
        )
    left, right = ("| ", " |") if separator == " | " else ("", "")
    return "".join(f"{left}{separator.join(line)}{right}\n" for line in lines)


def figure(records: list[dict[str, Any]], path: Path) -> None:
    """Test NLL against the size of the dictionary, a line for each method, a dot for each run."""
    from matplotlib.figure import Figure

    drawing = Figure(figsize=(6, 4), layout="constrained")
    axis = drawing.subplots()
    for method in METHODS:
        mine = [record for record in records if record["method"] == method]
        if not mine:
            continue
        means = {row["K"]: row["nll"] for row in rows(mine)}
        (line,) = axis.plot(list(means), list(means.values()), label=method)
        axis.plot([r["codes"] for r in mine], [r["nll"] for r in mine], "o", color=line.get_color())
    axis.set_xticks(sorted({record["codes"] for record in records}))
    axis.set_xlabel("entries of the dictionary, K")
    axis.set_ylabel("test NLL, nats an image")
    axis.legend()
    drawing.savefig(path, dpi=120)


class SharedLogZ(RasterPolicy):
    """One learned log Z for all images, as in the code published with the paper."""

    def __init__(self, **shape):
        super().__init__(**shape)
        self.shared = torch.nn.Parameter(torch.tensor(-1.0))
        self.pixels = shape["height"] * shape["width"]

    def log_z(self, context):
        """The same number for every image, in nats."""
        return (self.pixels * self.shared).expand(len(context.log_z))


class DividedTrajectoryBalance(Objective):
    """Trajectory balance with log probabilities divided by the number of steps.

    Where it is zero the sampler draws from `p(z|x) ** steps`: it is far too sure of itself.
    """

    needs_log_z = True

    def forward(self, scores, log_reward, log_partial=None):
        """`(batch,)` losses."""
        path = (scores.log_pf.sum(2) - scores.log_pb.sum(2)) / scores.mask.sum(2)
        return (scores.log_z[:, None] + path - log_reward).square().mean(1)


def compare_log_z(settings: dict[str, Any]) -> dict[str, dict[str, float]]:
    """Four ways to train a sampler of one fixed model whose posterior is known exactly.

    Digits, a 2x2 grid of 4 codes: all 256 grids can be summed over. The model is trained by exact
    EM first; then only the samplers differ, each trained on 64 images and compared with the exact
    posteriors of these. Figures are means over the images, in nats.
    """
    torch.manual_seed(0)
    data = Images("digits", 2, 2, 4, batch_size=32, interval=1000)
    facts, space = data.facts(), RasterGrid(2, 2, 4)
    model = DiscreteVAE(**facts)
    fit(EM(model, space, RasterPolicy(**facts), exact()), Rates(model=3e-3), data, 500, "cpu")
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    images = data.images("train")[:64]
    every = model.all_codes().expand(len(images), -1, -1)
    log_joint = model.log_joint_of_all(images)
    log_p, log_z = log_joint.log_softmax(1), log_joint.logsumexp(1)
    sharp = (4 * log_joint).log_softmax(1)
    result: dict[str, dict[str, float]] = {
        "exact": {
            "entropy": -(log_p.exp() * log_p).sum(1).mean().item(),
            "spread_of_log_z": log_z.std().item(),
        }
    }
    for name, cls, objective in (
        ("VarGrad for each image", RasterPolicy, VarGrad()),
        ("log Z of each image", RasterPolicy, TrajectoryBalance()),
        ("one log Z", SharedLogZ, TrajectoryBalance()),
        ("one log Z, divided by steps", SharedLogZ, DividedTrajectoryBalance()),
    ):
        torch.manual_seed(1)
        policy = cls(**facts)
        em = EM(model, space, policy, [TrainPolicy(Own(8, epsilon=0.1), objective)])
        descent = Descent(em, Rates(policy=settings["lr"], log_z=settings["lr"]))
        for _ in range(settings["updates"]):
            loss = descent.update(images)["e_loss"]
        with torch.no_grad():
            context = policy.encode(images)
            scores = policy.score(context, space, policy.retrace(context, images, space, every))
            log_q = scores.log_pf.sum(2)
        q = log_q.exp()
        result[name] = {
            "loss": loss.item(),
            "kl_to_posterior": (q * (log_q - log_p)).sum(1).mean().item(),
            "kl_to_posterior_power_4": (q * (log_q - sharp)).sum(1).mean().item(),
            "total_variation": (q - log_p.exp()).abs().sum(1).mean().item() / 2,
            "entropy": -(q * log_q).sum(1).mean().item(),
        }
        print(name, json.dumps(result[name]), flush=True)
    return result


def main() -> None:
    """Runs what has not been run yet."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--source", default="digits", help="as `Images` reads it")
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=MAIN)
    parser.add_argument("--codes", nargs="+", type=int, default=[4, 8, 10])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--rows", type=int, default=4)
    parser.add_argument("--columns", type=int, default=4)
    parser.add_argument("--updates", type=int, default=1500, help="decoder updates of each run")
    parser.add_argument("--refit", type=int, default=500, help="updates of the fitted proposal")
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--samples", type=int, default=8, help="grids drawn for each image")
    parser.add_argument("--channels", type=int, default=16, help="of the decoder")
    parser.add_argument("--flat", type=float, default=20.0, help="reward temperature at the start")
    parser.add_argument("--lr", type=float, default=3e-3)
    parser.add_argument("--test-images", type=int, default=1000)
    parser.add_argument("--test-samples", type=int, default=5000)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--output", type=Path, default=Path("runs/dvae_comparison"))
    parser.add_argument("--log-z", action="store_true", help="compare treatments of log Z instead")
    options = vars(parser.parse_args())
    output: Path = options.pop("output")
    methods, dictionaries, seeds = (options.pop(name) for name in ("methods", "codes", "seeds"))
    if options.pop("log_z"):
        figures = compare_log_z(options)
        write_atomically(output / "log_z.json", json.dumps(figures, indent=1) + "\n")
        return
    for seed in seeds:
        for codes in dictionaries:
            for method in methods:
                path = output / f"{method}-K{codes}-seed{seed}.json"
                if path.exists() and json.loads(path.read_text())["settings"] == options:
                    continue
                record = run(method, codes, seed, options)
                write_atomically(path, json.dumps(record, indent=1) + "\n")
                print(path.stem, json.dumps(record["own"]), flush=True)
                records = [
                    json.loads(p.read_text()) for p in sorted(output.glob("*-K*-seed*.json"))
                ]
                write_atomically(output / "table.md", table(records))
                write_atomically(output / "table.csv", table(records, ","))
                figure(records, output / "figure.png")


if __name__ == "__main__":
    main()

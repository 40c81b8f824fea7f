"""What a cell of the tables of energies does: the data, the parts, and how the end is measured."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from coupling_figures import coupling_figures
from torch import Tensor

from gfnem.em import EM
from gfnem.energies import (
    RBM,
    AssignmentPolicy,
    AssignmentSpace,
    BinaryImages,
    BlockGibbs,
    BoltzmannMachine,
    DiscreteLangevin,
    Gibbs,
    GibbsWithGradients,
    MaskedPolicy,
    Pairwise,
    Points,
    Spins,
    Torus,
    TwoTowers,
)
from gfnem.energies.figures import cell_table, divergence, sampler_table
from gfnem.energies.lattices import neighbours, simulate
from gfnem.energies.marginals import weighted_sum
from gfnem.energies.recipes import (
    Sparse,
    contrastive,
    energy_discrepancy,
    mean_field_contrastive,
    pseudo_likelihood,
)
from gfnem.estimates import importance_weighted
from gfnem.objectives import BalancedVarGrad
from gfnem.phases import Together, TrainPolicy
from gfnem.posterior import Posterior
from gfnem.rates import Descent, Rates
from gfnem.recipes import eb_gfn, exact
from gfnem.schedules import Anneal
from gfnem.sources import Chains, Free, Mixed, Own

POINTS = ("2spirals", "8gaussians", "circles", "two_moons", "pinwheel", "swissroll", "checkerboard")


class Parts:
    """An energy, its space and its sampler, as `EM` and `Posterior` want them."""

    def __init__(self, model: Any, data: Any, policy: Any, device: str):
        facts = {**data.facts(), **model.facts()}
        names = ("variables", "values", "block", "order", "summed")
        sizes = {name: facts[name] for name in names}
        model.prepare(data)
        self.model, self.device = model.to(device), device
        self.space = AssignmentSpace(**sizes)
        self.policy = policy(**sizes).to(device)

    def posterior(self, x: Tensor) -> Posterior:
        """As a run has it."""
        return Posterior(self.model, self.space, self.policy, x)

    def free(self) -> Posterior:
        """The sampler where nothing is observed."""
        return self.posterior(torch.full((1, self.model.visible), -1, device=self.device))


def clock_of(device: str) -> Callable[[], float]:
    """CPU time where the work is the CPU's, so that a busy machine does not count; else time."""
    return time.process_time if device == "cpu" else time.perf_counter


def fit(
    parts: Parts,
    recipe: Any,
    batch: Callable[[int], Tensor],
    rates: Callable[[int], Rates],
    updates: int | None,
    seconds: float | None,
) -> tuple[int, float]:
    """Trains for so many updates, or for as many as fit into so many seconds; both are returned.

    Seconds are those of `clock_of`.
    """
    clock = clock_of(parts.device)
    em = EM(parts.model, parts.space, parts.policy, recipe)
    if updates is None:
        assert seconds is not None
        state = {name: value.clone() for name, value in em.state_dict().items()
                 if isinstance(value, Tensor)}  # fmt: skip
        trial = Descent(em, rates(1000))
        for number in range(5):
            trial.update(batch(number))
        start = clock()
        for number in range(15):
            trial.update(batch(number))
        updates = max(int(seconds / ((clock() - start) / 15)), 1)
        em.load_state_dict(state, strict=False)
        # chains and clocks start again
        em = EM(parts.model, parts.space, parts.policy, recipe)
    descent = Descent(em, rates(updates))
    start = clock()
    for number in range(updates):
        descent.update(batch(number))
    return updates, clock() - start


def falling(rate: float, model: float) -> Callable[[int], Rates]:
    """Learning rates that fall to a hundredth along the way, in a straight line."""
    return lambda updates: Rates(
        policy=Anneal(rate, rate / 100, updates), model=Anneal(model, model / 100, updates)
    )


# ---------------------------------------------------------------- points

POINT_METHODS = {
    "exact": exact,
    "eb_gfn": lambda: eb_gfn(samples=2048),
    "eb_gfn_chains": lambda: eb_gfn(samples=256, proposals=2, back=[0.5, 1.0]),
    "pcd_gibbs": lambda: contrastive(Gibbs(), 256, 10),
    "pcd_gwg": lambda: contrastive(GibbsWithGradients(), 256, 10),
    "pcd_langevin": lambda: contrastive(DiscreteLangevin(), 256, 10),
    "cd1": lambda: contrastive(Gibbs(), steps=1, persistent=False),
    "energy_discrepancy": energy_discrepancy,
}
#: of 2 x 16 bits: the sampler learns of the data by likelihood, and not by way of the energy
FINE_METHODS = {"eb_gfn": lambda: eb_gfn(samples=512, share=0.0, likelihood=4.0)}


def points(name: str, method: str, seed: int, device: str, updates, seconds, bits: int = 8) -> dict:
    """An energy of a set of points; exact divergences from the set's density."""
    torch.manual_seed(seed)
    fine = bits > 8
    count, size = (4_000_000, 2048) if fine else (300_000, 256)
    data = Points(name, bits=bits, points=count, seed=seed, batch_size=size)
    network = {"hidden": 64, "tables": 3} if fine else {"hidden": 128}
    parts = Parts(TwoTowers(2 * bits), data, partial(MaskedPolicy, **network), device)
    done, took = fit(
        parts,
        (FINE_METHODS if fine else POINT_METHODS)[method](),
        lambda number: data.training_batch(number).to(device),
        falling(1e-2 if fine else 2e-2, 1e-2),
        updates,
        seconds,
    )
    row: dict[str, Any] = {"updates": done, "seconds": took}
    sampled = method.startswith("eb_gfn")
    with torch.no_grad():
        if not fine:
            table = data.density.table(data.coding.grid).flatten()
            values = cell_table(parts, data)
            row["kl_energy"] = divergence(table, values.log_softmax(0)).item()
            if sampled:
                row["kl_sampler"] = divergence(table, sampler_table(parts, data)).item()
        elif sampled:
            row |= paired(parts, data, device)
    return row


def paired(parts: Parts, data: Any, device: str, count: int = 40_000) -> dict:
    """Mean `log p_data - log p_model` on the same fresh points, with its standard error."""
    generator = torch.Generator().manual_seed(10**6 + data.seed)
    rows = data.coding.grid.encode(data.density.sample(count, generator))
    truth = data.density.log_probability(data.coding.grid, rows)
    free = parts.free()
    q = torch.cat([free.log_prob(p[None].to(device))[0].cpu() for p in rows.split(2**13)])
    energy = torch.cat(
        [parts.model.log_joint(p, p[:, None].to(device))[:, 0].cpu() for p in rows.split(2**13)]
    )
    weights = torch.cat([free.log_weights(2**13)[1][0].cpu() for _ in range(32)])
    log_z = importance_weighted(weights[None])[0]
    found = {}
    for name, log_q in (("sampler", q), ("energy", energy - log_z)):
        difference = truth - log_q.double()
        found[f"kl_{name}"] = difference.mean().item()
        found[f"kl_{name}_se"] = (difference.std() / math.sqrt(count)).item()
    return found


# ---------------------------------------------------------------- Boltzmann machines

#: `eb_gfn` writes the middle layer alone, in both phases, as `eb_gfn_draws`, which is lowered on
#: weighted draws of its sampler in place of chains; `eb_gfn_units` writes every unit
MACHINE_METHODS = {
    "exact": lambda _: exact(),
    "eb_gfn": lambda latents: eb_gfn(samples=256, epsilon=0.1, latents=latents, chains=512),
    "eb_gfn_draws": lambda latents: eb_gfn(samples=1024, epsilon=0.1, latents=latents, chains=0),
    "eb_gfn_units": lambda latents: eb_gfn(samples=256, latents=latents, chains=512),
    "pcd1": lambda latents: contrastive(BlockGibbs(), 512, 1, latents=latents),
    "pcd10": lambda latents: contrastive(BlockGibbs(), 512, 10, latents=latents),
    "cd1": lambda latents: contrastive(BlockGibbs(), steps=1, persistent=False, latents=latents),
    "mean_field_pcd": lambda latents: mean_field_contrastive(512, 1, latents),
}
#: draws of the latent units of a row; an RBM sums them out, and the sampler is all that needs them
LATENTS = {"rbm": 2, "machine": 16, "bars": 64}


def machine(which: str, name: str, method: str, seed: int, device: str, updates, seconds) -> dict:
    """A Boltzmann machine of binary images; exact likelihoods."""
    torch.manual_seed(seed)
    data = BinaryImages(name, block=4, seed=seed)
    visible, collapsed = data.coding.visible, method in ("eb_gfn", "eb_gfn_draws")
    if which == "rbm":
        model = RBM(visible, 16, collapsed)
    else:
        model = BoltzmannMachine(visible, 8 if which == "bars" else 12, 8, collapsed)
    if which == "bars":  # small weights of two layers are a saddle point
        for weight in (model.weight, model.top_weight):
            weight.data.normal_(0, 0.3)
    parts = Parts(model, data, partial(MaskedPolicy, hidden=64 if collapsed else 256), device)
    if method == "sklearn":
        done, took = sklearn_rbm(parts.model, data, seed, updates, seconds)
    else:
        done, took = fit(
            parts,
            MACHINE_METHODS[method](LATENTS[which]),
            lambda number: data.training_batch(number).to(device),
            falling(2e-2, 0.07) if which == "bars" else falling(1e-2, 3e-2),
            updates,
            seconds,
        )
    row: dict[str, Any] = {"updates": done, "seconds": took}
    with torch.no_grad():
        log_z = parts.model.log_partition()
        for part, rows in (("train", data.rows), ("test", data.held_out)):
            found = parts.model.log_marginal(rows.long().to(device)) - log_z
            row[f"nll_{part}"] = -found.mean().item()
        if which == "bars":
            row["kl"] = row["nll_train"] - math.log(len(data.rows))
        if method.startswith("eb_gfn"):
            weights = parts.free().log_weights(4096)[1]
            row["sampler_kl"] = (log_z - weights.mean()).item()
    return row


def sklearn_rbm(model: RBM, data: Any, seed: int, updates, seconds) -> tuple[int, float]:
    """scikit-learn's stochastic maximum likelihood, its weights put into ours."""
    from sklearn.neural_network import BernoulliRBM

    x = data.rows.numpy().astype(float)
    passes = max((updates or 5000) * 100 // len(x), 1)
    start = time.process_time()
    if seconds:
        BernoulliRBM(16, learning_rate=0.05, batch_size=100, n_iter=20, random_state=seed).fit(x)
        passes = max(int(20 * seconds / (time.process_time() - start)), 1)
        start = time.process_time()
    rbm = BernoulliRBM(
        16, learning_rate=0.05, batch_size=100, n_iter=passes, random_state=seed
    ).fit(x)
    took = time.process_time() - start
    with torch.no_grad():
        model.weight.copy_(torch.from_numpy(rbm.components_.T).float())
        model.visible_bias.copy_(torch.from_numpy(rbm.intercept_visible_).float())
        model.hidden_bias.copy_(torch.from_numpy(rbm.intercept_hidden_).float())
    return passes * len(x) // 100, took


# ---------------------------------------------------------------- a fixed Ising model


def fixed_ising(coupling: float, seed: int, device: str, updates, seconds) -> dict:
    """A sampler of a 6x6 torus; log Z and log marginals of random subsets beside exact ones.

    Half of the trajectories are retraced from Gibbs chains, which start in both wells.
    """
    torch.manual_seed(seed)
    parts = Parts.__new__(Parts)
    parts.device, parts.model = device, Torus(36, coupling=coupling).to(device)
    parts.space = AssignmentSpace(36, 2)
    parts.policy = AssignmentPolicy(36, 2, hidden=128, layers=2).to(device)
    nothing = torch.full((1, 36), -1, device=device)
    chains = Free(Chains(64, 18, True, Gibbs()))
    done, took = fit(
        parts,
        [TrainPolicy(Mixed(Free(Own(64)), chains), BalancedVarGrad())],
        lambda number: nothing,
        falling(1e-2, 1e-2),
        updates,
        seconds,
    )
    states = simulate(6, coupling, 1000, 200, seed + 77)
    sizes = torch.randint(0, 36, (1000, 1))
    x = states.masked_fill(torch.rand(1000, 36).argsort(1).argsort(1) >= sizes, -1).to(device)
    with torch.no_grad():
        exact_z = parts.model.log_partition()
        free = parts.free()
        weights = torch.cat([free.log_weights(4096)[1] for _ in range(16)], 1)
        log_z = importance_weighted(weights)[0]
        truth = parts.model.log_marginal(x) - exact_z
        found, _ = weighted_sum(parts, x, 256, 0.01, 128)
        errors = {
            "weighted": found - log_z - truth,
            "learned": parts.policy.log_z(x) - parts.policy.log_z(nothing) - truth,
        }
    row = {
        "updates": done,
        "seconds": took,
        "log_z_weighted_error": (log_z - exact_z).abs().item(),
        "log_z_learned_error": (parts.policy.log_z(nothing)[0] - exact_z).abs().item(),
        "sampler_kl": (exact_z - weights.mean()).item(),
    }
    for name, error in errors.items():
        row[f"marginal_{name}_mean"] = error.abs().mean().item()
        row[f"marginal_{name}_most"] = error.abs().max().item()
    return row


# ---------------------------------------------------------------- an Ising model learned from data

LATTICE = 10


def learned_ising(method: str, seed: int, device: str, updates, seconds) -> dict:
    """Couplings of a 10x10 torus from 2,000 samples: a penalty finds the support, then a refit."""
    torch.manual_seed(seed)
    data = Spins(side=LATTICE, coupling=0.1, count=2000, held_out=2000, block=5, seed=seed)
    clock = clock_of(device)
    start = clock()
    truth = 0.1 * neighbours(LATTICE)
    if method == "logistic":
        coupling, done = logistic(data), 0
    else:
        support, done = None, 0
        for stage in ("penalised", "refitted"):
            model = Pairwise(LATTICE**2, 2, biases=False)
            if support is not None:
                model.pairs *= support
            parts = Parts(model, data, partial(MaskedPolicy, hidden=512), device)
            phases = ISING_METHODS[method]().phases()
            if stage == "penalised":
                weight = 2 * math.sqrt(math.log(LATTICE**4 / 2) / 2000)
                phases[-1] = Together([phases[-1], Sparse(weight)])
            done, _ = fit(
                parts,
                phases,
                lambda number: data.training_batch(number).to(device),
                falling(5e-3, 5e-3),
                updates,
                seconds,
            )
            coupling = parts.model.coupling.detach().cpu()
            support = (coupling.abs() > 0.02).float()
    row = {"updates": done, "seconds": clock() - start}
    return row | coupling_figures(coupling, truth)


ISING_METHODS = {
    "eb_gfn": lambda: eb_gfn(samples=256),
    "pcd_gibbs": lambda: contrastive(Gibbs(), 256, 20),
    "pcd_gwg": lambda: contrastive(GibbsWithGradients(), 256, 20),
    "pseudo_likelihood": pseudo_likelihood,
}


def logistic(data: Any) -> Tensor:
    """L1 logistic regression of each spin on the others, refitted on what it finds."""
    import numpy as np
    from sklearn.linear_model import LogisticRegression

    s = 2.0 * data.rows.numpy() - 1
    count, variables = s.shape
    weight = math.sqrt(math.log(variables**2 / 2) / count)
    coupling = np.zeros((variables, variables))
    found = np.zeros_like(coupling, dtype=bool)
    for i in range(variables):
        others = np.delete(np.arange(variables), i)
        model = LogisticRegression(
            penalty="l1", C=1 / (weight * count), solver="liblinear", fit_intercept=False
        )
        found[i, others] = np.abs(model.fit(s[:, others], s[:, i]).coef_[0]) > 0.02
    found |= found.T
    for i in range(variables):
        own = np.flatnonzero(found[i])
        if len(own):
            model = LogisticRegression(penalty=None, fit_intercept=False)
            coupling[i, own] = model.fit(s[:, own], s[:, i]).coef_[0] / 4
    return torch.from_numpy((coupling + coupling.T) / 2).float()

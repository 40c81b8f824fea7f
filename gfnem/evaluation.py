"""One way to measure a run: for validation, `evaluate`, reports and scripts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from gfnem.estimates import effective_sample_size, elbo, importance_weighted
from gfnem.running.trained import Inference
from gfnem.target import Conditioned

_DRAWS = 4096  # of everything, at most
#: figures that are means over observations
MEANS = ("elbo_gap", "free_gap", "ess", "missed", "log_z", "log_z_error")


@torch.no_grad()
def figures(
    run: Inference,
    x: Any,
    samples: int | None,
    look: Callable[[Any], dict[str, Tensor]] | None = None,
    given: Conditioned | None = None,
) -> dict[str, Tensor]:
    """Figures of each observation of a batch, `(batch,)` each.

    Draws from torch's global generator.

    Args:
        run: a model and its sampler.
        x: a batch of observations.
        samples: structures drawn for each; None leaves the sampler out.
        look: makes further figures, `(batch,)` each, of the structures drawn.
        given: `run.target.given(x)`, where it is at hand.

    Returns:
        units: how many units an observation has (tokens of a sentence, say).
        log_p: log likelihood in nats of the model: exact where it offers `log_marginal`, else the
            sampler's bound. Absent without either.
        bound: the sampler's importance-weighted lower bound of that likelihood.
        elbo_gap: `log p~(x)` less the ELBO, in nats: the divergence of the sampler from what it
            aims at, the model's posterior or the rewarded one. Where `log p~(x)` is not exact it
            is the importance-weighted bound of the same samples, and cannot see what the sampler
            never draws.
        free_gap: the divergence of the sampler from the whole of `p~`, observations included, where
            it builds these too.
        ess: effective samples as a share of all; it cannot see that either.
        missed: nats by which samples that stray find more (see `Posterior.missed`), where
            `log p~(x)` is not exact.
        log_z, log_z_error: log Z and its standard error in nats, where the model estimates it
            (`EnergyModel.estimated_log_partition`).
    """
    model, target = run.model, run.target
    target.on_step(int(run.m_updates))
    given = target.given(x) if given is None else given
    posterior = run.posterior(x, given) if run.has_policy and samples is not None else None
    found = {"units": model.units(x)}
    exact = given.log_marginal() if target.offers("log_marginal") else None
    log_p = exact
    if target is not model:
        log_p = given.normalised().log_marginal() if model.offers("log_marginal") else None
    if posterior is not None and samples is not None:
        z, log_weights = posterior.log_weights(samples)
        total = importance_weighted(log_weights) if exact is None else exact
        if not _complete(run, x):
            found["elbo_gap"] = total - elbo(log_weights)
            found["ess"] = effective_sample_size(log_weights) / samples
        found["bound"] = importance_weighted(posterior.model_weights(z, log_weights))
        found |= {} if look is None else look(z)
        if exact is None:  # gap and effective samples are of its own samples alone
            missed = posterior.missed(log_weights, samples)
            found |= {} if missed is None else {"missed": missed}
        log_p = found["bound"] if log_p is None else log_p
    log_z = model.log_partition() if model.offers("log_partition") else None
    if log_z is None and model.offers("estimated_log_partition"):
        log_z, error = model.estimated_log_partition()
        found["log_z"], found["log_z_error"] = log_z.expand(len(x)), error.expand(len(x))
    if posterior is not None and samples is not None and run.space.offers("free"):
        log_z = _free(run, x, samples, log_z, found)
    if log_p is not None and log_z is not None:  # exact, or a sampler to bound it with
        found["log_p"] = log_p - log_z
        if "bound" in found:
            found["bound"] = found["bound"] - log_z
    return {name: value.double().cpu() for name, value in found.items()}


def _free(
    run: Inference, x: Any, samples: int, log_z: Tensor | None, found: dict[str, Tensor]
) -> Tensor:
    """`()` log Z in nats: exact where it is given, else as the sampler's draws of everything tell.

    Their gap is added to what was found.
    """
    count = min(samples * len(x), _DRAWS)
    log_weights = run.posterior(run.space.free(x)).log_weights(count)[1]
    total = importance_weighted(log_weights)[0] if log_z is None else log_z
    found["free_gap"] = (total - elbo(log_weights)[0]).expand(len(x))
    return total


def _complete(run: Inference, x: Any) -> bool:
    """Whether observations leave nothing to be built."""
    space = run.space
    return space.offers("free") and bool(space.is_final(space.initial_state(x, 1)).all())


def joined(parts: Sequence[dict[str, Tensor]]) -> dict[str, Tensor]:
    """The figures of all batches in one, `(observations,)` each."""
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}


def summary(parts: Sequence[dict[str, Tensor]]) -> dict[str, Tensor]:
    """`()` means of `elbo_gap`, `ess` and `missed` an observation, and `nll` in nats a unit.

    Args:
        parts: what `figures` gave for each batch.
    """
    if not parts:
        return {}
    total = joined(parts)
    report = {name: total[name].mean() for name in MEANS if name in total}
    if "log_p" in total:
        report["nll"] = -total["log_p"].sum() / total["units"].sum()
    return report

"""One way to measure a run: for validation, `evaluate`, reports and scripts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from gfnem.estimates import effective_sample_size, elbo, importance_weighted
from gfnem.running.trained import Inference
from gfnem.target import Conditioned, Target

#: figures that are means over observations
MEANS = ("elbo_gap", "ess", "missed")


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
        ess: effective samples as a share of all; it cannot see that either.
        missed: nats by which samples that stray find more (see `Posterior.missed`), where
            `log p~(x)` is not exact.
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
        found["elbo_gap"] = total - elbo(log_weights)
        found["ess"] = effective_sample_size(log_weights) / samples
        found["bound"] = importance_weighted(posterior.model_weights(z, log_weights))
        found |= {} if look is None else look(z)
        if exact is None:  # gap and effective samples are of its own samples alone
            missed = posterior.missed(log_weights, samples)
            found |= {} if missed is None else {"missed": missed}
        log_p = found["bound"] if log_p is None else log_p
    if log_p is not None:  # exact inference, or a sampler to bound it with
        found["log_p"] = log_p - _log_partition(run, model, x, samples)
    return {name: value.double().cpu() for name, value in found.items()}


def _log_partition(run: Inference, model: Target, x: Any, samples: int | None) -> Tensor:
    """`()` log Z in nats: exact, or as the sampler's own draws of everything tell.

    Raises:
        NotOffered: if neither is to be had.
    """
    if model.offers("log_partition") or samples is None or not run.has_policy:
        return model.log_partition()
    free = run.posterior(run.space.free(x))
    return importance_weighted(free.log_weights(samples * len(x))[1])[0]


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

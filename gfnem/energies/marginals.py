"""What is known of a row: its log marginal, by the sampler's flows and by its own draws."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from gfnem.estimates import importance_weighted


@dataclass
class Estimate:
    """Log sums or log probabilities with error bars.

    Attributes:
        value: `(batch,)` nats: exact, or from weighted completions of the sampler.
        error: `(batch,)` standard error, 0 where exact.
        learned: `(batch,)` what the sampler's flows say; None where it learns none.
    """

    value: Tensor
    error: Tensor
    learned: Tensor | None


@torch.no_grad()
def log_sum(run: Any, x: Tensor, samples: int = 1024) -> Estimate:
    """The log of the sum of p~ over all completions of rows `(batch, visible)`; -1 is open.

    Args:
        run: an energy and its sampler (a `Run`, or what has `posterior`).
        x: the rows; one of which nothing is known gives log Z.
        samples: completions drawn for each, where the sum is not exact.
    """
    posterior = run.posterior(x)
    learned = posterior.log_z()
    if posterior.given.offers("log_marginal") and _few(run.model, x):
        value = posterior.given.log_marginal()
        return Estimate(value, torch.zeros_like(value), learned)
    parts = max(1, min(samples, 2**20 // max(len(x) * run.model.variables, 1)))
    weights = [posterior.log_weights(parts)[1] for _ in range(math.ceil(samples / parts))]
    log_weights = torch.cat(weights, 1)
    value = importance_weighted(log_weights)
    # the delta method: relative error of the mean of the weights
    relative = (log_weights - value[:, None]).exp()
    error = relative.std(1) / math.sqrt(relative.shape[1])
    return Estimate(value, error, learned)


def _few(model: Any, x: Tensor) -> bool:
    """Whether what is open of rows can be summed over."""
    return model.sums_over(int((x < 0).sum(1).max()) if len(x) else 0)


@torch.no_grad()
def log_z(run: Any, samples: int = 4096) -> Estimate:
    """log Z in nats: exact where the energy offers it, else by the sampler's draws.

    Args:
        run: an energy and its sampler.
        samples: rows drawn, where it is not exact.
    """
    device = next(run.model.parameters()).device
    if run.model.offers("log_partition"):
        return Estimate(run.model.log_partition()[None], torch.zeros(1, device=device), None)
    nothing = torch.full((1, run.model.visible), -1, device=device)
    return log_sum(run, nothing, samples)


@torch.no_grad()
def marginal(
    run: Any,
    x: Tensor,
    known: Tensor | None = None,
    samples: int = 1024,
    total: Estimate | None = None,
) -> Estimate:
    """`log p(x_A)` in nats of what is known of rows, with error bars.

    Args:
        run: an energy and its sampler.
        x: `(batch, visible)` rows; -1 is not known.
        known: `(batch, visible)` or `(visible,)` bool: which of the entries to look at; all if
            None.
        samples: completions drawn for each row.
        total: log Z, where it is there already.
    """
    if known is not None:
        x = torch.where(known.to(x.device), x, -1)
    total = log_z(run) if total is None else total
    found = log_sum(run, x, samples)
    learned = None
    if found.learned is not None:
        own = run.posterior(torch.full_like(x[:1], -1)).log_z()
        learned = found.learned - own
    error = (found.error.square() + total.error.square()).sqrt()
    return Estimate(found.value - total.value, error, learned)

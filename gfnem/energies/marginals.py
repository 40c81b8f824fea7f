"""What is known of a row: its log marginal, by the sampler's flows and by its own draws."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


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
def log_sum(
    run: Any, x: Tensor, samples: int = 1024, tolerance: float = 0.01, most: int = 16
) -> Estimate:
    """The log of the sum of p~ over all completions of rows `(batch, visible)`; -1 is open.

    Args:
        run: an energy and its sampler (a `Run`, or what has `posterior`).
        x: the rows; one of which nothing is known gives log Z.
        samples, tolerance, most: as of `weighted_sum`, where the sum is not exact.
    """
    posterior = run.posterior(x)
    learned = posterior.log_z()
    if posterior.given.offers("log_marginal") and _few(run.model, x):
        value = posterior.given.log_marginal()
        return Estimate(value, torch.zeros_like(value), learned)
    return Estimate(*weighted_sum(run, x, samples, tolerance, most), learned)


@torch.no_grad()
def weighted_sum(
    run: Any, x: Tensor, samples: int, tolerance: float = 0.01, most: int = 16
) -> tuple[Tensor, Tensor]:
    """`log_sum` by the sampler's weighted completions, more of them where weights are spread.

    Args:
        run, x: as of `log_sum`.
        samples: completions drawn for each row at first.
        tolerance: rows with a larger error bar, in nats, get twice as many, again and again.
        most: so many times `samples` at most.

    Returns:
        `(batch,)` values and `(batch,)` standard errors.
    """
    sums = x.new_full((2, len(x)), -torch.inf, dtype=torch.double)  # log of weights, and of squares
    rows, drawn = torch.arange(len(x), device=x.device), 0
    value, error = sums[0].clone(), torch.full_like(sums[0], torch.inf)
    while len(rows) and drawn < most * samples:
        wanted = max(drawn, samples)
        most_at_once = max(1, 2**20 // (len(rows) * run.model.variables))
        posterior, left = run.posterior(x[rows]), wanted
        while left:
            weights = posterior.log_weights(min(left, most_at_once))[1].double()
            left -= weights.shape[1]
            found = torch.stack([weights.logsumexp(1), (2 * weights).logsumexp(1)])
            sums[:, rows] = torch.logaddexp(sums[:, rows], found)
        drawn += wanted
        value[rows] = sums[0, rows] - math.log(drawn)
        # the delta method: relative error of the mean of the weights
        if drawn > 1:  # one alone does not show how weights spread
            spread = drawn * (sums[1, rows] - 2 * sums[0, rows]).exp() - 1
            error[rows] = (spread.clamp(min=0) / (drawn - 1)).sqrt()
        rows = rows[error[rows] > tolerance]
    return value.float(), error.float()


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
    tolerance: float = 0.01,
) -> Estimate:
    """`log p(x_A)` in nats of what is known of rows, with error bars.

    Args:
        run: an energy and its sampler.
        x: `(batch, visible)` rows; -1 is not known.
        known: `(batch, visible)` or `(visible,)` bool: which of the entries to look at; all if
            None.
        samples: completions drawn for each row, and up to 16 times as many where weights spread.
        total: log Z, where it is there already.
        tolerance: error bar, in nats, of a row that needs no more.
    """
    if known is not None:
        x = torch.where(known.to(x.device), x, -1)
    total = log_z(run) if total is None else total
    found = log_sum(run, x, samples, tolerance)
    learned = None
    if found.learned is not None:
        own = run.posterior(torch.full_like(x[:1], -1)).log_z()
        learned = found.learned - own
    error = (found.error.square() + total.error.square()).sqrt()
    return Estimate(found.value - total.value, error, learned)

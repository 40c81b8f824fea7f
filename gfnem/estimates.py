"""What samples of a posterior tell about `p(x)` and about the sampler itself."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor


def log_sum(values: Sequence[float]) -> float:
    """Log of the sum of numbers given by their logs; minus infinity for none."""
    greatest = max(values, default=-math.inf)
    if not math.isfinite(greatest):
        return greatest
    return greatest + math.log(sum(math.exp(value - greatest) for value in values))


def total_variation(
    log_p: Float[Tensor, "*#x outcomes"], log_q: Float[Tensor, "*#x outcomes"]
) -> Tensor:
    """`(...)` half the absolute difference of distributions given by logs `(..., outcomes)`."""
    return (log_p.exp() - log_q.exp()).abs().sum(-1) / 2


def jensen_shannon(
    log_p: Float[Tensor, "*#x outcomes"], log_q: Float[Tensor, "*#x outcomes"]
) -> Tensor:
    """`(...)` nats between distributions given by logs `(..., outcomes)`: from 0 to log 2."""
    log_m = torch.logaddexp(log_p, log_q) - math.log(2.0)
    divergences = [
        (one.exp() * (one - log_m).nan_to_num(neginf=0.0)).sum(-1) for one in (log_p, log_q)
    ]
    return (divergences[0] + divergences[1]) / 2


def elbo(log_weights: Float[Tensor, "*x samples"]) -> Float[Tensor, "*x"]:
    """Evidence lower bound in nats: mean log weight over the last axis of `(..., samples)`."""
    return log_weights.mean(-1)


def importance_weighted(log_weights: Float[Tensor, "*x samples"]) -> Float[Tensor, "*x"]:
    """`log 1/K sum_k w_k` in nats over the last axis of `(..., samples)`.

    A bound that tightens with `K` (Burda et al. 2016, eq. 8).
    """
    return log_weights.logsumexp(-1) - math.log(log_weights.shape[-1])


def effective_sample_size(log_weights: Float[Tensor, "*x samples"]) -> Float[Tensor, "*x"]:
    """`(sum w)^2 / sum w^2` over the last axis of `(..., samples)`, from 1 to `K` (Kong 1992)."""
    weights = log_weights.softmax(-1)
    return 1 / weights.square().sum(-1)


@dataclass
class LogMarginal:
    """An estimate of `log p(x)`.

    Attributes:
        value: `(batch,)` nats. In expectation a lower bound unless `exact`.
        effective_samples: `(batch,)` of the importance weights; NaN where exact.
        samples: how many samples were drawn for each `x`; 0 where exact.
        exact: whether `value` is exact inference.
    """

    value: Float[Tensor, " batch"]
    effective_samples: Float[Tensor, " batch"]
    samples: int
    exact: bool = False

    @classmethod
    def from_exact(cls, value: Float[Tensor, " batch"]) -> LogMarginal:
        """Wraps an exact `(batch,)` log marginal."""
        return cls(value, torch.full_like(value, torch.nan), 0, True)

    @classmethod
    def from_weights(cls, log_weights: Float[Tensor, "batch samples"]) -> LogMarginal:
        """The importance-weighted estimate from `(batch, samples)` log weights."""
        return cls(
            importance_weighted(log_weights),
            effective_sample_size(log_weights),
            log_weights.shape[-1],
        )

"""Exact inference and exact EM for the mixture, for any number of runs at once."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def log_joint_table(x: Tensor, means: Tensor, offsets: Tensor, sd: float) -> Tensor:
    """`(..., points, clusters, petals)` of `log p(x, z)` in nats for every `z`.

    Args:
        x: `(..., points, 2)`; leading axes are separate runs.
        means: `(..., clusters, 2)`.
        offsets: `(petals, 2)`.
        sd: standard deviation of a petal.
    """
    centres = (means.unsqueeze(-2) + offsets).unsqueeze(-4)
    square = (x.unsqueeze(-2).unsqueeze(-2) - centres).square().sum(-1)
    choices = means.shape[-2] * len(offsets)
    return -square / (2 * sd**2) - math.log(choices * 2 * math.pi * sd**2)


def normalise(log_table: Tensor) -> Tensor:
    """Posterior probabilities from a table of log joints, over its last two axes."""
    return log_table.flatten(-2).softmax(-1).unflatten(-1, log_table.shape[-2:])


def updated_means(means: Tensor, offsets: Tensor, x: Tensor, weights: Tensor) -> Tensor:
    """The M-step: means that maximise the expected log joint under given posteriors.

    Args:
        means: `(..., clusters, 2)`, kept where a super-cluster has no weight.
        offsets: `(petals, 2)`.
        x: `(..., points, 2)`.
        weights: `(..., points, clusters, petals)` posterior probabilities.
    """
    total = weights.sum((-3, -1)).unsqueeze(-1)
    moved = weights.sum(-1).mT @ x - weights.sum(-3) @ offsets
    return torch.where(total > 1e-6, moved / total.clamp(min=1e-6), means)


def exact_em(
    x: Tensor, means: Tensor, offsets: Tensor, sd: float, iterations: int = 200
) -> tuple[Tensor, Tensor]:
    """Exact EM in closed form.

    Args:
        x, means, offsets, sd: as for `log_joint_table`.
        iterations: E- and M-steps.

    Returns:
        The learned means and the log marginals `(..., iterations)`, nats a point, that the means
        had before each M-step. They never fall.
    """
    history = []
    for _ in range(iterations):
        table = log_joint_table(x, means, offsets, sd)
        history.append(table.logsumexp((-2, -1)).mean(-1))
        means = updated_means(means, offsets, x, normalise(table))
    return means, torch.stack(history, -1)

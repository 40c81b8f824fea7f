"""Variational EM with a posterior that treats super-cluster and petal as independent."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from gfnem.mixtures.exact import log_joint_table, updated_means


@dataclass
class MeanFieldRun:
    """Result of `mean_field_em`, for any number of runs at once.

    Attributes:
        means: `(..., clusters, 2)` learned.
        cluster: `(..., points, clusters)` `q(i)` of each point.
        petal: `(..., points, petals)` `q(j)` of each point.
        elbo: `(..., iterations)` bound on the log marginal, nats a point, after each E-step.
    """

    means: Tensor
    cluster: Tensor
    petal: Tensor
    elbo: Tensor


def mean_field_em(
    x: Tensor,
    means: Tensor,
    offsets: Tensor,
    sd: float,
    iterations: int = 200,
    sweeps: int = 5,
    afresh: bool = False,
) -> MeanFieldRun:
    """Coordinate-ascent variational EM with `q(i, j) = q(i) q(j)` for each point.

    The factors of each E-step start from those of the last one, the first from a uniform `q(j)`
    (Bishop 2006, eq. 10.9, for the updates), so the bound never falls.

    Args:
        x: `(..., points, 2)`; leading axes are separate runs.
        means: `(..., clusters, 2)` to start from.
        offsets: `(petals, 2)`.
        sd: standard deviation of a petal.
        iterations: E- and M-steps.
        sweeps: updates of both factors in an E-step.
        afresh: start every E-step from a uniform `q(j)`: early commitments are given up more
            easily, but the bound may fall.
    """
    petal = x.new_full((*x.shape[:-1], len(offsets)), 1 / len(offsets))
    elbos = []
    for _ in range(iterations):
        log_joint = log_joint_table(x, means, offsets, sd)
        if afresh:
            petal = torch.full_like(petal, 1 / len(offsets))
        for _ in range(sweeps):
            cluster = torch.einsum("...ij,...j->...i", log_joint, petal).softmax(-1)
            petal = torch.einsum("...ij,...i->...j", log_joint, cluster).softmax(-1)
        both = cluster.unsqueeze(-1) * petal.unsqueeze(-2)
        entropy = torch.special.entr(cluster).sum(-1) + torch.special.entr(petal).sum(-1)
        elbos.append(((both * log_joint).sum((-2, -1)) + entropy).mean(-1))
        means = updated_means(means, offsets, x, both)
    return MeanFieldRun(means, cluster, petal, torch.stack(elbos, -1))

"""The hierarchical mixture: a super-cluster, one of its petals, and a Gaussian around that."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from gfnem.mixtures.exact import log_joint_table, normalise, updated_means
from gfnem.mixtures.space import PetalState
from gfnem.ranges import Count, Finite, Positive
from gfnem.target import GenerativeModel


def petal_offsets(petals: int, distance: float = 1.0) -> Tensor:
    """`(petals, 2)` places evenly spaced on a circle of radius `distance`, first at angle 0."""
    angle = torch.arange(petals) * (2 * math.pi / petals)
    return distance * torch.stack([angle.cos(), angle.sin()], 1)


class PetalMixture(GenerativeModel[Tensor, Tensor]):
    """`p(x, z)` of points in the plane with `z = (super-cluster, petal)`, both uniform.

    `x` is Gaussian around the super-cluster's mean plus the petal's fixed offset; only the
    super-clusters' means are learned. The model of the hierarchical mixture experiment of
    GFlowNet-EM (Hu et al. 2023, arXiv 2302.06576). Points are `(batch, 2)`, latents
    `(batch, samples, 2)` int64.

    Args:
        initial_means: one `[x, y]` for each super-cluster (a data module supplies data points).
        petals: petals of a super-cluster, evenly spaced around its mean.
        distance: from the mean to each petal.
        sd: standard deviation of a petal, the same in both directions.

    Raises:
        ValueError: if means are missing or not pairs, or a size is not positive.
    """

    unit = "point"

    def __init__(
        self,
        initial_means: Sequence[Sequence[Finite]] | None = None,
        petals: Count = 4,
        distance: Positive = 1.0,
        sd: Positive = 0.25,
    ):
        super().__init__()
        means = torch.tensor([] if initial_means is None else initial_means, dtype=torch.float)
        if means.dim() != 2 or means.shape[1] != 2:
            raise ValueError("initial_means must be one [x, y] pair for each super-cluster")
        self.clusters, self.petals, self.sd = len(means), petals, float(sd)
        self.means = nn.Parameter(means)
        self.register_buffer("offsets", petal_offsets(petals, distance))

    def log_joint(self, x: Tensor, z: Tensor) -> Tensor:
        """`(batch, samples)` log density in nats of points `x` with latents `z`."""
        centre = self.means[z[..., 0]] + self.offsets[z[..., 1]]
        return _log_normal(x[:, None], centre, self.sd**2) - math.log(self.clusters * self.petals)

    def log_table(self, x: Tensor) -> Tensor:
        """`(batch, clusters, petals)` of `log p(x, z)` in nats for every `z`."""
        return log_joint_table(x, self.means, self.offsets, self.sd)

    def log_marginal(self, x: Tensor) -> Tensor:
        """`(batch,)` exact `log p(x)` in nats."""
        return self.log_table(x).logsumexp((1, 2))

    def exact_posterior(self, x: Tensor) -> Tensor:
        """`(batch, clusters, petals)` exact `p(z|x)`."""
        return normalise(self.log_table(x))

    def partial_log_joint(self, x: Tensor, state: PetalState) -> Tensor:
        """`(batch, samples)` credit of partial choices: `log_joint` itself once both are made.

        What is still open is summed out by moment matching: `x` is taken as an isotropic Gaussian
        around the mean of the open choices' centres, wider by their variance.
        """
        means, offsets = self.means, self.offsets
        no_cluster, no_petal = state.cluster < 0, state.petal < 0
        cluster_mean = means[state.cluster.clamp(min=0)]
        petal_mean = offsets[state.petal.clamp(min=0)]
        centre = torch.where(no_cluster.unsqueeze(-1), means.mean(0), cluster_mean)
        centre = centre + torch.where(no_petal.unsqueeze(-1), offsets.mean(0), petal_mean)
        variance = (
            self.sd**2
            + no_cluster * means.var(0, correction=0).mean()
            + no_petal * offsets.var(0, correction=0).mean()
        )
        prior = -(~no_cluster * math.log(self.clusters) + ~no_petal * math.log(self.petals))
        return prior + _log_normal(x[:, None], centre, variance)

    def sample(self, count: int) -> tuple[Tensor, Tensor]:
        """`count` draws: points `(count, 2)` and latents `(count, 1, 2)`."""
        device = self.means.device
        cluster = torch.randint(self.clusters, (count,), device=device)
        petal = torch.randint(self.petals, (count,), device=device)
        centre = self.means.detach()[cluster] + self.offsets[petal]
        x = centre + self.sd * torch.randn(count, 2, device=device)
        return x, torch.stack([cluster, petal], 1)[:, None]

    @torch.no_grad()
    def em_step(self, x: Tensor) -> None:
        """One step of exact EM on the points `x`, in closed form.

        Each mean becomes the average of `x - offset`, weighted by the exact posterior; the mean of
        a super-cluster that no point belongs to stays where it is.
        """
        self.means.copy_(updated_means(self.means, self.offsets, x, self.exact_posterior(x)))


def _log_normal(x: Tensor, centre: Tensor, variance: float | Tensor) -> Tensor:
    """Log density in nats of an isotropic Gaussian in the plane."""
    variance = torch.as_tensor(variance, dtype=x.dtype, device=x.device)
    square = (x - centre).square().sum(-1)
    return -square / (2 * variance) - variance.log() - math.log(2 * math.pi)

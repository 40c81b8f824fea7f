"""Choosing a super-cluster and a petal, one after the other."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from gfnem.batched import Batched
from gfnem.ranges import Count
from gfnem.space import LatentSpace


@dataclass
class PetalState(Batched):
    """What has been chosen so far.

    Attributes:
        cluster: `(batch, samples)` int64 super-cluster, -1 while open.
        petal: `(batch, samples)` int64 petal, -1 while open.
    """

    cluster: Tensor
    petal: Tensor


class PetalSpace(LatentSpace[Tensor, Tensor, PetalState]):
    """`z = (super-cluster, petal)`, latents `(batch, samples, 2)` int64, in two steps.

    Forward action `a < clusters` chooses super-cluster `a`, the others petal `a - clusters`.
    Backward action 0 reopens the super-cluster, 1 the petal.

    Args:
        clusters: how many super-clusters there are.
        petals: how many petals each has.
        order: "cluster_first" gives each `z` one trajectory; "either" lets the petal come first as
            well, which gives each `z` two, and the backward policy a choice.

    Raises:
        ValueError: if `order` is neither, or a number is below 1.
    """

    def __init__(self, clusters: Count = 4, petals: Count = 4, order: str = "cluster_first"):
        if order not in ("cluster_first", "either"):
            raise ValueError(f"order is cluster_first or either, not {order!r}")
        self.clusters, self.petals, self.order = clusters, petals, order
        self.unique_trajectory = order == "cluster_first"

    def initial_state(self, x: Tensor, samples: int) -> PetalState:
        """Nothing chosen."""
        nothing = torch.full((len(x), samples), -1, device=x.device)
        return PetalState(nothing, nothing)

    def final_state(self, x: Tensor, z: Tensor) -> PetalState:
        """Both chosen."""
        return PetalState(z[..., 0], z[..., 1])

    def to_latent(self, x: Tensor, state: PetalState) -> Tensor:
        """`(batch, samples, 2)` int64."""
        return torch.stack([state.cluster, state.petal], -1)

    def is_final(self, state: PetalState) -> Tensor:
        """Whether both are chosen."""
        return (state.cluster >= 0) & (state.petal >= 0)

    def is_initial(self, state: PetalState) -> Tensor:
        """Whether neither is chosen."""
        return (state.cluster < 0) & (state.petal < 0)

    def forward_mask(self, state: PetalState) -> Tensor:
        """`(batch, samples, clusters + petals)`: values of what is open."""
        cluster, petal = state.cluster < 0, state.petal < 0
        if self.unique_trajectory:
            petal = petal & ~cluster
        return torch.cat(
            [
                cluster.unsqueeze(-1).expand(*cluster.shape, self.clusters),
                petal.unsqueeze(-1).expand(*petal.shape, self.petals),
            ],
            -1,
        )

    def backward_mask(self, state: PetalState) -> Tensor:
        """`(batch, samples, 2)`: what can be reopened."""
        cluster, petal = state.cluster >= 0, state.petal >= 0
        if self.unique_trajectory:
            cluster = cluster & ~petal
        return torch.stack([cluster, petal], -1)

    def step(self, state: PetalState, action: Tensor) -> PetalState:
        """Chooses."""
        is_cluster = action < self.clusters
        return PetalState(
            torch.where(is_cluster, action, state.cluster),
            torch.where(is_cluster, state.petal, action - self.clusters),
        )

    def unstep(self, state: PetalState, action: Tensor) -> PetalState:
        """Reopens."""
        return PetalState(
            torch.where(action == 0, -1, state.cluster), torch.where(action == 1, -1, state.petal)
        )

    def backward_action(self, state: PetalState, action: Tensor) -> Tensor:
        """0 for a super-cluster, 1 for a petal."""
        return (action >= self.clusters).long()

    def forward_action(self, state: PetalState, action: Tensor) -> Tensor:
        """The value that is about to be reopened."""
        redo = torch.where(action == 0, state.cluster, state.petal + self.clusters)
        return redo.clamp(min=0)  # of an open choice there is nothing to redo

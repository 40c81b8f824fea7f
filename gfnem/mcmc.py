"""Small random changes of a latent structure, for samplers that walk from one to the next."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from functools import partial
from typing import Generic

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from gfnem.batched import X, Z, choose, each
from gfnem.component import Component
from gfnem.target import Conditioned


class LocalMoves(Component, ABC, Generic[X, Z]):
    """A proposal distribution over the neighbours of a structure."""

    def given(self, given: Conditioned[X, Z]) -> LocalMoves[X, Z]:
        """The moves for a target with its observations (`Target.given`): these, by default.

        Proposals that look at the target, such as Gibbs sampling, are made here.
        """
        return self

    @abstractmethod
    def initial(self, x: X, samples: int) -> Z:
        """Structures to start from, leading axes `(batch, samples)`."""

    @abstractmethod
    def propose(self, x: X, z: Z) -> tuple[Z, Float[Tensor, "batch samples"]]:
        """A random neighbour of each structure.

        Returns:
            The neighbours, and `(batch, samples)` `log Q(z|z') - log Q(z'|z)` in nats; -inf where
            there is no neighbour to go to (the structure is then returned as it is).
        """


#: how a proposal is accepted: `(batch, samples)` bool, from the log of the ratio of Hastings
ACCEPTANCES: dict[
    str, Callable[[Float[Tensor, "batch samples"]], Bool[Tensor, "batch samples"]]
] = {
    "metropolis": lambda log_ratio: torch.rand_like(log_ratio).log() < log_ratio,
    "barker": lambda log_ratio: torch.rand_like(log_ratio) < log_ratio.sigmoid(),
}


@torch.no_grad()
def metropolis(
    moves: LocalMoves[X, Z],
    log_joint: Callable[[Z], Float[Tensor, "batch samples"]],
    x: X,
    z: Z,
    steps: int,
    acceptance: str = "metropolis",
) -> tuple[Z, Float[Tensor, "batch samples"], Float[Tensor, "batch samples"]]:
    """A Metropolis-Hastings chain from each structure (Hastings 1970), all side by side.

    Args:
        moves: proposes.
        log_joint: `(batch, samples)` nats of structures; the chains' stationary distribution.
        x: observations.
        z: where the chains start.
        steps: proposals to each chain.
        acceptance: "metropolis" accepts with probability `min(1, r)`, "barker" with `r / (1 + r)`
            (Barker 1965), which leaves the distribution as it is too and accepts less.

    Returns:
        Where the chains end, their log joint, and `(batch, samples)` share of accepted proposals.
    """
    value = log_joint(z)
    accepted = torch.zeros_like(value)
    for _ in range(steps):
        new, log_ratio = moves.propose(x, z)
        new_value = log_joint(new)
        accept = ACCEPTANCES[acceptance](new_value - value + log_ratio)
        z, value = each(partial(choose, accept), [new, new_value], [z, value])
        accepted += accept
    return z, value, accepted / max(steps, 1)

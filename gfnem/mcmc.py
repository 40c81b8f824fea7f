"""Small random changes of a latent structure, for samplers that walk from one to the next."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from gfnem.batched import choose, each
from gfnem.component import Component


class LocalMoves(Component, ABC):
    """A proposal distribution over the neighbours of a structure."""

    @abstractmethod
    def initial(self, x: Any, samples: int) -> Any:
        """Structures to start from, leading axes `(batch, samples)`."""

    @abstractmethod
    def propose(self, x: Any, z: Any) -> tuple[Any, Tensor]:
        """A random neighbour of each structure.

        Returns:
            The neighbours, and `(batch, samples)` `log Q(z|z') - log Q(z'|z)` in nats; -inf where
            there is no neighbour to go to (the structure is then returned as it is).
        """


@torch.no_grad()
def metropolis(
    moves: LocalMoves, log_joint: Callable[[Any], Tensor], x: Any, z: Any, steps: int
) -> tuple[Any, Tensor, Tensor]:
    """A Metropolis-Hastings chain from each structure (Hastings 1970), all side by side.

    Args:
        moves: proposes.
        log_joint: `(batch, samples)` nats of structures; the chains' stationary distribution.
        x: observations.
        z: where the chains start.
        steps: proposals to each chain.

    Returns:
        Where the chains end, their log joint, and `(batch, samples)` share of accepted proposals.
    """
    value = log_joint(z)
    accepted = torch.zeros_like(value)
    for _ in range(steps):
        new, log_ratio = moves.propose(x, z)
        new_value = log_joint(new)
        accept = torch.rand_like(value).log() < new_value - value + log_ratio
        z, value = each(partial(choose, accept), [new, new_value], [z, value])
        accepted += accept
    return z, value, accepted / max(steps, 1)

"""Rewards whose structures can all be listed."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

import torch
from torch import Tensor

from gfnem.offers import optional
from gfnem.target import Target


class ToyReward(Target[Tensor, Any]):
    """`R(z)`, the same for every observation; a subclass writes `log_reward` and `every`.

    Observations `(batch,)` int64 number independent copies of one sampler, which are trained side
    by side.
    """

    unit = "copy"

    @abstractmethod
    def log_reward(self, z: Any) -> Tensor:
        """`(...)` log R in nats of structures of leading axes `...`."""

    @abstractmethod
    def every(self, device: torch.device | str = "cpu") -> Any:
        """All structures, leading axis `(objects,)`."""

    @optional
    def mode_of(self, z: Any) -> Tensor:
        """`(...)` int64 the number of the mode that each structure belongs to; -1 for none."""
        ...

    def log_joint(self, x: Tensor, z: Any) -> Tensor:
        """`(batch, samples)` log R."""
        return self.log_reward(z)

    def log_marginal(self, x: Tensor) -> Tensor:
        """`(batch,)` exact log Z."""
        total = self.log_reward(self.every(x.device)).double().logsumexp(0)
        return total.float().expand(len(x))

    @torch.no_grad()
    def sample_posterior(self, x: Tensor, samples: int) -> Any:
        """`(batch, samples, ...)` exact draws."""
        every = self.every(x.device)
        weights = self.log_reward(every).softmax(0).expand(len(x), -1)
        return every[torch.multinomial(weights, samples, replacement=True)]

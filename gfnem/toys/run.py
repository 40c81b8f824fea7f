"""A trained sampler of a small world."""

from __future__ import annotations

from typing import Any

import torch

from gfnem.errors import UserError
from gfnem.running.run import Run


class ToyRun(Run):
    """A reward and its sampler."""

    @torch.no_grad()
    def sample(self, n: int = 5) -> list[dict[str, Any]]:
        """Draws of the first copy: `{"observation": 0, "latent": ..., "log_joint": ...}` each.

        `log_joint` is log R in nats.

        Raises:
            UserError: if `n` is less than 1.
        """
        if n < 1:
            raise UserError(f"sample({n}): ask for one or more")
        x = torch.zeros(1, dtype=torch.long, device=self.device)
        z = self.posterior(x).sample(n)
        observed = self.world.observed(self, x)
        latents = self.world.latents(self, observed, z)[0]
        values = self.model.log_joint(x, z)[0].tolist()
        return [
            {"observation": 0, "latent": latent, "log_joint": value}
            for latent, value in zip(latents, values, strict=True)
        ]

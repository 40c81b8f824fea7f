"""A trained energy: rows drawn by its sampler, and marginals of what is known."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import torch

from gfnem.component import build
from gfnem.energies.coding import Coding
from gfnem.energies.marginals import Estimate, log_z, marginal
from gfnem.errors import UserError
from gfnem.running.run import Run
from gfnem.world import Observed


class EnergyRun(Run):
    """An energy and its sampler.

    Attributes:
        coding: how plain data become rows.
    """

    @cached_property
    def coding(self) -> Coding:
        """How plain data become rows."""
        return build(self.metadata["coding"], Coding)

    @property
    def nothing(self) -> torch.Tensor:
        """`(1, visible)` a row of which nothing is known."""
        return torch.full((1, self.coding.visible), -1, device=self.device)

    def infer_batch(self, observed: Observed, k: int, samples: int) -> list[dict[str, Any]]:
        """As of any run; `log_marginal` is normalised, `log_joint` is the energy's log p~.

        `log Z` is exact where the energy offers it, else as the sampler's own draws tell.
        """
        records = super().infer_batch(observed, k, samples)
        if not (self.has_policy or self.model.offers("log_partition")):
            return records
        exact = self.model.offers("log_partition")
        log_z = self.log_partition.value.item()
        return [
            {**record, "log_marginal": record["log_marginal"] - log_z,
             "exact": record["exact"] and exact}
            for record in records
        ]  # fmt: skip

    @cached_property
    def log_partition(self) -> Estimate:
        """log Z in nats, with its error bar: exact, or by 4,096 draws of the sampler."""
        return log_z(self)

    def marginal(
        self, x: Any, known: Any = None, samples: int = 1024, tolerance: float = 0.01
    ) -> list[dict[str, Any]]:
        """`log p(x_A)` of what is known of rows, with error bars.

        Args:
            x: rows as the run's world reads them, missing entries included, or a tensor of rows.
            known: `(visible,)` or `(rows, visible)` truth values: which variables to look at; all
                that are not missing if None.
            samples: completions drawn by the sampler for each row where no sum is exact.
            tolerance: rows with a larger error bar get up to 16 times as many.

        Returns:
            For each row `{"observation": ..., "log_p": ..., "error": ..., "learned": ...}` in nats:
            the estimate, its standard error (0 where exact), and what the sampler's flows say.
        """
        rows = x if isinstance(x, torch.Tensor) else self.coding.read(x)
        rows = rows.to(self.device)
        if known is not None:
            rows = torch.where(torch.as_tensor(known, device=self.device).bool(), rows, -1)
        found = marginal(self, rows, samples=samples, total=self.log_partition, tolerance=tolerance)
        learned = [None] * len(rows) if found.learned is None else found.learned.tolist()
        shown = self.coding.shown(rows)
        columns = shown, found.value.tolist(), found.error.tolist(), learned
        return [
            dict(zip(("observation", "log_p", "error", "learned"), entry, strict=True))
            for entry in zip(*columns, strict=True)
        ]

    @torch.no_grad()
    def sample(self, n: int = 5) -> list[dict[str, Any]]:
        """Draws of the sampler: `{"observation": ..., "latent": ..., "log_joint": ...}` each.

        `log_joint` is the energy's log p~ in nats.

        Raises:
            UserError: if no sampler was trained.
        """
        if n < 1:
            raise UserError(f"sample({n}): ask for one or more")
        if not self.has_policy:
            raise UserError(f"{self.path}: trained without a sampler, which draws rows")
        z = self.model.filled(self.posterior(self.nothing).sample(n)[0])
        x = z[:, : self.coding.visible]
        observed = self.world.observed(self, x)
        latents = self.world.latents(self, observed, z[:, None])
        values = self.model.log_joint(x, z[:, None])[:, 0].tolist()
        return [
            {"observation": shown, "latent": latent[0], "log_joint": value}
            for shown, latent, value in zip(observed.shown, latents, values, strict=True)
        ]

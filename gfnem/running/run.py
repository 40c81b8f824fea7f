"""A trained run as its user meets it: plain data in, plain data out."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from gfnem.errors import UserError
from gfnem.estimates import importance_weighted, log_sum
from gfnem.evaluation import figures, summary
from gfnem.running.trained import Trained

if TYPE_CHECKING:
    from gfnem.data import DataModule
    from gfnem.world import Observed, World


class Run(Trained):
    """A trained model and its sampler, with the world that they were trained in.

    Attributes:
        world: says how plain data become observations, and latents plain data.
        path: the checkpoint that it was read from.
    """

    world: World
    path: Path

    def __repr__(self) -> str:
        parts = type(self.model).__name__, type(self.policy).__name__
        return f"{type(self).__name__}({str(self.path)!r}: {', '.join(parts)})"

    def infer(self, x: Any, k: int = 5, samples: int = 64) -> list[dict[str, Any]]:
        """The most probable latents of observations.

        Args:
            x: plain data of the run's world (for text a sentence or a list of them), or the
                `pathlib.Path` of a file.
            k: most latents of each observation.
            samples: latents drawn for each observation, of which the most probable are returned.

        Returns:
            For each observation `{"observation": ..., "log_marginal": ..., "exact": ...,
            "latents": [{"latent": ..., "log_prob": ..., "log_joint": ...}, ...]}`, the most
            probable latent first. `log_prob` is `log p(z|x)` in nats, `log_joint` is `log p(x, z)`,
            `exact` says whether `log_marginal`, which is `log p(x)`, is exact or estimated from
            the samples. An observation that has no latent keeps its place: its `latents` are
            empty, both others None, and `why` says so in words.

        Raises:
            UserError: if the data are unusable, the run has no sampler, or `k` or `samples` is 0.
        """
        return list(self.inferences(x, k, samples))

    def inferences(self, x: Any, k: int = 5, samples: int = 64) -> Iterator[dict[str, Any]]:
        """What `infer` returns, one by one as the data are read."""
        if k < 1 or samples < 1:
            raise UserError(f"k={k}, samples={samples}: at least 1 is needed")
        for observed in self.world.read(self, x):
            records = [] if observed.x is None else self.infer_batch(observed, k, samples)
            for place, (shown, why) in sorted(observed.without.items()):
                nothing = {"log_marginal": None, "exact": None, "latents": [], "why": why}
                records.insert(place, {"observation": shown, **nothing})
            yield from records

    @torch.no_grad()
    def infer_batch(self, observed: Observed, k: int, samples: int) -> list[dict[str, Any]]:
        """What `infer` returns of the observations that have latents."""
        drawn, log_marginal, exact = self._draw(observed.x, max(samples, k))
        found: list[dict[str, tuple[float, Any]]] = [{} for _ in observed.shown]
        for z in (drawn, *self.world.likely(self, observed.x)):
            log_joint = self.model.log_joint(observed.x, z).tolist()
            latents = self.world.latents(self, observed, z)
            for different, *row in zip(found, latents, log_joint, strict=True):
                for latent, value in zip(*row, strict=True):
                    different.setdefault(json.dumps(latent), (value, latent))
        records = []
        for different, shown, log_p in zip(
            found, observed.shown, log_marginal.tolist(), strict=True
        ):
            ranked = sorted(different.values(), key=lambda pair: -pair[0])
            if not exact:  # what is certain: log p(x) is no less than of the latents seen
                log_p = max(log_p, log_sum([value for value, _ in ranked]))
            latents = [
                {"latent": latent, "log_prob": value - log_p, "log_joint": value}
                for value, latent in ranked[:k]
            ]
            records.append(
                {"observation": shown, "log_marginal": log_p, "exact": exact, "latents": latents}
            )
        return records

    def _draw(self, x: Any, samples: int) -> tuple[Any, Tensor, bool]:
        """Latents of each `x`, `(batch,)` `log p(x)`, and whether that is exact."""
        offers, given = self.model.offers, self.model.given(x)
        exact = offers("log_marginal")
        if self.has_policy:
            posterior = self.posterior(x)
            z, log_weights = posterior.log_weights(samples)
            if exact:
                return z, given.log_marginal(), self.model.marginal_is_exact
            return z, importance_weighted(posterior.model_weights(z, log_weights)), False
        if not (exact and offers("sample_posterior")):
            raise UserError(
                f"{self.path}: {type(self.model).__name__} was trained without a sampler, and has "
                "no exact posterior to draw from"
            )
        z, log_marginal = given.sample_posterior(samples), given.log_marginal()
        return z, log_marginal, self.model.marginal_is_exact

    @torch.no_grad()
    def sample(self, n: int = 5) -> list[dict[str, Any]]:
        """Draws of the model: `{"observation": ..., "latent": ..., "log_joint": ...}` each.

        In a world with one data set these are `latent_draws` given that data set.

        Raises:
            UserError: if the model cannot sample.
        """
        if n < 1:
            raise UserError(f"sample({n}): ask for one or more")
        return self.world.sample(self, n)

    @torch.no_grad()
    def latent_draws(self, observed: Observed, n: int) -> list[dict[str, Any]]:
        """Independent draws of the latents of one observation.

        Args:
            observed: a batch of one observation.
            n: how many.

        Returns:
            `{"observation": ..., "latent": ..., "log_prob": ..., "log_joint": ..., "log_sampler":
            ...}` each, in nats. The first logs are as of `infer`. `log_sampler` is the log
            probability with which the sampler draws the latent, an estimate where a latent has
            several trajectories; None where no sampler was trained and draws are exact.
        """
        z, log_marginal, exact = self._draw(observed.x, n)
        log_joint = self.model.log_joint(observed.x, z)[0].tolist()
        log_p = float(log_marginal[0])
        if not exact:
            log_p = max(log_p, max(log_joint))
        log_sampler: list[float | None] = [None] * n
        if self.has_policy:
            log_sampler = self.posterior(observed.x).log_prob(z)[0].tolist()
        latents = self.world.latents(self, observed, z)[0]
        rows = zip(latents, log_joint, log_sampler, strict=True)
        return [
            {
                "observation": observed.shown[0],
                "latent": latent,
                "log_prob": joint - log_p,
                "log_joint": joint,
                "log_sampler": own,
            }
            for latent, joint, own in rows
        ]

    def evaluate(self, data: Any = None, seed: int = 0, **flags: Any) -> dict[str, Any]:
        """The figures of `gfnem evaluate`.

        Args:
            data: the path of data to evaluate on; None for what the run held out.
            seed: of the samples; torch's global generator is left as it was.
            flags: those of the command, as `samples=100`.

        Raises:
            UserError: if the data are unusable.
        """
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return self.world.evaluate(self, None if data is None else str(data), **flags)

    def data(self) -> DataModule:
        """The data that the run was trained on, read again.

        Raises:
            UserError: if they are not there any more.
        """
        from gfnem.running.runs import read_config
        from gfnem.running.training import build_data
        from gfnem.running.trust import opening, signature_of

        config = read_config(self.path)
        with opening(config, signature_of(self.path)):
            return build_data(config)


def measured(run: Run, batches: Iterable[Any], samples: int) -> dict[str, Any]:
    """Likelihood and the sampler's quality on batches of observations.

    Args:
        run: the trained run.
        batches: observations.
        samples: importance samples for each.

    Returns:
        `observations`, `exact` (whether `nll` is) and the figures of `gfnem.evaluation.summary`.

    Raises:
        UserError: if there is no observation, or nothing to measure the run with.
    """
    if not (run.has_policy or run.model.offers("log_marginal")):
        raise UserError(f"{run.path}: neither a sampler nor an exact likelihood to evaluate")
    parts = [figures(run, x.to(run.device), samples) for x in batches]
    count = sum(len(part["units"]) for part in parts)
    if not count:
        raise UserError("nothing to evaluate on: name data, or other data, with --data")
    found = {name: float(value) for name, value in summary(parts).items()}
    model = run.model
    exact = model.offers("log_marginal") and model.offers("log_partition")
    exact = exact and model.marginal_is_exact
    return {"observations": count, "exact": exact, "nll": found.pop("nll"), **found}

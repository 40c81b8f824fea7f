"""The trained sampler as a distribution over latent structures."""

from __future__ import annotations

import math
from typing import Any, Generic

import torch
from jaxtyping import Float
from torch import Tensor

from gfnem.batched import X, Z
from gfnem.estimates import LogMarginal, importance_weighted
from gfnem.policy import Policy
from gfnem.sampling import Exploration
from gfnem.space import LatentSpace, Trajectories
from gfnem.target import Conditioned, Target


class Posterior(Generic[X, Z]):
    """`q(z|x)` for one batch of observations, without autograd.

    Args:
        target: what the sampler aims at: a model, or one times a reward.
        space: the latent space.
        policy: the trained sampler.
        x: a batch of observations; it is encoded once.
        given: `target.given(x)`, where it is at hand.
    """

    def __init__(
        self,
        target: Target[X, Z],
        space: LatentSpace[X, Z, Any],
        policy: Policy[X, Z, Any, Any],
        x: X,
        given: Conditioned[X, Z] | None = None,
    ):
        self.target, self.space, self.policy, self.x = target, space, policy, x
        self.model = target.normalised()
        training = policy.training
        policy.eval()  # no dropout, also where training goes on afterwards
        with torch.no_grad():
            self.given = target.given(x) if given is None else given
            self.context = policy.encode(x, self.given)
        policy.train(training)

    def sample(self, shape: int | tuple[int, ...] = (1,), temperature: float = 1.0) -> Z:
        """Draws latents, leading axes `(batch, samples)`.

        Args:
            shape: the number of samples for each `x`, an int or a 1-tuple.
            temperature: below 1 sharpens the policy, above 1 flattens it.
        """
        return self.trajectories(shape, Exploration(temperature)).latent

    @torch.no_grad()
    def log_prob(self, z: Z, paths: int = 16) -> Float[Tensor, "batch samples"]:
        """`(batch, samples)` `log q(z|x)` in nats.

        Exact where a structure has one trajectory. In a DAG it is an importance-weighted estimate
        from `paths` trajectories drawn backwards from `z`, a lower bound in expectation.
        """
        rounds = 1 if self.policy.unique_trajectory(self.space) else paths
        estimates = []
        for _ in range(rounds):
            trajectories = self.policy.retrace(self.context, self.x, self.space, z)
            scores = self.policy.score(self.context, self.space, trajectories)
            estimates.append(scores.log_pf.sum(2) - scores.log_pb.sum(2))
        stacked = torch.stack(estimates)
        return stacked.logsumexp(0) - math.log(rounds)

    @torch.no_grad()
    def log_weights(self, samples: int) -> tuple[Z, Float[Tensor, "batch samples"]]:
        """Draws `samples` latents for each `x`, with log importance weights `(batch, samples)`.

        The weight is `p~(x, z) P_B(tau|z) / P_F(tau)`; its mean is an unbiased estimate of the sum
        of `p~(x, z)` over all `z`.
        """
        trajectories = self.trajectories(samples)
        scores = self.policy.score(self.context, self.space, trajectories)
        log_joint = self.given.log_joint(trajectories.latent)
        return trajectories.latent, log_joint - scores.log_pf.sum(2) + scores.log_pb.sum(2)

    @torch.no_grad()
    def model_weights(
        self, z: Z, log_weights: Float[Tensor, "batch samples"]
    ) -> Float[Tensor, "batch samples"]:
        """`(batch, samples)` the log weights with the model alone in place of the target.

        The mean of the weights is an unbiased estimate of `p(x)`.

        Args:
            z, log_weights: what `log_weights` gave.
        """
        if self.target is self.model:
            return log_weights
        return log_weights - self.given.log_joint(z) + self.given.normalised().log_joint(z)

    @torch.no_grad()
    def missed(
        self, log_weights: Float[Tensor, "batch samples"], samples: int, epsilon: float = 0.2
    ) -> Float[Tensor, " batch"] | None:
        """`(batch,)` nats by which samples that stray find a greater `log p(x)` than its own.

        A sampler that has collapsed onto a part of the posterior cannot tell from its own samples:
        they fit it well. Samples of which each step is drawn uniformly with probability `epsilon`
        reach the rest. Both sides are importance-weighted; well above 0, the sampler misses much.

        Args:
            log_weights: of the sampler's own samples, from `log_weights`.
            samples: how many to draw for each `x`.
            epsilon: how much they stray.

        Returns:
            None where the policy does not report how probable its explored samples are.
        """
        trajectories = self.trajectories(samples, Exploration(1.0, epsilon))
        if trajectories.log_behaviour is None:
            return None
        log_joint = self.given.log_joint(trajectories.latent)
        scores = self.policy.score(self.context, self.space, trajectories)
        strayed = log_joint + scores.log_pb.sum(2) - trajectories.log_behaviour
        return importance_weighted(strayed) - importance_weighted(log_weights)

    @torch.no_grad()
    def log_marginal(self, samples: int | None = None) -> LogMarginal:
        """`log p(x)` of the model in nats, with how it was computed.

        Args:
            samples: importance samples for each `x`. None asks for exact inference where the model
                offers it, and for 64 samples where not.
        """
        if samples is None and self.model.offers("log_marginal"):
            return LogMarginal.from_exact(self.given.normalised().log_marginal())
        return LogMarginal.from_weights(self.model_weights(*self.log_weights(samples or 64)))

    @torch.no_grad()
    def marginal(self) -> Tensor:
        """`(batch, ...)` how probable each part of a structure is, from the sampler's flows.

        Exact for the sampler, without drawing (`Policy.marginals`).

        Raises:
            NotOffered: if the policy does not know.
        """
        return self.policy.marginals(self.context)

    def log_z(self) -> Float[Tensor, " batch"] | None:
        """`(batch,)` the policy's own learned `log Z(x)` in nats; None if it has none."""
        if not self.policy.offers("log_z"):
            return None
        with torch.no_grad():
            return self.policy.log_z(self.context)

    def trajectories(
        self, shape: int | tuple[int, ...], exploration: Exploration | None = None
    ) -> Trajectories[Z, Any]:
        """Draws trajectories, leading axes `(batch, samples)`.

        Args:
            shape: as of `sample`.
            exploration: how they stray from the policy.
        """
        samples = shape if isinstance(shape, int) else shape[0] if len(shape) == 1 else None
        if samples is None or samples < 1:
            raise ValueError(f"ask for k >= 1 samples of each x, as k or (k,), not {shape}")
        return self.policy.sample(self.context, self.x, self.space, samples, exploration)

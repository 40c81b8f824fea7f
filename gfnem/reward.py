"""Rewards: what a structure is worth beside its likelihood."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, Generic

import torch
from jaxtyping import Bool, Float, Num
from torch import Tensor, nn

from gfnem.batched import X, Z
from gfnem.component import Component
from gfnem.offers import NotOffered, Offering, optional
from gfnem.ranges import NotNegative
from gfnem.schedules import Anneal, value_at
from gfnem.target import Conditioned, Target


class Reward(Component, Offering, nn.Module, ABC, Generic[X, Z]):
    """A score `s(x, z)` that the E-step adds to the model's: `log p~ = log p(x, z) + w s(x, z)`.

    The sampler is trained towards the sum, and the M-step climbs the model's own likelihood on its
    samples: posterior regularisation (Ganchev et al. 2010, "Posterior regularization for structured
    latent variable models"). Likelihoods that are reported are the model's.

    Args:
        weight: the `w`; a number, or an `Anneal` over M-updates.

    Attributes:
        of_collapsed: whether all structures that a model's `collapsed_log_joint` sums over have one
            score.
        of_samples: whether observations that the model itself draws may have a score other than 0.
    """

    of_collapsed: bool = False
    of_samples: bool = True

    def __init__(self, weight: NotNegative | Anneal = 1.0):
        super().__init__()
        self.weight = weight

    @abstractmethod
    def forward(self, x: X, z: Z) -> Float[Tensor, "batch samples"]:
        """`(batch, samples)` scores in nats, without gradient.

        Args:
            x: a batch of observations, leading axis `(batch,)`.
            z: latents, leading axes `(batch, samples)`.
        """

    @optional
    def parts(self, x: X) -> Any:
        """Scores of the parts that structures are made of, where `s` is the sum over these.

        What they look like is the latent space's matter (spans of a sentence, say). A model that
        offers `tilted` then keeps its exact inference. Optional.
        """
        ...

    @optional
    def hint(self, x: X) -> Any:
        """Scores of parts whose sum comes close to `s`, where the sum itself is no sum of parts.

        A sampler that can starts from them. Optional.
        """
        ...

    @optional
    def partial(self, x: X, state: Any) -> Float[Tensor, "batch samples"]:
        """`(batch, samples)` what a partial structure already has of its score. Optional.

        It must equal the score at final states; see `Target.partial_log_joint`.
        """
        ...

    def observe(self, x: X, z: Z) -> None:
        """Told of the structures that each M-step learns from, for rewards that learn as well.

        Args:
            x: a batch of observations.
            z: latents, leading axes `(batch, samples)`.
        """

    def prepare(self, data: Any) -> None:
        """Reads what the reward must know of the training data, once, before training.

        Args:
            data: the run's `DataModule`.

        Raises:
            UserError: if the data are not of the kind that it needs.
        """
        return

    def summary(self) -> str:
        """A line for people: what it is, and what was read for it."""
        return f"reward {type(self).__name__}"

    def weight_at(self, m_updates: int) -> float:
        """The weight after so many M-updates."""
        return value_at(self.weight, m_updates)


class Rewarded(Target[X, Z]):
    """A model times a reward: `log p~(x, z) = log p(x, z) + w s(x, z)`.

    This is what the E-step of a run with a reward aims at. It is not normalised. Where the reward
    adds over parts, and the model can take these in (`Target.tilted`), inference stays exact.

    Args:
        model: the `p(x, z)`.
        reward: the `s`.
    """

    listed = False  # a run has a model and a reward

    def __init__(self, model: Target[X, Z], reward: Reward[X, Z]):
        super().__init__()
        if not (isinstance(model, Target) and isinstance(reward, Reward)):
            raise ValueError(
                "Rewarded takes a model and a reward, not "
                f"{type(model).__name__} and {type(reward).__name__}"
            )
        self.model, self.reward = model, reward
        self.unit = model.unit
        self._weight = reward.weight_at(0)

    @property
    def weight(self) -> float:
        """How much the reward counts at present."""
        return self._weight

    @property
    def by_parts(self) -> bool:
        """Whether the reward adds over parts that the model can take in."""
        return self.reward.offers("parts") and self.model.offers("tilted")

    def offers(self, hook: str) -> bool:
        """What the model offers and the reward leaves true."""
        keeps = {
            "tilted": False,
            "moves": False,
            "log_marginal": self.by_parts,
            "sample_posterior": self.by_parts,
            "partial_log_joint": self.by_parts or self.reward.offers("partial"),
            "collapsed_log_joint": self.reward.of_collapsed,
            "sample": not self.reward.of_samples,
        }
        return keeps.get(hook, True) and self.model.offers(hook)

    def called(self) -> str:
        """What it is called in errors."""
        return f"{self.model.called()} rewarded by {self.reward.called()}"

    def _ask(self, hook: str) -> None:
        if not self.offers(hook):
            raise NotOffered(f"{self.called()} offers no {hook}")

    def on_step(self, m_updates: int) -> None:
        """Sets the weight for so many M-updates."""
        self._weight = self.reward.weight_at(m_updates)
        self.model.on_step(m_updates)

    def given(self, x: X) -> Conditioned[X, Z]:
        """Model and reward, given a batch."""
        if self.by_parts:
            return self.model.tilted(x, self._weight * self.reward.parts(x))
        guide = self.model.given(x)
        if self.reward.offers("hint") and self.model.offers("tilted"):
            guide = self.model.tilted(x, self._weight * self.reward.hint(x))
        return GivenRewarded(self, x, guide)

    @torch.no_grad()
    def score(self, x: X, z: Z) -> Float[Tensor, "batch samples"]:
        """`(batch, samples)` `w s(x, z)` in nats, without gradient."""
        return self._weight * self.reward(x, z)

    def log_joint(self, x: X, z: Z) -> Float[Tensor, "batch samples"]:
        """`(batch, samples)` `log p~(x, z)` in nats."""
        return self.given(x).log_joint(z)

    def partial_log_joint(self, x: X, state: Any) -> Float[Tensor, "batch samples"]:
        """`(batch, samples)`; see `Target.partial_log_joint`."""
        self._ask("partial_log_joint")
        return self.given(x).partial_log_joint(state)

    def collapsed_log_joint(self, x: X, z: Z) -> Float[Tensor, "batch samples"]:
        """`(batch, samples)`; see `Target.collapsed_log_joint`."""
        self._ask("collapsed_log_joint")
        return self.given(x).collapsed_log_joint(z)

    def log_marginal(self, x: X) -> Float[Tensor, " batch"]:
        """`(batch,)` exact `log p~(x)` in nats."""
        self._ask("log_marginal")
        return self.given(x).log_marginal()

    def sample_posterior(self, x: X, samples: int) -> Z:
        """Exact draws of the rewarded posterior."""
        self._ask("sample_posterior")
        return self.given(x).sample_posterior(samples)

    def sample(self, count: int) -> tuple[X, Z]:
        """The model's draws, of which the reward knows nothing."""
        self._ask("sample")
        return self.model.sample(count)

    def normalised(self) -> Target[X, Z]:
        """The model."""
        return self.model.normalised()

    def in_support(self, x: X) -> Bool[Tensor, " batch"]:
        """`(batch,)` the model's: rewards are finite."""
        return self.model.in_support(x)

    def facts(self) -> dict[str, Any]:
        """The model's."""
        return self.model.facts()

    def units(self, x: X) -> Num[Tensor, " batch"]:
        """`(batch,)` the model's."""
        return self.model.units(x)


class GivenRewarded(Conditioned[X, Z]):
    """A model and a reward that is a black box, given observations.

    Args:
        target: the two.
        x: a batch of observations.
        guide: what samplers are told of, beside what every target has: the model alone, or with
            parts that come close to the reward.
    """

    target: Rewarded[X, Z]

    def __init__(self, target: Rewarded[X, Z], x: X, guide: Conditioned[X, Z]):
        super().__init__(target, x)
        self._model, self._guide = target.model.given(x), guide

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__dict__["_guide"], name)

    def normalised(self) -> Conditioned[X, Z]:
        """The model, given the same batch."""
        return self._model.normalised()

    def log_joint(self, z: Z) -> Float[Tensor, "batch samples"]:
        """`(batch, samples)` `log p~(x, z)` in nats."""
        return self._model.log_joint(z) + self.target.score(self.x, z)

    def collapsed_log_joint(self, z: Z) -> Float[Tensor, "batch samples"]:
        """`(batch, samples)` the model's, and the reward, which is the same for all of them."""
        return self._model.collapsed_log_joint(z) + self.target.score(self.x, z)

    def partial_log_joint(self, state: Any) -> Float[Tensor, "batch samples"]:
        """`(batch, samples)` what a state determines of both."""
        with torch.no_grad():
            reward = self.target.weight * self.target.reward.partial(self.x, state)
        return self._model.partial_log_joint(state) + reward


def rewarded(model: Target[X, Z], reward: Reward[X, Z] | None) -> Target[X, Z]:
    """What a sampler aims at: the model, times a reward where there is one."""
    return model if reward is None else Rewarded(model, reward)

"""Trained runs, opened for inference: nothing here needs what training needs.

`Inference` is what every trained module offers; `Trained` is a run read back from its checkpoint.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from gfnem.component import build
from gfnem.policy import Policy
from gfnem.posterior import Posterior
from gfnem.reward import Reward, rewarded
from gfnem.space import LatentSpace
from gfnem.target import Conditioned, Target

#: where a checkpoint's weights hold the counts of updates
CLOCK = "em.clock._extra_state"


class Inference:
    """What a model and its sampler offer together, in training and after it.

    Attributes:
        model: the joint `p(x, z)`.
        space: how a structure is built.
        policy: the sampler.
        has_policy: whether a sampler is trained at all (a recipe may need none).
        metadata: plain data that checkpoints carry (vocabulary, how text was read).
        m_updates: how often the model has been updated.
        reward: what the sampler was rewarded with beside the model's likelihood; None if nothing.
        target: what the sampler aims at: the model, times the reward where there is one.
    """

    model: Target
    space: LatentSpace
    policy: Policy
    has_policy: bool
    metadata: dict[str, Any]
    m_updates: Any
    reward: Reward | None
    target: Target

    def posterior(self, x: Any, given: Conditioned | None = None) -> Posterior:
        """The sampler's `q(z|x)` for a batch of observations.

        Args:
            x: the observations.
            given: `self.target.given(x)`, where it is at hand.
        """
        self.target.on_step(int(self.m_updates))
        return Posterior(self.target, self.space, self.policy, x, given)


class Trained(Inference, nn.Module):
    """A trained model and its sampler, for inference alone.

    Args:
        model, space, policy, reward: components, or their `Component.spec()`.
        has_policy: whether the sampler has been trained.
        metadata: plain data that the checkpoint carries.
        m_updates: how often the model has been updated.

    Raises:
        UserError: if a component cannot be made.
    """

    def __init__(
        self,
        model: Target | Mapping,
        space: LatentSpace | Mapping,
        policy: Policy | Mapping,
        has_policy: bool = True,
        metadata: dict[str, Any] | None = None,
        m_updates: int = 0,
        reward: Reward | Mapping | None = None,
    ):
        super().__init__()
        self.model: Target = build(model, Target)
        self.reward: Reward | None = build(reward, Reward)
        self._target = (rewarded(self.model, self.reward),)  # its parts are registered already
        self.space: LatentSpace = build(space, LatentSpace)
        self.policy: Policy = build(policy, Policy)
        self.policy.serve(self.model)
        self.has_policy, self.metadata, self.m_updates = has_policy, metadata or {}, m_updates
        self.target.on_step(m_updates)

    @property
    def target(self) -> Target:
        """What the sampler aims at."""
        return self._target[0]

    @classmethod
    def from_checkpoint(cls, content: Mapping[str, Any]) -> Trained:
        """The run in a checkpoint (see `gfnem.running.runs.read_checkpoint`), its parameters fixed.

        Raises:
            UserError: if a component cannot be made.
            RuntimeError, TypeError, AttributeError, KeyError, ValueError: if weights or arguments
                do not fit.
        """
        arguments, state = content["hyper_parameters"], content["state_dict"]
        names = ("model", "space", "policy", "metadata", "reward")
        run = cls(
            **{name: arguments[name] for name in names if name in arguments},
            has_policy=bool(content.get("has_policy", True)),
            m_updates=int(state[CLOCK]["m_updates"]),
        )
        for part in ("model", "policy", *(["reward"] if run.reward is not None else [])):
            prefix = f"em.{part}."
            weights = {
                name.removeprefix(prefix): value
                for name, value in state.items()
                if name.startswith(prefix)
            }
            getattr(run, part).load_state_dict(weights)
        return run.requires_grad_(False).eval()

    @property
    def device(self) -> torch.device:
        """Where the parameters are."""
        return next(self.parameters(), torch.empty(0)).device

"""The proof of a reward."""

from __future__ import annotations

from typing import Any
from unittest import SkipTest

import torch

from gfnem.reward import Reward, Rewarded
from gfnem.target import Target
from gfnem.testing.common import close
from gfnem.testing.target import TargetTestCase


class RewardTestCase(TargetTestCase):
    """Proves a reward, and the target that it makes of a model (see `TargetTestCase`).

    Supply `make_reward`, `make_model`, `make_x` and `make_latents`; `enumerate_latents` where you
    can: exact inference is then held against the sum over all latents.
    """

    def make_reward(self) -> Reward:
        """The reward, ready to be asked."""
        raise NotImplementedError

    def make_model(self) -> Target:
        """A model whose latents it judges, with random parameters."""
        raise NotImplementedError

    def make_target(self) -> Rewarded:
        """The model times the reward."""
        return Rewarded(self.make_model(), self.make_reward())

    def test_scores_are_finite_numbers_without_gradient(self):
        """A score for each sample, `(batch, samples)`, which trains nothing of the model."""
        target, x, z = self._target()
        assert isinstance(target, Rewarded)
        score = target.score(x, z)
        assert score.shape == target.model.log_joint(x, z).shape, f"scores of shape {score.shape}"
        assert torch.isfinite(score).all()
        assert not score.requires_grad

    @torch.no_grad()
    def test_the_whole_is_the_model_and_the_weighted_reward(self):
        """Also where the reward is told by its parts: their sum is what `forward` says."""
        target, x, z = self._target()
        assert isinstance(target, Rewarded)
        expected = target.model.log_joint(x, z) + target.weight * target.reward(x, z)
        close(target.log_joint(x, z), expected, self.tolerance, "log p~(x, z)")

    @torch.no_grad()
    def test_collapsed_latents_have_one_score(self):
        """What `collapsed_log_joint` sums over has the same score, as `of_collapsed` promises."""
        target, x, _ = self._target()
        assert isinstance(target, Rewarded)
        latents: list[Any] = [self.enumerate_latents(self.take(x, row)) for row in range(len(x))]
        if any(z is None for z in latents) or not target.offers("collapsed_log_joint"):
            raise SkipTest("no collapsed_log_joint, or no enumerate_latents")
        for row, z in enumerate(latents):
            single = self.take(x, row)
            collapsed, score = target.model.collapsed_log_joint(single, z), target.score(single, z)
            for value in collapsed[0].unique():
                same = score[0][collapsed[0] == value]
                close(same, same[:1].expand_as(same), self.tolerance, f"scores of row {row}")

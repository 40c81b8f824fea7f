"""Trajectory balance of sentences and of their trees apart."""

from __future__ import annotations

from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor

from gfnem.batch import Batch
from gfnem.objectives import huber
from gfnem.parsing.generation.sampler import SentenceSampler
from gfnem.parsing.generation.strings import Strings
from gfnem.phases import POLICY, Phase
from gfnem.ranges import NotNegative, PartialShare, Positive
from gfnem.schedules import Anneal, value_at
from gfnem.sources import Source
from gfnem.space import LatentSpace
from gfnem.target import Target


class SplitBalance(Phase):
    """Trajectory balance (Malkin et al. 2022, eq. 14) of a sentence and of its tree apart.

    With the sampler's exact probability of sentences the residual of a trajectory is the sum of

        log Z + log P_F(sentence) - log R(sentence)
        log P_F(tree, given the sentence) - log P_B(tree, given the sentence),

    and the losses of both are added up. The first does not depend on the tree, so that the trees
    that were drawn make no noise in what the sampler learns of sentences; it is taken of any
    sentences. Of the second, `r` counts `sqrt(1 + r^2) - 1`: a few bad trees do not drown the
    others. It is taken of the trees that the sampler's own sentences were drawn with, and of as
    many that `P_B` draws for them.

    Args:
        own: sentences of the sampler, with their trees.
        data: other sentences; none if None.
        share: weight of those, beside `1 - share` of the sampler's own.
        reward_temperature: the `T` in `R^(1/T)`.
        parsing: weight of the surprise of `P_B` at the trees of the sampler's own sentences, beside
            the balance.
        imitation: weight of the sampler's surprise at the data, beside their balance.
    """

    trains = POLICY

    def __init__(
        self,
        own: Source,
        data: Source | None = None,
        share: PartialShare = 0.5,
        reward_temperature: Positive | Anneal = 1.0,
        parsing: NotNegative | Anneal = 0.0,
        imitation: NotNegative | Anneal = 0.0,
    ):
        super().__init__()
        self.own, self.data, self.share = own, data, share
        self.reward_temperature, self.parsing, self.imitation = (
            reward_temperature,
            parsing,
            imitation,
        )

    def check(self, model: Target, space: LatentSpace, policy: SentenceSampler) -> None:
        """What the sources need."""
        for source in (self.own, self.data):
            if source is not None:
                source.check(model, space, policy)

    def forward(self, batch: Batch) -> Float[Tensor, ""]:
        """`()` the mean over sentences."""
        policy = cast(SentenceSampler, batch.em.policy)
        temperature, parsing, imitation = (
            value_at(setting, batch.em.clock.now)
            for setting in (self.reward_temperature, self.parsing, self.imitation)
        )
        draws = [batch.draw(part) for part in (self.own, self.data) if part is not None]
        x, count = Strings.cat([part.z for part in draws]).sentences(), draws[0].z.lengths.numel()
        trees = draws[0].trajectories.choices
        log_p = log_pb = None
        if trees is None:
            log_sentence = policy.log_sentence(x)
        else:
            trees = trees.map(lambda tensor: tensor.flatten(0, 1)[:, None])
            log_sentence, log_p, log_pb = policy.apart(x, trees)
        log_reward = torch.cat([part.log_joint.flatten() for part in draws]) / temperature
        balance = (policy.log_z(batch.free.context) + log_sentence - log_reward).square()
        loss = balance[:count].mean()
        if log_p is not None:
            loss = loss + huber((log_p - log_pb).square()).sum(1).mean() / 2
        batch.figures["e_loss"] = loss.detach()
        if self.data is not None:
            others = balance[count:] - imitation * log_sentence[count:]
            loss = (1 - self.share) * loss + self.share * others.mean()
        if log_pb is not None and parsing:
            loss = loss - parsing * log_pb[:, 0].mean()
        return loss

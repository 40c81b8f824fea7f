"""Trajectory balance of sentences and of their trees apart."""

from __future__ import annotations

from typing import cast

from jaxtyping import Float
from torch import Tensor

from gfnem.batch import Batch, Draws
from gfnem.objectives import huber
from gfnem.parsing.generation.sampler import SentenceSampler
from gfnem.phases import POLICY, Phase
from gfnem.ranges import NotNegative, Positive
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
    that were drawn make no noise in what the sampler learns of sentences. Of the second, `r` counts
    `sqrt(1 + r^2) - 1`: a few bad trees do not drown the others. It is taken of the trees that the
    sentences were drawn with, and of as many that `P_B` draws for them.

    Args:
        source: where sentences and trees come from; any will do.
        reward_temperature: the `T` in `R^(1/T)`.
        trees: whether trees are balanced, or sentences alone.
        imitation: weight of the sampler's surprise at the sentences, beside the balance.
    """

    trains = POLICY

    def __init__(
        self,
        source: Source,
        reward_temperature: Positive | Anneal = 1.0,
        trees: bool = True,
        imitation: NotNegative | Anneal = 0.0,
    ):
        super().__init__()
        self.source, self.trees = source, trees
        self.reward_temperature, self.imitation = reward_temperature, imitation

    def check(self, model: Target, space: LatentSpace, policy: SentenceSampler) -> None:
        """What the source needs."""
        self.source.check(model, space, policy)

    def forward(self, batch: Batch) -> Float[Tensor, ""]:
        """`()` the mean over trajectories."""
        policy, draws = cast(SentenceSampler, batch.em.policy), batch.draw(self.source)
        temperature, imitation = (
            value_at(setting, batch.em.clock.now)
            for setting in (self.reward_temperature, self.imitation)
        )
        log_sentence = policy.log_sentence(draws.z.sentences()).view(draws.z.lengths.shape)
        level = policy.log_z(draws.batch.context)
        sentence = level[:, None] + log_sentence - draws.log_joint / temperature
        loss = sentence.square() - imitation * log_sentence
        if self.trees:
            parsed = Draws(draws.batch, draws.z)  # retraced by P_B
            for part in (draws, parsed):
                scores = part.scores()
                tree = scores.log_pf.sum(2) - log_sentence - scores.log_pb.sum(2)
                loss = loss + huber(tree.square()) / 2
            batch.figures["e_loss"] = loss.detach().mean()
        return loss.mean()

"""Policies that draw and score whole trees, all choices of all nodes together."""

from __future__ import annotations

from typing import Generic

import torch

from gfnem.batched import State
from gfnem.parsing.inference.choices import RuleChoices
from gfnem.parsing.inference.draws import draw_trees, score_choices
from gfnem.parsing.text.sentences import Sentences
from gfnem.parsing.trees.trees import Trees
from gfnem.policy import Policy, Scores
from gfnem.sampling import ON_POLICY, Exploration
from gfnem.space import LatentSpace, Trajectories


class WholeTreePolicy(Policy[Sentences, Trees, State, RuleChoices], Generic[State]):
    """A policy whose context is the weights of all choices: it need not visit single states."""

    @torch.no_grad()
    def sample(
        self,
        context: RuleChoices,
        x: Sentences,
        space: LatentSpace,
        samples: int,
        exploration: Exploration | None = None,
    ) -> Trajectories:
        """Draws trees, all open spans of all trees at once."""
        strays = exploration or ON_POLICY
        trees, log_behaviour = draw_trees(context, samples, strays.temperature, strays.epsilon)
        return Trajectories(trees, log_behaviour=log_behaviour)

    @torch.no_grad()
    def retrace(self, context: RuleChoices, x: Sentences, space: LatentSpace, latent: Trees):
        """A tree is its own trajectory."""
        zeros = context.root().new_zeros(latent.left.shape[:2])
        return Trajectories(latent, log_behaviour=zeros)

    def score(
        self,
        context: RuleChoices,
        space: LatentSpace,
        trajectories: Trajectories,
        flows: bool = False,
        forward_looking: bool = False,
    ) -> Scores:
        """Scores whole trees: the first step is the root's label, then node after node."""
        trees = trajectories.latent
        log_pf = score_choices(context, trees)
        mask = torch.cat([(trees.lengths > 1).unsqueeze(2), trees.mask()], 2)
        return Scores(log_pf, torch.zeros_like(log_pf), mask)

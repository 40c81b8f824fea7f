"""The sampler of sentences seen from the other end: its backward policy as a parser of text."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from gfnem.offers import NotOffered
from gfnem.parsing.generation.grammar_sampler import GrammarSampler
from gfnem.parsing.inference.choices import RuleChoices
from gfnem.parsing.inference.draws import draw_trees, score_choices
from gfnem.parsing.policies.whole_trees import WholeTreePolicy
from gfnem.parsing.text.sentences import Sentences
from gfnem.parsing.trees.trees import Trees
from gfnem.policy import Step
from gfnem.target import Conditioned, GenerativeModel


class Parsed(GenerativeModel[Sentences, Trees]):
    """Sentences of the sampler with trees of its parser: `p(x, z) = P_F(x) P_B(z | x)`.

    `P_F(x)` is exact: the trees of its trajectories are summed out.

    Args:
        sampler: the trained sampler.
    """

    listed = False
    unit = "token"

    def __init__(self, sampler: GrammarSampler):
        super().__init__()
        self.sampler = sampler
        self.vocab_size = sampler.grammar.vocab_size

    def log_joint(self, x: Sentences, z: Trees) -> Tensor:
        """`(batch, samples)` nats."""
        log_pb = score_choices(self.sampler.parses(x), z).sum(2)
        return self.log_marginal(x)[:, None] + log_pb

    def log_marginal(self, x: Sentences) -> Tensor:
        """`(batch,)` `log P_F(x)` in nats."""
        return self.sampler.log_sentence(x)

    @torch.no_grad()
    def sample_posterior(self, x: Sentences, samples: int) -> Trees:
        """Trees drawn by the parser."""
        return draw_trees(self.sampler.parses(x), samples)[0]

    @torch.no_grad()
    def sample(self, count: int) -> tuple[Sentences, Trees]:
        """Sentences of the sampler, each with the tree of its trajectory.

        Raises:
            RuntimeError: if fewer than one derivation in a thousand is short enough.
        """
        return self.sampler.derive(count)

    def names(self) -> list[str]:
        """The nonterminals' names."""
        return self.sampler.grammar.names()

    def facts(self) -> dict[str, Any]:
        """As of a grammar."""
        return self.sampler.grammar.facts()

    def units(self, x: Sentences) -> Tensor:
        """`(batch,)` tokens of each sentence."""
        return x.lengths


class Parser(WholeTreePolicy[object]):
    """`P_B` of a sampler of sentences as a policy over trees.

    Args:
        sampler: the trained sampler.
    """

    listed = False

    def __init__(self, sampler: GrammarSampler):
        super().__init__()
        self.sampler = sampler

    def encode(self, x: Sentences, given: Conditioned | None = None) -> RuleChoices:
        """The weights of all choices that build trees of the sentences."""
        return self.sampler.parses(x)

    def forward(self, context: RuleChoices, state: object) -> Step:
        """Refuses.

        Raises:
            NotOffered: whole trees are drawn and scored.
        """
        raise NotOffered("Parser goes by whole trees, not state by state")

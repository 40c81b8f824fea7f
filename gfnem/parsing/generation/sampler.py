"""What samplers of sentences have in common."""

from __future__ import annotations

from abc import abstractmethod
from typing import Generic

import torch
from torch import Tensor, nn

from gfnem.batched import State
from gfnem.parsing.generation.strings import Strings
from gfnem.parsing.text.sentences import Sentences
from gfnem.parsing.trees.trees import Trees
from gfnem.policy import Policy
from gfnem.target import Conditioned


class SentenceSampler(Policy[Sentences, Strings, State, Sentences], Generic[State]):
    """A policy that writes sentences from nothing, with a learned log Z."""

    log_z_parts = ("level",)

    def __init__(self):
        super().__init__()
        self.level = nn.Parameter(torch.zeros(()))

    def encode(self, x: Sentences, given: Conditioned | None = None) -> Sentences:
        """The observation: a sentence, or no words."""
        return x

    def log_z(self, context: Sentences) -> Tensor:
        """`(batch,)` the learned log Z, in nats."""
        return self.level.expand(len(context))

    @abstractmethod
    def log_sentence(self, x: Sentences) -> Tensor:
        """`(batch,)` exact log probability of sentences, in nats."""

    def apart(self, x: Sentences, trees: Trees) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """What the sampler says of sentences, and sampler and parser of trees of the first of them.

        Args:
            x: the sentences.
            trees: a tree of each of the first so many, `(count, 1)`.

        Returns:
            `(batch,)` `log_sentence`; `log P_F(tree, given the sentence)` and `log P_B(tree, given
            the sentence)`, `(count, 2)` each, of that tree and of one that `P_B` draws. All in
            nats; None for the latter two where there is nothing to learn.
        """
        return self.log_sentence(x), None, None

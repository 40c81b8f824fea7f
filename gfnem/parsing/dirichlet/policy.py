"""The policy over trees whose rules are unknown."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from gfnem.parsing.dirichlet.model import DirichletGrammar
from gfnem.parsing.dirichlet.space import Analyses, AnalysesSpace
from gfnem.policy import Policy, Step
from gfnem.ranges import Count


class AnalysesPolicy(Policy[Tensor, Tensor, Analyses, Any]):
    """Starts from how probable the next rule is, by the rules used so far.

    The network learns what the words to come have to say. The flow is the joint of the rules so far
    times what it learns, so `log Z` follows. It reads the words too, so that one policy may serve
    several data sets of one size.

    Args:
        nonterminals, preterminals, vocabulary: of the grammar; a model tells them.
        sentences, length: of a data set.
        hidden: width of the network.
    """

    def __init__(
        self,
        nonterminals: Count | None = None,
        preterminals: Count | None = None,
        vocabulary: Count | None = None,
        sentences: Count = 2,
        length: Count = 4,
        hidden: Count = 128,
    ):
        super().__init__()
        self.space = AnalysesSpace(nonterminals, preterminals, vocabulary)
        rules, self.words = self.space.rules, sentences * length
        self.sentences, self.length = sentences, length
        width = self.words * (rules.vocabulary + 1) + self.words + 1
        width += length * (rules.symbols + 1) + len(rules) + 2 * rules.symbols
        self.first = nn.Linear(width, hidden)
        self.second = nn.Linear(hidden, hidden)
        self.last = nn.Linear(hidden, rules.symbols + 1)
        nn.init.zeros_(self.last.weight)
        nn.init.zeros_(self.last.bias)

    def encode(self, x: Tensor, given: Any = None) -> Any:
        """The model, which knows the prior; the words are in the states."""
        model = None if given is None else given.target
        return x, model if isinstance(model, DirichletGrammar) else None

    def forward(self, context: Any, state: Analyses) -> Step:
        """Scores trees so far."""
        rules, like = self.space.rules, self.last.weight
        base = like.new_zeros(*state.read.shape, rules.symbols)
        reward = base[..., 0]
        model = context[1]
        if model is not None:
            with torch.no_grad():
                predictive = model.predictive(state.counts).to(like)
                used, last = self.space.used(state)
                base = predictive.gather(2, used)
                roots = nn.functional.pad(
                    predictive[..., : rules.nonterminals], (rules.preterminals, 0)
                )
                base = base + roots * last[..., None]
                reward = model.partial_log_joint(None, state).to(like)

        def one_hot(numbers: Tensor, size: int) -> Tensor:
            return nn.functional.one_hot(numbers, size).to(like)

        parts = [
            one_hot(state.words + 1, rules.vocabulary + 1).flatten(2),
            one_hot(state.read, self.words + 1),
            one_hot(state.stack + 1, rules.symbols + 1).flatten(2),
            state.counts.to(like).log1p(),
            base.exp(),
            base / 5,
        ]
        hidden = nn.functional.silu(self.first(torch.cat(parts, 2)))
        hidden = hidden + nn.functional.silu(self.second(hidden))
        output = self.last(hidden)
        return Step(base + output[..., :-1], None, reward + output[..., -1])

    def log_z(self, context: Any) -> Tensor:
        """`(batch,)` the flow through the start."""
        log_flow = self(context, self.space.initial_state(context[0], 1)).log_flow
        assert log_flow is not None
        return log_flow[:, 0]

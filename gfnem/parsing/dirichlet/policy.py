"""The policy over trees whose rules are unknown."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from gfnem.parsing.dirichlet.ahead import log_ahead
from gfnem.parsing.dirichlet.model import DirichletGrammar
from gfnem.parsing.dirichlet.space import Analyses, AnalysesSpace
from gfnem.policy import Policy, Step
from gfnem.ranges import Count


class AnalysesPolicy(Policy[Tensor, Tensor, Analyses, Any]):
    """Starts from what an inside pass says of each next state, rules as they are so far.

    The network learns how rules become more probable by the trees to come. The flow is the joint of
    the rules so far times that pass and what is learned, so `log Z` follows. It reads the words
    too, so that one policy may serve several data sets of one size.

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
        flow = base[..., 0]
        model = context[1]
        if model is not None:
            with torch.no_grad():
                flow = self._start(model, state).to(like)
                samples = state.read.shape[1]
                actions = torch.arange(rules.symbols, device=like.device)
                actions = actions.repeat_interleave(samples).expand(len(state), -1)
                many = state.map(
                    lambda tensor: tensor.repeat(1, rules.symbols, *[1] * (tensor.dim() - 2))
                )
                base = self._start(model, self.space.step(many, actions)).to(like)
                base = base.unflatten(1, (rules.symbols, samples)).mT - flow[..., None]

        def one_hot(numbers: Tensor, size: int) -> Tensor:
            return nn.functional.one_hot(numbers, size).to(like)

        parts = [
            one_hot(state.words + 1, rules.vocabulary + 1).flatten(2),
            one_hot(state.read, self.words + 1),
            one_hot(state.stack + 1, rules.symbols + 1).flatten(2),
            state.counts.to(like).log1p(),
            base.clamp(-20, 5).exp(),
            base.clamp(-20, 5) / 5,
        ]
        hidden = nn.functional.silu(self.first(torch.cat(parts, 2)))
        hidden = hidden + nn.functional.silu(self.second(hidden))
        output = self.last(hidden)
        return Step(base + output[..., :-1], None, flow + output[..., -1])

    @staticmethod
    def _start(model: DirichletGrammar, state: Analyses) -> Tensor:
        """`(batch, samples)` the joint so far, and what is to come by an inside pass, in nats."""
        return model.log_counts(state.counts) + log_ahead(model, state)

    def log_z(self, context: Any) -> Tensor:
        """`(batch,)` the flow through the start."""
        log_flow = self(context, self.space.initial_state(context[0], 1)).log_flow
        assert log_flow is not None
        return log_flow[:, 0]

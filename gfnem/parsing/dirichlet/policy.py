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
from gfnem.sampling import Exploration, draw, log_probability
from gfnem.space import LatentSpace


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

    def _said(self, context: Any, state: Analyses) -> tuple[Tensor, Tensor]:
        """`(batch, samples, symbols)` log weights of actions; what is said of flows beside."""
        rules, like = self.space.rules, self.last.weight
        base = like.new_zeros(*state.read.shape, rules.symbols)
        if context[1] is not None:
            with torch.no_grad():
                samples = state.read.shape[1]
                actions = torch.arange(rules.symbols, device=like.device)
                actions = actions.repeat_interleave(samples).expand(len(state.read), -1)
                children = state.map(
                    lambda tensor: tensor.repeat(1, rules.symbols, *[1] * (tensor.dim() - 2))
                )
                base = self._start(context[1], self.space.step(children, actions)).to(like)
                base = base.unflatten(1, (rules.symbols, samples)).mT
                base = log_probability(base, self.space.forward_mask(state)).clamp(min=-30)

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
        return base + output[..., :-1], output[..., -1]

    def choose(
        self, context: Any, space: LatentSpace, state: Analyses, exploration: Exploration
    ) -> tuple[Tensor, Tensor]:
        """Draws an action; no flow is needed for it."""
        return draw(self._said(context, state)[0], space.forward_mask(state), exploration)

    def forward(self, context: Any, state: Analyses) -> Step:
        """Scores trees so far."""
        logits, flow = self._said(context, state)
        if context[1] is not None:
            with torch.no_grad():
                start = self._start(context[1], state)
            flow = flow + start.to(flow)
        return Step(logits, None, flow)

    @staticmethod
    def _start(model: DirichletGrammar, state: Analyses) -> Tensor:
        """`(batch, samples)` the joint so far, and what is to come by an inside pass, in nats."""
        return model.log_counts(state.counts) + log_ahead(model, state)

    def log_z(self, context: Any) -> Tensor:
        """`(batch,)` the flow through the start."""
        log_flow = self(context, self.space.initial_state(context[0], 1)).log_flow
        assert log_flow is not None
        return log_flow[:, 0]

"""A top-down policy: the grammar's own rule weights times a learned look-ahead."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from gfnem.parsing.descent import sample_trees, score_trees, tree_log_joint
from gfnem.parsing.encoder import SpanEncoder, span_chart
from gfnem.parsing.grammar import Grammar
from gfnem.parsing.partial import opened_values, partial_trees, span_values
from gfnem.parsing.potentials import IMPOSSIBLE, RulePotentials
from gfnem.parsing.sentences import Sentences
from gfnem.parsing.topdown import TopDownState
from gfnem.policy import Policy, Scores, Step
from gfnem.sampling import Exploration
from gfnem.space import LatentSpace, Trajectories
from gfnem.target import Target


@dataclass
class Chart:
    """What the policy knows of a batch: rule weights and look-ahead values (see `descent`)."""

    potentials: RulePotentials
    values: Tensor


class TopDownPolicy(Policy):
    """Chooses each node's split and child labels from the root downwards.

    The weight of expanding `A` over `[i, j)` into `B` over `[i, k)` and `C` over `[k, j)` is the
    rule's weight times `exp(V[i, k, B] + V[k, j, C])`. A network reads the sentence once and gives
    the whole look-ahead chart `V`; sampling and scoring trees are then table look-ups. With `V` the
    log inside values the policy is the exact posterior of a PCFG, and `log Z(x)`, the root's total
    weight, is exact too.

    The rules' weights are those of the target where it offers `potentials(x)` (without gradient:
    the policy follows every M-step at no cost); else the policy learns rule weights of its own.

    Args:
        vocab_size: words, the unknown word included; from the data if None.
        nonterminals: labels; from the model if None.
        dim: size of word embeddings and LSTM states.
        use_prior: whether to use the target's rule weights where it offers them.
    """

    def __init__(
        self,
        vocab_size: int | None = None,
        nonterminals: int | None = None,
        dim: int = 128,
        use_prior: bool = True,
    ):
        if vocab_size is None or nonterminals is None:
            raise ValueError("vocab_size and nonterminals are needed")
        super().__init__()
        self.nonterminals, self.use_prior = nonterminals, use_prior
        self.encoder = SpanEncoder(vocab_size, dim, 2 * nonterminals if use_prior else 0)
        self.value = nn.Linear(self.encoder.dim_out, nonterminals)
        self.word_score = nn.Embedding(vocab_size, 1)
        for parameter in (self.value.weight, self.value.bias, self.word_score.weight):
            nn.init.zeros_(parameter)  # start from the rules alone
        # own rules, with one more label that stands for any word
        self.rules = nn.Parameter(torch.zeros(nonterminals, nonterminals + 1, nonterminals + 1))
        self.leaf = nn.Linear(dim, 2 * nonterminals**2)  # which word it is, left or right
        nn.init.zeros_(self.leaf.weight)
        nn.init.zeros_(self.leaf.bias)
        self.root = nn.Parameter(torch.zeros(nonterminals))
        self.single_score = nn.Embedding(vocab_size, 1)

    def encode(self, x: Sentences, target: Target | None = None) -> Chart:
        """Look-ahead values of all spans, one network call."""
        potentials = None
        if self.use_prior and hasattr(target, "potentials"):
            with torch.no_grad():
                potentials = target.potentials(x)
        own = potentials is None
        profiles = None if own else potentials.word_profiles()
        if own:
            potentials = self._own_potentials(x)
        n = x.max_length
        ends = torch.arange(n + 1, device=x.tokens.device)
        width = ends - ends[:n, None]
        scores = self.word_score(x.tokens).squeeze(2)
        if not own:
            scores = scores + potentials.word_levels()
        level = nn.functional.pad(scores.masked_fill(~x.mask(), 0.0).cumsum(1), (1, 0))
        level = level[:, None] - level[:, :n, None]
        values = span_chart(self.value(self.encoder(x, profiles)), n) + level.unsqueeze(3)
        if not own and n > 1:
            pairs = nn.functional.pad(potentials.both_leaves, (0, 0, 0, 1)).unsqueeze(2)
            if not _is_grammar(target):  # there is more to two words than the rules' weights
                pairs = pairs + values - level.unsqueeze(3)
            values = torch.where((width == 2).unsqueeze(2), pairs, values)
        outside = (width < 2) | (ends > x.lengths[:, None, None])
        return Chart(potentials, values.masked_fill(outside.unsqueeze(3), IMPOSSIBLE))

    def _own_potentials(self, x: Sentences) -> RulePotentials:
        labels = self.nonterminals
        words = self.leaf(self.encoder.embedding(x.tokens)).unflatten(2, (2, labels, labels))
        left = self.rules[:, labels, :labels] + words[:, :, 0]
        right = self.rules[:, :labels, labels] + words[:, :, 1]
        both = self.rules[:, labels, labels].expand(len(x), max(x.max_length - 1, 0), -1)
        single = self.single_score(x.tokens[:, 0]).squeeze(1)
        inner = self.rules[:, :labels, :labels]
        return RulePotentials(self.root, inner, left, right, both, single, x.lengths)

    def log_z(self, context: Chart) -> Tensor:
        """`(batch,)` total weight of the root's labels, in nats."""
        potentials = context.potentials
        rows = torch.arange(len(potentials.lengths), device=context.values.device)
        whole = context.values[rows, 0, potentials.lengths]
        total = (potentials.root + whole).logsumexp(1)
        return torch.where(potentials.lengths > 1, total, potentials.single)

    @torch.no_grad()
    def sample(
        self,
        context: Chart,
        x: Sentences,
        space: LatentSpace,
        samples: int,
        exploration: Exploration | None = None,
    ) -> Trajectories:
        """Draws trees, all open spans of all trees at once, without visiting single states."""
        exploration = exploration or Exploration()
        trees, _, log_behaviour = sample_trees(
            context.potentials,
            context.values,
            samples,
            exploration.temperature,
            exploration.epsilon,
        )
        return Trajectories(trees, log_behaviour=log_behaviour)

    def retrace(self, context: Chart, x: Sentences, space: LatentSpace, latent: Any):
        """A tree is its own trajectory."""
        zeros = context.values.new_zeros(latent.left.shape[:2])
        return Trajectories(latent, log_behaviour=zeros)

    def score(
        self,
        context: Chart,
        space: LatentSpace,
        trajectories: Trajectories,
        flows: bool = False,
        forward_looking: bool = False,
    ) -> Scores:
        """Scores whole trees: the first step is the root's label, then node after node.

        The flow of a partial tree is the weight of the rules it has used times the look-ahead of
        every open node; where `forward_looking`, the look-ahead alone.
        """
        trees = trajectories.latent
        log_pf = score_trees(context.potentials, context.values, trees)
        mask = torch.cat([trees.lengths[:, None, None] > 1, trees.mask()], 2).expand(log_pf.shape)
        log_z = self.log_z(context)
        scores = Scores(log_pf, torch.zeros_like(log_pf), mask, log_z)
        if flows:
            gain = opened_values(context.values, trees)
            if not forward_looking:
                gain = gain + tree_log_joint(context.potentials, trees)
            start = log_z[:, None, None].expand(*log_pf.shape[:2], 1)
            scores.log_flow = torch.cat([start, gain.cumsum(2)], 2)
        return scores

    def forward(self, context: Chart, state: TopDownState) -> Step:
        """Weights of single actions (see `TopDownSpace`), for samplers that go state by state."""
        potentials, values = context.potentials, context.values
        batch, samples = state.done.shape
        n, labels = values.shape[1], self.nonterminals
        root = potentials.root + values[torch.arange(batch), 0, potentials.lengths]
        node = (state.done - 1).clamp(0, state.left.shape[2] - 1).unsqueeze(2)
        left, right, label = (
            part.gather(2, node).squeeze(2) for part in (state.left, state.right, state.label)
        )
        row = torch.arange(batch, device=label.device)[:, None].expand(-1, samples)
        options = []
        for split in range(1, max(n, 2)):  # this road is for short sentences and for tests
            first = values[row, left.clamp(max=n - 1), split].unsqueeze(3)
            second = values[row, min(split, n - 1), right].unsqueeze(2)
            inner = potentials.rules[label] + first + second
            one = potentials.left_leaf[row, left.clamp(max=n - 1), label].unsqueeze(2) + second
            other = potentials.right_leaf[row, (right - 1).clamp(min=0), label].unsqueeze(3) + first
            leaf_left = (split - left == 1)[..., None, None]
            leaf_right = (right - split == 1)[..., None, None]
            weights = torch.where(leaf_left, one, torch.where(leaf_right, other, inner))
            options.append(weights.masked_fill(leaf_left & leaf_right, 0.0).flatten(2))
        expand = torch.cat(options, 2)
        first = nn.functional.pad(root, (0, expand.shape[2] - labels))[:, None].expand_as(expand)
        forward = torch.where((state.done == 0).unsqueeze(2), first, expand)
        return Step(forward, log_flow=self._flow(context, state))

    def _flow(self, context: Chart, state: TopDownState) -> Tensor:
        """`(batch, samples)` log flow of single states, as in `score`."""
        trees, chosen = partial_trees(state)
        flow = torch.where(chosen, tree_log_joint(context.potentials, trees), 0.0).sum(2)
        flow = flow + (span_values(context.values, trees) * state.open()).sum(2)
        return torch.where(state.done == 0, self.log_z(context)[:, None], flow)


def _is_grammar(target: Target | None) -> bool:
    """Whether the target's log joint is the sum of its potentials and nothing else."""
    return isinstance(target, Grammar) and type(target).log_joint is Grammar.log_joint

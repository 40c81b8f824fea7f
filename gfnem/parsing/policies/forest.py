"""A bottom-up policy with a learned backward policy."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import linear, pad, silu

from gfnem.parsing.inference.log_joint import tree_log_joint
from gfnem.parsing.inference.potentials import PROFILE
from gfnem.parsing.inference.rule_potentials import RulePotentials
from gfnem.parsing.policies.encoder import SpanEncoder, span_chart
from gfnem.parsing.policies.gap_mixing import GapMixing
from gfnem.parsing.spaces.forest import ForestState
from gfnem.parsing.spaces.partial import partial_trees
from gfnem.parsing.text.sentences import Sentences
from gfnem.parsing.trees.trees import Trees
from gfnem.policy import Policy, Scores, Step
from gfnem.ranges import Count, Fact
from gfnem.sampling import Exploration, draw
from gfnem.space import LatentSpace, Trajectories
from gfnem.target import Conditioned, Target


@dataclass
class ForestContext:
    """What is computed once a sentence.

    Attributes:
        sides: `(2, batch * n * (n + 1), size)` what the vector of each span adds to the hidden
            units of a gap, as the root on its left and as the one on its right.
        log_z: `(batch,)` nats.
        levels: `(batch, n)` rough log weight of each word, 0 past a sentence's end.
        potentials: the target's rule weights; None where the policy does not follow them.
    """

    sides: Tensor
    log_z: Tensor
    levels: Tensor
    potentials: RulePotentials | None


@dataclass
class Gaps:
    """What is known of the gaps of states, each `(batch, samples, gaps)` or with a size behind.

    Attributes:
        seen: what each gap has seen of the others.
        hidden: hidden units, half of them of merging and half of taking apart.
        before, after: the labels of the roots on both sides; that of the covering root, twice,
            where the gap is closed.
        here: the position behind each gap.
    """

    seen: Tensor
    hidden: Tensor
    before: Tensor
    after: Tensor
    here: Tensor


class ForestPolicy(Policy[Sentences, Trees, ForestState, ForestContext]):
    """Chooses which neighbouring roots to merge, and the label of the result.

    Each root is described by its span's vector and its label. Every gap of the sentence sees the
    two roots beside it; sums by distance let gaps see each other. The merge weights add the
    target's own weight of the rule where it offers `potentials(x)`.

    Args:
        vocab_size: words, the unknown word included; from the data if None.
        nonterminals: labels; from the model if None.
        dim: size of word embeddings and hidden layers.
        use_prior: whether to use the target's rule weights where it offers them.
    """

    log_z_parts = ("total", "word_score")

    def __init__(
        self,
        vocab_size: Fact = None,
        nonterminals: Fact = None,
        dim: Count = 64,
        use_prior: bool = True,
    ):
        super().__init__()
        self.nonterminals, self.use_prior = nonterminals, use_prior
        self.encoder = SpanEncoder(vocab_size, dim, PROFILE * nonterminals if use_prior else 0)
        size = self.encoder.dim_out
        self.label = nn.Embedding(nonterminals + 1, size)  # the last one: a word, unlabelled
        self.join = nn.Sequential(nn.Linear(3 * size, size), nn.LayerNorm(size), nn.SiLU())
        self.context = GapMixing(size)
        self.hidden = nn.Linear(2 * size, 2 * size)
        self.merge = nn.Linear(size, nonterminals)
        self.take_apart = nn.Linear(size, 1)
        self.flow = nn.Linear(size, 1)
        self.total = nn.Linear(size, 1)
        self.word_score = nn.Embedding(vocab_size, 1)
        nn.init.zeros_(self.word_score.weight)

    def serve(self, target: Target) -> None:
        """Gives up what only a target's rules would use, where it offers none that it can use."""
        if not self._follows(target):
            self.use_prior = False
            self.encoder.without_features()

    def _follows(self, target: Target | None) -> bool:
        # bottom-up, what depends on the parent is not known yet
        return (
            self.use_prior
            and target is not None
            and target.offers("potentials")
            and target.facts().get("contexts", 1) == 1
        )

    def encode(self, x: Sentences, given: Conditioned | None = None) -> ForestContext:
        """Span vectors, one network call."""
        potentials = profiles = None
        if self._follows(None if given is None else given.target):
            with torch.no_grad():
                potentials = given.potentials
                profiles = potentials.word_profiles()
        spans = span_chart(self.encoder(x, profiles), x.max_length)
        rows = torch.arange(len(x), device=spans.device)
        levels = self.word_score(x.tokens).squeeze(2)
        if potentials is not None:
            levels = levels + potentials.word_levels()
        levels = levels.masked_fill(~x.mask(), 0.0)
        log_z = self.total(spans[rows, 0, x.lengths]).squeeze(1) + levels.sum(1)
        if potentials is not None:
            log_z = torch.where(x.lengths > 1, log_z, potentials.single)
        by_side = self.join[0].weight.chunk(3, 1)[:2]
        flat = spans.flatten(0, 2)
        sides = torch.stack([linear(flat, weight) for weight in by_side])
        return ForestContext(sides, log_z, levels, potentials)

    def log_z(self, context: ForestContext) -> Tensor:
        """`(batch,)` learned, in nats."""
        return context.log_z

    def choose(
        self,
        context: ForestContext,
        space: LatentSpace,
        state: ForestState,
        exploration: Exploration,
    ) -> tuple[Tensor, Tensor]:
        """Draws a merge; no flow is needed for it."""
        gaps = self._gaps(context, state)
        return draw(self._merges(context, gaps), space.forward_mask(state), exploration)

    def forward(self, context: ForestContext, state: ForestState) -> Step:
        """Weights of every merge and of taking every root apart.

        The flow is the weight of the rules used so far, where known, times a look-ahead: rough
        weights of the words that are still single, corrected by a sum over the gaps. The initial
        state's is `log_z`.
        """
        gaps = self._gaps(context, state)
        inside = state.gaps() < (state.lengths - 1).unsqueeze(2)
        ahead = (context.levels[:, None] * ~self._covered(state)).sum(2)
        flow = self.flow(gaps.seen).squeeze(3)
        flow = (flow * inside).sum(2) + ahead + self._known(context, state)
        return Step(
            self._merges(context, gaps),
            self.take_apart(gaps.hidden.chunk(2, 3)[1]).squeeze(3),
            torch.where((state.label < 0).all(2), context.log_z[:, None], flow),
        )

    def _gaps(self, context: ForestContext, state: ForestState) -> Gaps:
        """What is known of the gaps of states."""
        left, right = state.neighbours
        here = (state.gaps() + 1).expand_as(left)
        right = torch.maximum(right, here)  # padding: keep indices in order
        # where a gap is closed both sides show the root that covers it
        is_open = state.label < 0
        covering = self._cover(state, left)
        # the root that ends at an open gap covers the gap before it, or is a word
        word = self.nonterminals
        before = torch.where(is_open, pad(covering, (1, 0), value=word)[..., :-1], covering)
        after = torch.where(is_open, pad(covering, (0, 1), value=word)[..., 1:], covering)
        joined = self._joined(
            (context.sides, context.levels.shape[1]),
            ((left, torch.where(is_open, here, right)), (torch.where(is_open, here, left), right)),
            (before, after, covering),
        )
        counts = (state.lengths - 1).clamp(min=1).flatten()
        seen = self.context(joined.flatten(0, 1), counts).unflatten(0, joined.shape[:2])
        # as of both side by side, without the copy
        of_joined, of_seen = self.hidden.weight.chunk(2, 1)
        hidden = linear(joined, of_joined, self.hidden.bias) + linear(seen, of_seen)
        return Gaps(seen, silu(hidden), before, after, here)

    def _merges(self, context: ForestContext, gaps: Gaps) -> Tensor:
        """`(batch, samples, gaps * N)` log weights of all merges."""
        merge = self.merge(gaps.hidden.chunk(2, 3)[0])
        if context.potentials is not None:
            merge = merge + self._rule_weights(context.potentials, gaps)
        return merge.flatten(2)

    def score(
        self,
        context: ForestContext,
        space: LatentSpace,
        trajectories: Trajectories,
        flows: bool = False,
        forward_looking: bool = False,
    ) -> Scores:
        """As for any policy; `forward_looking` flows are the look-ahead alone."""
        scores = super().score(context, space, trajectories, flows)
        scores.guided = context.potentials is not None
        if flows and forward_looking:
            known = [self._known(context, state) for state in trajectories.states]
            scores.log_flow = scores.log_flow - torch.stack(known, 2)
        return scores

    def _covered(self, state: ForestState) -> Tensor:
        """`(batch, samples, words)` bool: words that are merged with others."""
        closed = state.label >= 0
        return pad(closed, (0, 1)) | pad(closed, (1, 0))

    def _known(self, context: ForestContext, state: ForestState) -> Tensor:
        """`(batch, samples)` log weight of the rules used, or roughly that of the words covered."""
        if context.potentials is None:
            return (context.levels[:, None] * self._covered(state)).sum(2)
        trees, chosen = partial_trees(state)
        return torch.where(chosen, tree_log_joint(context.potentials, trees), 0.0).sum(2)

    def _cover(self, state: ForestState, left: Tensor) -> Tensor:
        """The label of the root that covers each closed gap; the word label for open ones."""
        word = self.nonterminals
        is_root = state.roots
        # all gaps under one root share its left end, and it is the only root among them
        nowhere = state.label.shape[2] + 1
        by_left = torch.full((*left.shape[:2], nowhere + 1), word, device=left.device)
        index = torch.where(is_root, left, nowhere)
        by_left = by_left.scatter(2, index, state.label)
        return torch.where(state.label < 0, word, by_left.gather(2, left))

    def _joined(self, sides, spans, labels) -> Tensor:
        """`(batch, samples, gaps, size)` vectors of gaps from the roots beside them.

        As `self.join` of spans' and labels' vectors side by side, but what each of them adds to
        its linear layer is computed once for all gaps and states.

        Args:
            sides: `ForestContext.sides`, and the padded length `n`.
            spans: the ends of the left and of the right root, four `(batch, samples, gaps)`.
            labels: those of the left, the right and the covering root, likewise.
        """
        (table, n), (first, *rest) = sides, self.join
        total = first.bias
        row = torch.arange(labels[0].shape[0], device=table.device)[:, None, None]
        for by_span, (left, right) in zip(table, spans, strict=True):
            place = (row * n + left.clamp(max=n - 1)) * (n + 1) + right.clamp(max=n)
            total = total + nn.functional.embedding(place, by_span)
        for weight, label in zip(first.weight.chunk(3, 1), labels, strict=True):
            by_label = linear(self.label.weight, weight)
            total = total + nn.functional.embedding(label, by_label)
        for layer in rest:
            total = layer(total)
        return total

    def _rule_weights(self, potentials: RulePotentials, gaps: Gaps) -> Tensor:
        """`(batch, samples, gaps, N)` the target's log weight of each label over each gap."""
        before, after, here = gaps.before, gaps.after, gaps.here
        labels, n = self.nonterminals, potentials.max_length
        row = torch.arange(len(before), device=before.device)[:, None, None]
        word_left, word_right = before == labels, after == labels
        first, second = before.clamp(max=labels - 1), after.clamp(max=labels - 1)
        gap = (here - 1).clamp(max=n - 1)
        inner = potentials.heads(row, first, second)
        one = potentials.leaf_heads(row, gap, second, 0)
        other = potentials.leaf_heads(row, here.clamp(max=n - 1), first, 1)
        both = pad(potentials.both_leaves[:, :, 0], (0, 0, 0, 1))[row, gap]
        word_left, word_right = word_left.unsqueeze(3), word_right.unsqueeze(3)
        return torch.where(
            word_left,
            torch.where(word_right, both, one),
            torch.where(word_right, other, inner),
        )

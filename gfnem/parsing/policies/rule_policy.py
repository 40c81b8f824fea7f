"""Top-down policies that weigh what a node may do by rules and a look-ahead."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from gfnem.offers import NotOffered
from gfnem.parsing.inference.choices import RuleChoices
from gfnem.parsing.inference.expansion import expanded
from gfnem.parsing.inference.inside import marginals_and_chart
from gfnem.parsing.inference.look_ahead import names_of_spans
from gfnem.parsing.inference.nodes import Nodes
from gfnem.parsing.inference.potentials import IMPOSSIBLE
from gfnem.parsing.policies.whole_trees import WholeTreePolicy
from gfnem.parsing.spaces.partial import opened_values, partial_trees
from gfnem.parsing.spaces.topdown import TopDownState
from gfnem.policy import Scores, Step
from gfnem.space import LatentSpace, Trajectories


class RulePolicy(WholeTreePolicy[TopDownState]):
    """Chooses each node's split and child labels from the root downwards.

    The weight of expanding `A` over `[i, j)` into `B` over `[i, k)` and `C` over `[k, j)` is the
    rule's weight times `exp(V[i, k, B] + V[k, j, C])`. `encode` gives rules and look-ahead `V`.
    With `V` the log inside values the policy is the exact posterior of a PCFG, and `log Z(x)`, the
    root's total weight, is exact too.

    Attributes:
        nonterminals: labels.
    """

    nonterminals: int

    def log_z(self, context: RuleChoices) -> Tensor:
        """`(batch,)` total weight of the root's labels, in nats."""
        total = context.root().logsumexp(1)
        return torch.where(context.lengths > 1, total, context.potentials.single)

    @torch.no_grad()
    def marginals(self, context: RuleChoices) -> Tensor:
        """`(batch, n, n + 1)` how probable it is that the tree drawn has each span as a node.

        Choices are normalised node by node. So they are those of a grammar whose labelled spans
        weigh what the look-ahead claims more than one step of the rules finds, and inside-outside
        tells that grammar's marginals.

        Raises:
            NotOffered: if rules depend on the context, or are not the target's.
        """
        if not self.offers("marginals"):
            raise NotOffered(
                f"{self.called()} offers marginals where it follows the target's rules, and these "
                "do not depend on the context"
            )
        rules = context.potentials
        n, lengths = context.max_length, context.lengths
        chart = context.look_ahead(names_of_spans(len(lengths), n, lengths.device))
        ends = torch.arange(n + 1, device=lengths.device)
        outside = (ends - ends[:n, None] < 2) | (ends > lengths[:, None, None])
        chart = chart.masked_fill(outside.unsqueeze(3), IMPOSSIBLE)
        found = expanded(rules, chart).squeeze(3)
        return marginals_and_chart(rules, chart - found)[0].sum(3)

    def score(
        self,
        context: RuleChoices,
        space: LatentSpace,
        trajectories: Trajectories,
        flows: bool = False,
        forward_looking: bool = False,
    ) -> Scores:
        """Scores whole trees: the first step is the root's label, then node after node.

        The flow of a partial tree is the weight of the rules it has used times the look-ahead of
        every open node; where `forward_looking`, the look-ahead alone.
        """
        scores = super().score(context, space, trajectories)
        log_z = scores.log_z = self.log_z(context)
        scores.guided = context.guided
        if flows:
            trees = context.annotate(trajectories.latent)
            gain = opened_values(context.node_values(trees), trees)
            if not forward_looking:
                gain = gain + context.expansions(trees)
            start = log_z[:, None, None].expand(*scores.log_pf.shape[:2], 1)
            scores.log_flow = torch.cat([start, gain.cumsum(2)], 2)
        return scores

    def forward(self, context: RuleChoices, state: TopDownState) -> Step:
        """Weights of single actions (see `TopDownSpace`), for samplers that go state by state."""
        n, labels = context.max_length, self.nonterminals
        trees = context.annotate(partial_trees(state)[0])
        node = (state.done - 1).clamp(0, state.left.shape[2] - 1).unsqueeze(2)
        left, right, symbol = (
            part.gather(2, node).flatten() for part in (state.left, state.right, trees.label)
        )
        row = torch.arange(len(context.lengths), device=symbol.device)
        row = row.repeat_interleave(state.done.shape[1])
        nodes = Nodes(row, row, left.clamp(max=n - 1), right.clamp(min=1), symbol)
        rules = context.rule_table[context.potentials.rules_of(symbol, row)]
        by_left, by_right = context.leaves(nodes)
        options = []
        for split in range(1, max(n, 2)):  # this road is for short sentences and for tests
            cut = torch.full_like(left, min(split, n - 1))[:, None]
            first = context.look(context.row(nodes, nodes.left[:, None], cut + (n == 1))).logs
            second = context.look(context.row(nodes, cut, nodes.right[:, None])).logs
            inner = rules + first.transpose(1, 2) + second
            one, other = by_left[:, None] + second, by_right[:, :, None] + first.transpose(1, 2)
            leaf_left = (split - left == 1)[:, None, None]
            leaf_right = (right - split == 1)[:, None, None]
            weights = torch.where(leaf_left, one, torch.where(leaf_right, other, inner))
            options.append(weights.masked_fill(leaf_left & leaf_right, 0.0).flatten(1))
        expand = torch.cat(options, 1).unflatten(0, state.done.shape)
        first = nn.functional.pad(context.root(), (0, expand.shape[2] - labels))
        at_root = (state.done == 0).unsqueeze(2)
        forward = torch.where(at_root, first[:, None].expand_as(expand), expand)
        return Step(forward, log_flow=self._flow(context, state))

    def _flow(self, context: RuleChoices, state: TopDownState) -> Tensor:
        """`(batch, samples)` log flow of single states, as in `score`."""
        trees, chosen = partial_trees(state)
        trees = context.annotate(trees)
        flow = torch.where(chosen, context.expansions(trees), 0.0).sum(2)
        flow = flow + (context.node_values(trees) * state.open()).sum(2)
        return torch.where(state.done == 0, self.log_z(context)[:, None], flow)

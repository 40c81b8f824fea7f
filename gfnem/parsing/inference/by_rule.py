"""What nodes may do altogether, of many nodes at once, sorted by the rules that they have.

Nodes that have the same rules are multiplied with them together, split after split and node after
node: no rules are copied, nothing is padded, and the gradient of rules is one product for each.
How many nodes have which rules is read by the host, so this is for a CPU.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from gfnem.fixed_shapes import fixed_shapes
from gfnem.parsing.inference.choices import RuleChoices
from gfnem.parsing.inference.nodes import Nodes
from gfnem.parsing.inference.potentials import full_precision, safe_log, safe_over

#: how many nodes to each rules there must be: the work for rules is one product after the other
_WORTH = 16


@dataclass
class Joins:
    """Pairs of children, sorted by their parents' rules.

    Attributes:
        left, right: `(joins,)` int64 rows of look-ahead values.
        parts: of each rules, by their number, the first join and the one behind the last.
    """

    left: Tensor
    right: Tensor
    parts: Sequence[tuple[int, int, int]]


def joined(values: Tensor, peaks: Tensor, rules: Tensor, joins: Joins) -> Tensor:
    """`(joins,)` log weights of joins, relative to the rules' maxima, in nats.

    With `L` and `R` the values of both children and `A` the rules, `log sum (L A) * R`.

    Args:
        values: `(rows, N)` look-ahead values in exp space, over maxima.
        peaks: `(rows,)` the log maxima.
        rules: `(entries, N * N)` rules in exp space, by the left child's and the right one's label.
        joins: what is joined.
    """
    return _Joined.apply(values, peaks, rules, joins)


class _Joined(torch.autograd.Function):
    """See `joined`."""

    @staticmethod
    def forward(ctx, values, peaks, rules, joins: Joins):
        with full_precision(values):
            labels = values.shape[1]
            left, right = (values.index_select(0, at) for at in (joins.left, joins.right))
            half = torch.empty_like(left)
            for entry, start, end in joins.parts:
                own = rules[entry].view(labels, labels)
                torch.mm(left[start:end], own, out=half[start:end])
            total = torch.linalg.vecdot(half, right)
            found = safe_log(total).add_(peaks.index_select(0, joins.left))
            found.add_(peaks.index_select(0, joins.right))
            ctx.kept = len(values), rules, joins, left, right, half, total
            return found

    @staticmethod
    def backward(ctx, gradient: Tensor):
        count, rules, joins, left, right, half, total = ctx.kept
        with full_precision(gradient):
            labels = left.shape[1]
            of_values = of_rules = None
            if ctx.needs_input_grad[2]:
                of_rules = torch.zeros_like(rules)
            share = (gradient * safe_over(total))[:, None]
            back, to_left = right * share, torch.empty_like(left)
            for entry, start, end in joins.parts:
                own = rules[entry].view(labels, labels)
                torch.mm(back[start:end], own.T, out=to_left[start:end])
                if of_rules is not None:
                    out = of_rules[entry].view(labels, labels)
                    torch.mm(left[start:end].T, back[start:end], out=out)
            if ctx.needs_input_grad[0]:
                of_values = left.new_zeros(count, labels).index_add_(0, joins.left, to_left)
                of_values.index_add_(0, joins.right, half * share)
            return of_values, None, of_rules, None


def norms_of(choices: RuleChoices, nodes: Nodes) -> Tensor:
    """`(count,)` log weight of all that nodes of three words or more may do, differentiable.

    Args:
        choices: the action weights.
        nodes: the nodes; where there are few for the rules that there are, narrow ones first.
    """
    on_host = not fixed_shapes(nodes.left)
    if on_host and choices.dense and len(nodes) >= _WORTH * len(choices.rule_weights[0]):
        return norms_by_rule(choices, nodes)
    return choices.options(nodes).scores.logsumexp(-1)


def norms_by_rule(choices: RuleChoices, nodes: Nodes) -> Tensor:
    """As `norms_of`, of nodes in any order under rules that are a dense table."""
    entries, order = choices.potentials.rules_of(nodes.label, nodes.row).sort()
    nodes, count = nodes[order], len(order)
    inner = nodes.right - nodes.left - 3  # splits that leave two words or more on both sides
    starts, device = inner.cumsum(0) - inner, inner.device
    node = torch.arange(count, device=device).repeat_interleave(inner)
    column = torch.arange(len(node), device=device) - starts.index_select(0, node)
    above, left, right = nodes[node], nodes.left[:, None], nodes.right[:, None]
    cut = (above.left + 2 + column)[:, None]
    names = [
        choices.row(above, above.left[:, None], cut),
        choices.row(above, cut, above.right[:, None]),
        choices.row(nodes, left + 1, right),
        choices.row(nodes, left, right - 1),
    ]
    rows = choices.look(torch.cat(names).squeeze(1))
    first, second, _ = rows.index.split([len(node), len(node), 2 * count])
    weights, tops = choices.rule_weights
    tops = tops.index_select(0, entries)
    # of the label of a phrase beside the first word, and beside the last one
    beside = choices.leaves(nodes) + rows[-2 * count :].logs.view(2, count, -1)
    beside = beside.logsumexp(-1) - tops
    joins = Joins(first, second, _parts(entries, inner, len(weights)))
    inside = joined(rows.table.relative, rows.table.peaks, weights, joins)
    # all of a node side by side, those beside words first
    splits = int(inner.max()) + 2
    at = torch.arange(count, device=device) * splits
    place = torch.cat([at, at + 1, at.index_select(0, node) + 2 + column])
    scores = inside.new_full((count * splits,), -math.inf)
    scores = scores.index_copy(0, place, torch.cat([beside.flatten(), inside]))
    norms = scores.view(count, splits).logsumexp(-1) + tops
    return torch.empty_like(norms).index_copy(0, order, norms)


def _parts(entries: Tensor, inner: Tensor, count: int) -> list[tuple[int, int, int]]:
    """See `Joins`: of nodes sorted by rules with so many joins each."""
    joins = inner.new_zeros(count).index_add_(0, entries, inner)
    ends = joins.cumsum(0)
    parts = enumerate(zip((ends - joins).tolist(), ends.tolist(), strict=True))
    return [(entry, start, end) for entry, (start, end) in parts if end > start]

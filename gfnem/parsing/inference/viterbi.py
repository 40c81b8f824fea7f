"""Exact inference: the best tree."""

from __future__ import annotations

from collections.abc import Callable
from functools import singledispatch

import torch
from torch import Tensor

from gfnem.parsing.inference.inside import root_values
from gfnem.parsing.inference.nodes import Nodes, grow_trees
from gfnem.parsing.inference.potentials import IMPOSSIBLE, Potentials, full_precision
from gfnem.parsing.trees.trees import Trees


@torch.no_grad()
def viterbi(potentials: Potentials, spans: Tensor | None = None) -> tuple[Trees, Tensor]:
    """The best tree of each sentence, and its log weight.

    "Best" is over labelled binary trees with preterminals summed out. Without autograd.

    Args:
        potentials: the rules' weights.
        spans: `(batch, n, n + 1)` nats, added for each node of a tree. Default: none.

    Returns:
        The trees (one sample) and `(batch,)` log p(x, z) in nats.
    """
    labels, lengths, n = potentials.labels, potentials.lengths, potentials.max_length
    with full_precision(potentials.root):
        if spans is None:
            spans = potentials.root.new_zeros(len(lengths), n, n + 1)
        best, back = viterbi_pass(potentials, spans)
        score, roots = root_values(potentials, best).max(-1)

    def choose(nodes: Nodes) -> tuple[Tensor, Tensor, Tensor]:
        context, label = nodes.label // labels, nodes.label % labels
        split, first, second = back(nodes.row, nodes.left, nodes.right, context, label)
        above = potentials.below(label) * labels
        return split, above + first, above + second

    trees = grow_trees(lengths, n, potentials.top * labels + roots[:, None], choose)
    trees.label = trees.label % labels
    return trees, torch.where(lengths == 1, potentials.single, score)


#: given sentences, left and right ends, contexts and labels of nodes of three words or more: the
#: split and both children's labels of the best tree over each
BackPointers = Callable[[Tensor, Tensor, Tensor, Tensor, Tensor], tuple[Tensor, Tensor, Tensor]]


@singledispatch
def viterbi_pass(potentials: Potentials, spans: Tensor) -> tuple[Tensor, BackPointers]:
    """The log weight `(batch, n, n + 1, K, N)` of the best tree over each span, and what it does.

    As it is computed where rules are a dense table.

    Args:
        potentials: the rules' weights.
        spans: `(batch, n, n + 1)` nats, added for each node of a tree.
    """
    labels, contexts, groups = potentials.labels, potentials.contexts, potentials.groups
    batch, n = len(potentials.lengths), potentials.max_length
    device = potentials.rules.device
    size = labels // groups
    rules = potentials.rules.unflatten(1, (groups, size)).transpose(0, 1).flatten(3).flatten(1, 2)
    left, right = (  # (batch, n, G, K * N / G, N)
        table.unflatten(2, (groups, size)).permute(1, 0, 2, 4, 3, 5).flatten(3, 4)
        for table in potentials.leaf_tables
    )
    best = rules.new_full((batch, n, n + 1, contexts, labels), IMPOSSIBLE)
    if n > 1:
        pairs = potentials.both_leaves.permute(0, 2, 3, 1)
        best.diagonal(2, 1, 2).copy_(pairs + spans.diagonal(2, 1, 2)[:, None, None])
    rows_at_once = max(1, _AT_ONCE // rules[0].numel())
    for width in range(3, n + 1):
        start = torch.arange(n - width + 1, device=device)
        end = start + width
        middle = start[:, None] + torch.arange(2, width - 1, device=device)
        for group in range(groups):  # one context of the children at a time, to bound memory
            # values alone: to know where they come from takes five times as long
            after, before = (
                best[:, start + 1, end, group, None],
                best[:, start, end - 1, group, None],
            )
            scores = torch.maximum(
                (left[:, : len(start), group] + after).amax(-1),
                (right[:, width - 1 :, group] + before).amax(-1),
            )
            if width > 3:
                lefts = best[:, start[:, None], middle, group]
                rights = best[:, middle, end[:, None], group]
                rows = (lefts[..., None] + rights[..., None, :]).amax(2).flatten(2).flatten(0, 1)
                inner = [
                    (part[:, None] + rules[group]).amax(-1) for part in rows.split(rows_at_once)
                ]
                scores = torch.maximum(scores, torch.cat(inner).view_as(scores))
            of_group = slice(group * size, (group + 1) * size)
            scores = scores + spans[:, start, end].unsqueeze(2)
            best[:, start, end, :, of_group] = scores.unflatten(2, (contexts, size))

    def back(row: Tensor, left: Tensor, right: Tensor, context: Tensor, label: Tensor):
        """The best choices of the few nodes that a tree has."""
        widest = int((right - left).max()) if len(row) else 2
        found = [
            _best_choice(potentials, best, *part)
            for part in zip(
                *(
                    each.split(max(1, _AT_ONCE // (labels**2 * widest)))
                    for each in (row, left, right, context, label)
                ),
                strict=True,
            )
        ]
        return tuple(torch.cat(part) for part in zip(*found, strict=True))

    return best, back


#: numbers that are looked at together where a maximum is sought: they fit a core's cache
_AT_ONCE = 2**18


def _best_choice(potentials: Potentials, best: Tensor, row, left, right, context, label):
    """Split and both children's labels of the best tree over nodes of three words or more.

    `(count,)` int64 each.

    Args:
        potentials: the rules' weights.
        best: `(batch, n, n + 1, K, N)` log weight of the best tree over each span.
        row, left, right, context, label: `(count,)` int64 of each node.
    """
    labels, n = potentials.labels, potentials.max_length
    symbol, below = context * labels + label, potentials.below(label)
    by_left, by_right = potentials.edge_rules(symbol, row, left, right - 1)
    by_left = by_left + best[row, left + 1, right, below]
    by_right = by_right + best[row, left, right - 1, below]
    (one, second), (other, first) = by_left.max(1), by_right.max(1)
    split, nothing = left + 1, torch.zeros_like(left)
    choice = torch.stack([split, nothing, second]), torch.stack([right - 1, first, nothing])
    scores, found = torch.maximum(one, other), torch.where(other > one, choice[1], choice[0])
    splits = int((right - left).max()) - 3
    if splits:
        cuts = left[:, None] + 2 + torch.arange(splits, device=left.device)
        outside = cuts > (right - 2)[:, None]
        cuts = cuts.clamp(max=n - 1)
        lefts = best[row[:, None], left[:, None], cuts, below[:, None]]
        lefts = lefts.masked_fill(outside[..., None], -torch.inf)
        rights = best[row[:, None], cuts, right[:, None], below[:, None]]
        pairs, at = (lefts[..., None] + rights[..., None, :]).flatten(2).max(1)
        inner, pair = (pairs + potentials.rules[context, label].flatten(1)).max(1)
        cut = at.gather(1, pair[:, None])[:, 0] + left + 2
        inner_choice = torch.stack([cut, pair // labels, pair % labels])
        found = torch.where(inner > scores, inner_choice, found)
    return tuple(found)

"""Log weights of given trees."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from gfnem.fixed_shapes import fixed_shapes
from gfnem.parsing.inference.potentials import Potentials, full_precision
from gfnem.parsing.trees.trees import Trees


def annotated(potentials: Potentials, trees: Trees) -> Trees:
    """The trees with `k * N + A` for each node's label `A` under its context `k`."""
    labels, places = potentials.labels, trees.label.shape[2]
    contexts = trees.label.new_full((*trees.label.shape[:2], places + 1), potentials.top)
    below = potentials.below(trees.label)
    expanded = trees.mask() & (trees.split > trees.left)  # all, but for partial trees
    for child in trees.child_index():
        # what is not a node writes to a place of its own behind the others
        contexts.scatter_(2, torch.where((child >= 0) & expanded, child, places), below)
    label = contexts[..., :-1] * labels + trees.label
    return replace(trees, label=label)


def span_scores(spans: Tensor, trees: Trees) -> Tensor:
    """`(batch, samples, nodes)` what each node's span counts; 0 past a tree's nodes.

    Args:
        spans: `(batch, n, n + 1)` of each span `[i, j)`.
        trees: trees over the same sentences.
    """
    batch, n, ends = spans.shape
    row = torch.arange(batch, device=spans.device)[:, None, None]
    place = (row * n + trees.left.clamp(max=n - 1)) * ends + trees.right.clamp(max=ends - 1)
    found = spans.flatten().index_select(0, place.flatten()).view(place.shape)
    return torch.where(trees.mask(), found, 0.0)


def tree_log_joint(potentials: Potentials, trees: Trees) -> Tensor:
    """Log weight of every rule in the given trees, differentiable.

    Returns:
        `(batch, samples, 1 + nodes)` nats: the root's label, then each node's rule with its words,
        in preorder; 0 past a tree's nodes. A one-word sentence has `single` in its first entry.
        The sum over the last axis is log p(x, z).
    """
    return annotated_log_joint(potentials, annotated(potentials, trees))


def annotated_log_joint(potentials: Potentials, trees: Trees) -> Tensor:
    """As `tree_log_joint`, of `annotated` trees."""
    labels = potentials.labels
    root = potentials.single[:, None].expand(trees.label.shape[:2])
    if trees.label.shape[2] == 0 or potentials.max_length == 1:
        return torch.nn.functional.pad(root[..., None], (0, trees.label.shape[2]))
    first_label = (trees.label[..., 0] % labels).flatten()
    known = potentials.roots.gather(1, first_label.view(root.shape))
    root = torch.where(trees.lengths > 1, known, root)
    with full_precision(root):
        first, second = (part % labels for part in trees.child_labels())  # of a word: anything
        left_word, right_word = trees.split - trees.left == 1, trees.right - trees.split == 1
        row = torch.arange(len(trees.lengths), device=root.device)[:, None, None]
        parts = (row.expand_as(first), trees.left, trees.right - 1, trees.label, first, second)
        parts = [part.flatten() for part in parts]
        mask = trees.mask()
        if fixed_shapes(root):
            scores = _of_all_nodes(potentials, parts, left_word.flatten(), right_word.flatten())
            scores = torch.where(mask, scores.view(mask.shape), 0.0)
            return torch.cat([root[..., None], scores], 2)
        scores = torch.zeros(first.numel(), dtype=root.dtype, device=root.device)

        def pick(case: Tensor) -> tuple[Tensor, ...]:
            chosen = (case & mask).flatten().nonzero().squeeze(1)
            return chosen, *(part[chosen] for part in parts)

        at, rows, _, _, symbol, b, c = pick(~left_word & ~right_word)
        scores = scores.index_put((at,), potentials.rule(symbol, rows, b, c))
        at, rows, left, _, symbol, _, c = pick(left_word & ~right_word)
        scores = scores.index_put((at,), potentials.leaf_rule(symbol, rows, left, c, 0))
        at, rows, _, last, symbol, b, _ = pick(right_word & ~left_word)
        scores = scores.index_put((at,), potentials.leaf_rule(symbol, rows, last, b, 1))
        at, rows, left, _, symbol, _, _ = pick(left_word & right_word)
        scores = scores.index_put((at,), _two_words(potentials, rows, left, symbol))
        return torch.cat([root[..., None], scores.view(first.shape)], 2)


def _two_words(potentials: Potentials, row: Tensor, left: Tensor, symbol: Tensor) -> Tensor:
    """`(count,)` nats of nodes over two words."""
    place = row * (potentials.max_length - 1) + left
    place = place * potentials.contexts * potentials.labels + symbol
    return potentials.both_leaves.reshape(-1).index_select(0, place)


def _of_all_nodes(
    potentials: Potentials, parts: list[Tensor], left_word: Tensor, right_word: Tensor
) -> Tensor:
    """`(count,)` nats of nodes of all kinds, each taken for all; of what is no node, any."""
    row, left, last, symbol, first, second = parts
    last, left = last.clamp(min=0), left.clamp(max=potentials.max_length - 1)
    one = potentials.leaf_rule(symbol, row, left, second, 0)
    other = potentials.leaf_rule(symbol, row, last, first, 1)
    both = _two_words(potentials, row, left.clamp(max=potentials.max_length - 2), symbol)
    found = torch.where(right_word, other, potentials.rule(symbol, row, first, second))
    return torch.where(left_word, torch.where(right_word, both, one), found)

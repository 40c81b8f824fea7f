"""Brute force: every labelled binary tree of a short sentence."""

from __future__ import annotations

import itertools
from functools import cache

import torch

from gfnem.parsing.trees.trees import Trees


@cache
def _shapes(left: int, right: int) -> tuple:
    """Every binary bracketing of `[left, right)`, a tuple of `(left, right, split)` each."""
    if right - left < 2:
        return ((),)
    return tuple(
        ((left, right, split), *first, *second)
        for split in range(left + 1, right)
        for first in _shapes(left, split)
        for second in _shapes(split, right)
    )


def all_trees(n: int, labels: int) -> Trees:
    """Every labelled binary tree over `n` words: batch 1, as many samples as trees."""
    nodes = [
        [
            (left, right, split, label)
            for (left, right, split), label in zip(shape, names, strict=True)
        ]
        for shape in _shapes(0, n)
        for names in itertools.product(range(labels), repeat=n - 1)
    ]
    table = torch.tensor(nodes, dtype=torch.long).reshape(1, len(nodes), n - 1, 4)
    left, right, split, label = table.unbind(-1)
    return Trees(left, right, split, label, torch.full((1, len(nodes)), n))


def keys(trees: Trees, row: int = 0) -> list[tuple]:
    """A hashable name for each of one sentence's trees."""
    nodes = int(trees.lengths[row, 0]) - 1
    fields = torch.cat(
        [field[row, :, :nodes] for field in (trees.left, trees.right, trees.split, trees.label)], -1
    )
    return [tuple(entry) for entry in fields.tolist()]


def spans_of(trees: Trees) -> list[set[tuple[int, int]]]:
    """The spans `(left, right)` of each of the first sentence's trees."""
    return [
        set(zip(left, right, strict=True))
        for left, right in zip(trees.left[0].tolist(), trees.right[0].tolist(), strict=True)
    ]


def random_tables(
    labels=2, preterminals=3, lengths=(4,), seed=0, absent=0.3, dtype=torch.float64
) -> tuple:
    """A random normalised grammar, a share `absent` of its rules missing, and word emissions.

    Returns:
        `root`, `rules`, `emissions`, `lengths`: the arguments of `RulePotentials.from_tables`.
    """
    generator = torch.Generator().manual_seed(seed)
    symbols = labels + preterminals

    # The last preterminal and a right-branching rule stay, so every sentence has a derivation.
    def table(*shape, keep=(-1,)):
        scores = 2 * torch.randn(*shape, generator=generator, dtype=torch.float64)
        gone = torch.rand(*shape, generator=generator) < absent
        gone[..., list(keep)] = False
        return scores.masked_fill(gone, -torch.inf).log_softmax(-1)

    rules = table(labels, symbols * symbols, keep=(-1, -symbols)).view(labels, symbols, symbols)
    emissions = table(len(lengths), max(lengths), preterminals) - 3
    tables = [entry.to(dtype) for entry in (table(symbols, keep=(0, -1)), rules, emissions)]
    return (*tables, torch.tensor(lengths))


def brute_log_joint(trees: Trees, root, rules, emissions) -> torch.Tensor:
    """`(samples,)` log p(x, z) of one sentence's trees, straight from the definition.

    Every node sums over its children's symbols: a leaf may be any preterminal.
    """
    labels, length = rules.shape[0], int(trees.lengths[0, 0])
    root, rules, words = root.exp(), rules.exp(), emissions[0].exp()
    totals = []
    for sample in range(trees.samples):
        nodes = {(i, j): (k, a) for i, j, k, a in _nodes(trees, sample)}

        def symbols(left, right, nodes=nodes):
            """Weight of each symbol over the span, its subtree included."""
            weights = torch.zeros(rules.shape[1], dtype=rules.dtype)
            if right - left == 1:
                weights[labels:] = words[left]
            else:
                split, label = nodes[left, right]
                weights[label] = symbols(left, split) @ rules[label] @ symbols(split, right)
            return weights

        totals.append(root @ symbols(0, length))
    return torch.stack(totals).log()


def _nodes(trees: Trees, sample: int) -> list[list[int]]:
    nodes = int(trees.lengths[0, 0]) - 1
    fields = (trees.left, trees.right, trees.split, trees.label)
    return torch.stack([field[0, sample, :nodes] for field in fields], -1).tolist()

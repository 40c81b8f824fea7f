"""Choices by the rules of a context-free grammar (see `choices`), and the weights of its trees."""

from __future__ import annotations

from functools import cached_property

import torch
from torch import Tensor
from torch.nn.functional import embedding

from gfnem.parsing.inference.choices import Choices, Nodes, Rows
from gfnem.parsing.inference.draws import draw_trees, score_choices
from gfnem.parsing.inference.potentials import RulePotentials, at_least_float
from gfnem.parsing.spaces.partial import span_values
from gfnem.parsing.trees.trees import Trees


class RuleChoices(Choices):
    """Choices by the rules of a context-free grammar.

    Args:
        potentials: the rules' weights.
        values: `(batch, n, n + 1, N)` finite log look-ahead of each span and label, in nats.
        temperature: all log weights are divided by it.
    """

    def __init__(self, potentials: RulePotentials, values: Tensor, temperature: float = 1.0):
        self.potentials, self.values = potentials, at_least_float(values)
        self.labels = self.symbols = potentials.labels
        self.max_length, self.lengths = potentials.max_length, potentials.lengths
        self.temperature = temperature

    def tempered(self, temperature: float) -> RuleChoices:
        """The same choices at a temperature."""
        return RuleChoices(self.potentials, self.values, temperature)

    @cached_property
    def _rows(self) -> Rows:
        return Rows.of(self.values.reshape(-1, self.labels) / self.temperature)

    @property
    def rule_table(self) -> Tensor:
        """See `Choices`."""
        return self.potentials.rules

    def _span(self, row: Tensor, left: Tensor, right: Tensor) -> Tensor:
        return (row * self.max_length + left) * (self.max_length + 1) + right

    def root(self) -> Tensor:
        """See `Choices`."""
        row = torch.arange(len(self.lengths), device=self.lengths.device)
        whole = self._span(row, torch.zeros_like(row), self.lengths)
        return self.potentials.root / self.temperature + embedding(whole, self._rows.logs)

    def leaves(self, nodes: Nodes) -> tuple[Tensor, Tensor]:
        """See `Choices`."""
        tables = (self.potentials.left_leaf, self.potentials.right_leaf)
        first, second = (
            embedding(
                (nodes.row * self.max_length + word) * self.labels + nodes.label,
                table.reshape(-1, self.labels),
            )
            for table, word in zip(tables, (nodes.left, nodes.right - 1), strict=True)
        )
        return first / self.temperature, second / self.temperature

    def row(self, nodes: Nodes, left: Tensor, right: Tensor) -> Tensor:
        """See `Choices`."""
        return self._span(nodes.row[:, None], left, right)

    def look(self, rows: Tensor) -> Rows:
        """See `Choices`."""
        return self._rows.take(rows)

    def node_values(self, trees: Trees) -> Tensor:
        """See `Choices`."""
        return span_values(self.values, trees)

    def log_joint(self, trees: Trees) -> Tensor:
        """See `tree_log_joint`."""
        return tree_log_joint(self.potentials, trees)


def sample_trees(
    potentials: RulePotentials, values: Tensor, samples: int, *args, **kwargs
) -> tuple[Trees, Tensor]:
    """`draw_trees` with the arguments of `RuleChoices`."""
    return draw_trees(RuleChoices(potentials, values), samples, *args, **kwargs)


def score_trees(
    potentials: RulePotentials, values: Tensor, trees: Trees, *args, **kwargs
) -> Tensor:
    """`score_choices` with the arguments of `RuleChoices`."""
    return score_choices(RuleChoices(potentials, values), trees, *args, **kwargs)


def tree_log_joint(potentials: RulePotentials, trees: Trees) -> Tensor:
    """Log weight of every rule in the given trees, differentiable.

    Returns:
        `(batch, samples, 1 + nodes)` nats: the root's label, then each node's rule with its words,
        in preorder; 0 past a tree's nodes. A one-word sentence has `single` in its first entry.
        The sum over the last axis is log p(x, z).
    """
    batch, n, labels, _ = potentials.left_leaf.shape
    shape = trees.left.shape
    row = torch.arange(batch, device=trees.left.device)[:, None, None]
    long = (trees.lengths > 1)[:, None]
    if n > 1:
        root = potentials.root.index_select(0, trees.label[..., 0].flatten()).view(shape[:2])
        root = torch.where(long, root, potentials.single[:, None])
    else:
        root = potentials.single[:, None].expand(shape[:2])
    first, second = trees.child_labels()
    mask = trees.mask()
    left_word, right_word = first < 0, second < 0
    first, second = first.clamp(min=0), second.clamp(min=0)
    parent = trees.label
    last = (trees.right - 1).clamp(min=0)
    # Every node looks into all four tables (place 0 where it does not apply): cheaper than packing,
    # and `index_select` has a deterministic backward on the CPU.
    cases = [
        (potentials.rules, (parent * labels + first) * labels + second, ~left_word & ~right_word),
        (
            potentials.left_leaf,
            ((row * n + trees.left) * labels + parent) * labels + second,
            left_word & ~right_word,
        ),
        (
            potentials.right_leaf,
            ((row * n + last) * labels + parent) * labels + first,
            right_word & ~left_word,
        ),
        (
            potentials.both_leaves,
            (row * (n - 1) + trees.left) * labels + parent,
            left_word & right_word,
        ),
    ]
    scores = torch.zeros(shape, dtype=root.dtype, device=root.device)
    for table, place, applies in cases:
        if table.numel():
            applies = applies & mask
            place = torch.where(applies, place, 0).flatten()
            found = table.reshape(-1).index_select(0, place).view(shape)
            scores = torch.where(applies, found, scores)
    return torch.cat([root[..., None], scores], -1)

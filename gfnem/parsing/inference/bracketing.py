"""Bracketings: trees whose labels are summed out."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import embedding

from gfnem.parsing.inference.potentials import RulePotentials, full_precision, safe_log
from gfnem.parsing.trees.heights import by_height
from gfnem.parsing.trees.trees import Trees


def bracketing_log_joint(potentials: RulePotentials, trees: Trees) -> Tensor:
    """Log weight of each tree's bracketing, summed over all ways to label it, differentiable.

    The inside algorithm on a fixed bracketing: nodes are valued from the words upwards, all nodes
    of equal height of all trees at once.

    Returns:
        `(batch, samples)` nats: log of the sum over labels of `p(x, z)`.
    """
    with full_precision(potentials.rules):
        batch, n, labels, _ = potentials.left_leaf.shape
        samples = trees.samples
        if n == 1:
            return potentials.single[:, None].expand(-1, samples)
        levels, place = by_height(trees)
        row = torch.arange(batch, device=place.device)[:, None, None].expand_as(place)
        parts = {"row": row, "left": trees.left, "last": trees.right - 1}
        parts = {name: part.flatten() for name, part in parts.items()}
        tables = _Tables(potentials)
        values: list[Tensor] = []  # of all nodes, level by level
        for level in levels:
            at = {name: part[level.slot] for name, part in parts.items()}
            at |= {"first": level.first, "second": level.second}
            values.append(tables.value(at, torch.cat(values) if values else None))
        values.append(potentials.root.new_zeros(1, labels))  # there may be one-word trees alone
        top = embedding(place[:, :, 0].clamp(min=0), torch.cat(values)) + potentials.root
        return torch.where(
            (trees.lengths > 1)[:, None], top.logsumexp(2), potentials.single[:, None]
        )


class _Tables:
    """Rule weights in exp space, relative to detached maxima."""

    def __init__(self, potentials: RulePotentials):
        self.both_leaves = potentials.both_leaves.flatten(0, 1)
        self.n, self.labels = potentials.max_length, potentials.labels
        self.rules, self.rule_peak = self._relative(potentials.rules[None].flatten(1))
        self.rules = self.rules.view(self.labels, -1).T
        self.left, self.left_peak = self._relative(potentials.left_leaf.flatten(0, 1).flatten(1))
        self.right, self.right_peak = self._relative(potentials.right_leaf.flatten(0, 1).flatten(1))

    @staticmethod
    def _relative(table: Tensor) -> tuple[Tensor, Tensor]:
        peak = table.detach().amax(1, keepdim=True)
        return (table - peak).exp(), peak

    def value(self, at: dict[str, Tensor], known: Tensor | None) -> Tensor:
        """`(count, N)` log weight of each node under each of its labels.

        `known` are the values of all lower nodes; None for nodes above two words.
        """
        if known is None:
            return embedding(at["row"] * (self.n - 1) + at["left"], self.both_leaves)
        cases = (
            (at["first"] >= 0) & (at["second"] >= 0),
            at["first"] < 0,
            at["second"] < 0,
        )
        picks = [case.nonzero().squeeze(1) for case in cases]
        found = [
            solve({name: part[pick] for name, part in at.items()}, known)
            for solve, pick in zip(
                (self._inner, self._left_word, self._right_word), picks, strict=True
            )
        ]
        order = torch.cat(picks).argsort()
        return torch.cat(found).index_select(0, order)

    def _child(self, node: Tensor, known: Tensor) -> tuple[Tensor, Tensor]:
        value = embedding(node, known)
        peak = value.detach().amax(1, keepdim=True)
        return (value - peak).exp(), peak

    def _inner(self, at, known) -> Tensor:
        first, first_peak = self._child(at["first"], known)
        second, second_peak = self._child(at["second"], known)
        pairs = (first[:, :, None] * second[:, None]).flatten(1)
        return safe_log(pairs @ self.rules) + first_peak + second_peak + self.rule_peak

    def _left_word(self, at, known) -> Tensor:
        return self._edge(at, known, "second", at["left"], self.left, self.left_peak)

    def _right_word(self, at, known) -> Tensor:
        return self._edge(at, known, "first", at["last"], self.right, self.right_peak)

    def _edge(self, at, known, child, word, table, table_peak) -> Tensor:
        value, peak = self._child(at[child], known)
        where = at["row"] * self.n + word
        rules = embedding(where, table).view(-1, self.labels, self.labels)
        return safe_log((rules @ value[:, :, None]).squeeze(2)) + peak + table_peak[where]

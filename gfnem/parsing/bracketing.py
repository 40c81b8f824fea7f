"""Bracketings: trees whose labels are summed out."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import embedding

from gfnem.parsing.potentials import RulePotentials, full_precision, safe_log
from gfnem.parsing.trees import Trees


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
        first, second = trees.child_index()
        base = torch.arange(batch * samples, device=first.device).view(batch, samples, 1) * (n - 1)
        height = _heights(trees, first, second)
        parts = {
            "height": height,
            "row": torch.arange(batch, device=first.device)[:, None, None].expand_as(first),
            "left": trees.left,
            "last": trees.right - 1,
            "first": torch.where(first < 0, -1, first + base),
            "second": torch.where(second < 0, -1, second + base),
        }
        parts = {name: part.flatten() for name, part in parts.items()}
        tables = _Tables(potentials)
        # values of all nodes valued so far, and where each node stands among them
        values: list[Tensor] = []
        place = torch.full_like(parts["height"], -1)
        count = 0
        for level in range(int(parts["height"].max()) + 1):
            nodes = (parts["height"] == level).nonzero().squeeze(1)
            at = {name: part[nodes] for name, part in parts.items()}
            known = torch.cat(values) if values else potentials.root.new_zeros(1, labels)
            values.append(tables.value(at, known, place))
            place[nodes] = count + torch.arange(len(nodes), device=nodes.device)
            count += len(nodes)
        roots = place.view(batch, samples, n - 1)[:, :, 0].clamp(min=0)
        top = embedding(roots, torch.cat(values)) + potentials.root
        return torch.where(
            (trees.lengths > 1)[:, None], top.logsumexp(2), potentials.single[:, None]
        )


def _heights(trees: Trees, first: Tensor, second: Tensor) -> Tensor:
    """`(batch, samples, nodes)` int64: 0 above two words, else one more than the higher child.

    -1 past a tree's nodes.
    """
    height = torch.zeros_like(first)
    for node in range(first.shape[2] - 1, -1, -1):
        below = torch.stack([first[:, :, node], second[:, :, node]], 2)
        child = torch.where(below < 0, -1, height.gather(2, below.clamp(min=0)))
        height[:, :, node] = child.amax(2) + 1
    return torch.where(trees.mask(), height, -1)


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

    def value(self, at: dict[str, Tensor], known: Tensor, place: Tensor) -> Tensor:
        """`(count, N)` log weight of each node under each of its labels."""
        if int(at["height"][0]) == 0:
            return embedding(at["row"] * (self.n - 1) + at["left"], self.both_leaves)
        cases = (
            (at["first"] >= 0) & (at["second"] >= 0),
            at["first"] < 0,
            at["second"] < 0,
        )
        picks = [case.nonzero().squeeze(1) for case in cases]
        found = [
            solve({name: part[pick] for name, part in at.items()}, known, place)
            for solve, pick in zip(
                (self._inner, self._left_word, self._right_word), picks, strict=True
            )
        ]
        order = torch.cat(picks).argsort()
        return torch.cat(found).index_select(0, order)

    def _child(self, node: Tensor, known: Tensor, place: Tensor) -> tuple[Tensor, Tensor]:
        value = embedding(place[node], known)
        peak = value.detach().amax(1, keepdim=True)
        return (value - peak).exp(), peak

    def _inner(self, at, known, place) -> Tensor:
        first, first_peak = self._child(at["first"], known, place)
        second, second_peak = self._child(at["second"], known, place)
        pairs = (first[:, :, None] * second[:, None]).flatten(1)
        return safe_log(pairs @ self.rules) + first_peak + second_peak + self.rule_peak

    def _left_word(self, at, known, place) -> Tensor:
        return self._edge(at, known, place, "second", at["left"], self.left, self.left_peak)

    def _right_word(self, at, known, place) -> Tensor:
        return self._edge(at, known, place, "first", at["last"], self.right, self.right_peak)

    def _edge(self, at, known, place, child, word, table, table_peak) -> Tensor:
        value, peak = self._child(at[child], known, place)
        where = at["row"] * self.n + word
        rules = embedding(where, table).view(-1, self.labels, self.labels)
        return safe_log((rules @ value[:, :, None]).squeeze(2)) + peak + table_peak[where]

"""Top-down choice of a tree, guided by a chart of look-ahead values.

A tree is chosen from its root downwards. With `V[b, i, j, A]` the log look-ahead of label `A` over
the span `[i, j)`,

    p(root = A)        is proportional to  exp(root[A] + V[0, n, A]),
    p(k, B, C | i, j, A)  to  exp(log weight of A -> B C + V[i, k, B] + V[k, j, C]),

where a one-word child has neither label nor `V`: its factor is part of the rule's weight. With `V`
the inside chart this is exact sampling from the posterior (Goodman, 1998, "Parsing inside-out",
section 2; Johnson, Griffiths and Goldwater, 2007, "Bayesian inference for PCFGs via MCMC", eq. 4);
any other `V` is a policy whose probabilities are just as exact.

Here is what may be chosen and what it weighs; `draws` draws trees and scores them.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor
from torch.nn.functional import embedding

from gfnem.parsing.trees.trees import Trees


@dataclass
class Nodes:
    """Nodes of many trees, packed: every field is `(count,)` int64.

    Attributes:
        slot: where each stands in the flattened `(batch, samples, nodes)` of `Trees`.
        row: its sentence.
        left, right: its span in tokens.
        label: its nonterminal.
    """

    slot: Tensor
    row: Tensor
    left: Tensor
    right: Tensor
    label: Tensor

    def select(self, index: Tensor) -> Nodes:
        """The nodes at `index`."""
        return Nodes(*(getattr(self, name)[index] for name in self.__dataclass_fields__))


def grow_trees(
    lengths: Tensor,
    max_length: int,
    roots: Tensor,
    choose: Callable[[Nodes], tuple[Tensor, Tensor, Tensor]],
) -> Trees:
    """Builds trees from their roots, all open nodes of all trees at a time, level by level.

    Args:
        lengths: `(batch,)` int64 sentence lengths in tokens.
        max_length: the padded length; the trees get `max_length - 1` node places.
        roots: `(batch, samples)` int64 labels of the roots (unused for one-word sentences).
        choose: given packed nodes, returns the split point and both child labels of each, three
            `(count,)` int64 (a one-word child's label is ignored).
    """
    batch, samples = roots.shape
    places = max_length - 1
    left, right, split, label = roots.new_zeros(4, batch * samples * places)
    trees = torch.arange(batch * samples, device=roots.device)
    trees = trees[lengths.repeat_interleave(samples) > 1]
    slot, row = trees * places, trees.div(samples, rounding_mode="floor")
    nodes = Nodes(slot, row, torch.zeros_like(row), lengths[row], roots.reshape(-1)[trees])
    while len(nodes.slot):
        middle, first, second = choose(nodes)
        left[nodes.slot], right[nodes.slot] = nodes.left, nodes.right
        split[nodes.slot], label[nodes.slot] = middle, nodes.label
        # Preorder places the left child next and the right one behind the left one's subtree.
        children = Nodes(
            torch.cat([nodes.slot + 1, nodes.slot + middle - nodes.left]),
            torch.cat([nodes.row, nodes.row]),
            torch.cat([nodes.left, middle]),
            torch.cat([middle, nodes.right]),
            torch.cat([first, second]),
        )
        nodes = children.select((children.right - children.left > 1).nonzero().squeeze(1))
    shape = (batch, samples, places)
    return Trees(left.view(shape), right.view(shape), split.view(shape), label.view(shape), lengths)


class Choices(ABC):
    """The action weights of a batch under some look-ahead: all that a top-down sampler asks.

    A node is expanded by its *symbol*: what its choices depend on, numbered `0 .. symbols - 1`.
    That is its label where nothing else matters; a subclass may know more (`annotate`). The
    look-ahead of the children of a node, over any span, is a *row* of `N` values.

    Attributes:
        labels: the number `N` of nonterminals.
        symbols: how many symbols there are.
        max_length: the padded width `n` of the batch, in tokens.
        lengths: `(batch,)` int64 sentence lengths in tokens.
        temperature: all log weights are divided by it.
        guided: whether the rules are the target's (see `Scores`).
    """

    labels: int
    symbols: int
    max_length: int
    lengths: Tensor
    temperature: float = 1.0
    guided: bool = True

    @abstractmethod
    def tempered(self, temperature: float) -> Choices:
        """The same choices at a temperature."""

    @abstractmethod
    def root(self) -> Tensor:
        """`(batch, N)` log weights of the root labels."""

    @abstractmethod
    def leaves(self, nodes: Nodes) -> tuple[Tensor, Tensor]:
        """Log weights of the rules whose left / right child is the node's first / last word.

        Two `(count, N)`, over the other child's label.
        """

    @property
    @abstractmethod
    def rule_table(self) -> Tensor:
        """`(symbols, N, N)` log weights of each symbol's rules, as they are at temperature 1."""

    @cached_property
    def _rules(self) -> tuple[Tensor, Tensor]:
        rules = self.rule_table.flatten(1) / self.temperature
        peaks = rules.detach().amax(1)
        return (rules - peaks[:, None]).exp(), peaks

    def rules(self, symbol: Tensor) -> tuple[Tensor, Tensor]:
        """`(count, N, N)` weights of each node's rules, relative to their `(count,)` log maxima."""
        weights, peaks = self._rules
        return embedding(symbol, weights).view(-1, self.labels, self.labels), peaks[symbol]

    @abstractmethod
    def row(self, nodes: Nodes, left: Tensor, right: Tensor) -> Tensor:
        """Names the rows of children of the nodes over spans `(count, any number)`; int64."""

    @abstractmethod
    def look(self, rows: Tensor) -> Rows:
        """The look-ahead of rows, which may be named more than once: any shape, then `N`."""

    @abstractmethod
    def node_values(self, trees: Trees) -> Tensor:
        """`(batch, samples, nodes)` look-ahead of each node of annotated trees, else 0."""

    @abstractmethod
    def log_joint(self, trees: Trees) -> Tensor:
        """`(batch, samples, 1 + nodes)` log weights of the rules of annotated trees."""

    def annotate(self, trees: Trees) -> Trees:
        """The trees with each node's symbol in place of its label."""
        return trees

    def root_symbol(self, label: Tensor) -> Tensor:
        """The symbol of a root with this label."""
        return label

    def child_symbol(self, symbol: Tensor, label: Tensor) -> Tensor:
        """The symbol of a child with this label of a node with this symbol."""
        return label

    def label_of(self, symbol: Tensor) -> Tensor:
        """The label of a node with this symbol."""
        return symbol

    def action_weights(self, trees: Trees) -> Tensor:
        """`(batch, samples, 1 + nodes)` log weights of the choices that build annotated trees."""
        scores = self.log_joint(trees)
        if self.max_length == 1:
            return scores / self.temperature
        values = self.node_values(trees)
        children = [
            torch.where(index < 0, 0.0, values.gather(2, index.clamp(min=0)))
            for index in trees.child_index()
        ]
        ahead = torch.cat([values[:, :, :1], children[0] + children[1]], 2)
        return (scores + ahead) / self.temperature


@dataclass
class Rows:
    """Rows of look-ahead values.

    Attributes:
        logs: `(..., N)` nats.
        peaks: `(...)` their largest, without gradient.
        relative: `(..., N)` the rows over their largest, in exp space.
    """

    logs: Tensor
    peaks: Tensor
    relative: Tensor

    @classmethod
    def of(cls, logs: Tensor) -> Rows:
        """Rows of the given logs."""
        peaks = logs.detach().amax(-1)
        return cls(logs, peaks, (logs - peaks[..., None]).exp())

    def take(self, index: Tensor) -> Rows:
        """Rows of one axis by their index, of any shape."""
        # `embedding`: its backward is fast, and deterministic on several threads
        return Rows(embedding(index, self.logs), self.peaks[index], embedding(index, self.relative))

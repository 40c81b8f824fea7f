"""Choices where a symbol's expansion depends on its parent, and the weights of such trees."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import embedding

from gfnem.parsing.inference.choices import Choices, Nodes, Rows
from gfnem.parsing.inference.draws import draw_trees
from gfnem.parsing.inference.parent_inside import parent_inside
from gfnem.parsing.inference.parent_potentials import ParentPotentials
from gfnem.parsing.inference.potentials import full_precision
from gfnem.parsing.trees.trees import Trees


class ParentChoices(Choices):
    """Choices by rules conditioned on the parent; a node's symbol is `P * N + A`.

    With `V[b, i, j, A, B]` the look-ahead of `B` over `[i, j)` below an `A`, the weight of
    expanding `A` under `P` over `[i, j)` into `B` over `[i, k)` and `C` over `[k, j)` is the
    rule's weight times `exp(V[i, k, A, B] + V[k, j, A, C])`.

    Args:
        potentials: the rules' weights.
        look_ahead: gives `(count, N)` rows of `V` in nats for `(count,)` names of rows,
            `((b * n + i) * (n + 1) + j) * (N + 1) + A` (`A = N` for the root's row).
        temperature: all log weights are divided by it.
    """

    def __init__(
        self,
        potentials: ParentPotentials,
        look_ahead: Callable[[Tensor], Tensor],
        temperature: float = 1.0,
    ):
        self.potentials, self.look_ahead, self.temperature = potentials, look_ahead, temperature
        self.labels, self.parents = potentials.labels, potentials.labels + 1
        self.symbols = self.labels * self.parents
        self.max_length, self.lengths = potentials.max_length, potentials.lengths

    @classmethod
    def from_chart(cls, potentials: ParentPotentials, chart: Tensor) -> ParentChoices:
        """With a whole look-ahead chart `(batch, n, n + 1, N + 1, N)`, `[b, i, j, P, A]`."""
        rows = chart.flatten(0, 3)
        return cls(potentials, lambda names: embedding(names, rows))

    def tempered(self, temperature: float) -> ParentChoices:
        """The same choices at a temperature."""
        return ParentChoices(self.potentials, self.look_ahead, temperature)

    def _row(self, row: Tensor, left: Tensor, right: Tensor, parent: Tensor | int) -> Tensor:
        span = (row * self.max_length + left) * (self.max_length + 1) + right
        return span * self.parents + parent

    @property
    def rule_table(self) -> Tensor:
        """See `Choices`."""
        return self.potentials.rules.flatten(0, 1)

    def root(self) -> Tensor:
        """See `Choices`."""
        row = torch.arange(len(self.lengths), device=self.lengths.device)
        whole = self._row(row, torch.zeros_like(row), self.lengths, self.labels)
        return (self.potentials.root + self.look_ahead(whole)) / self.temperature

    def leaves(self, nodes: Nodes) -> tuple[Tensor, Tensor]:
        """See `Choices`."""
        first, second = (
            self.potentials.leaf_rules(nodes.label, nodes.row * self.max_length + word, side)
            for side, word in enumerate((nodes.left, nodes.right - 1))
        )
        return first / self.temperature, second / self.temperature

    def row(self, nodes: Nodes, left: Tensor, right: Tensor) -> Tensor:
        """See `Choices`."""
        return self._row(nodes.row[:, None], left, right, self.label_of(nodes.label)[:, None])

    def look(self, rows: Tensor) -> Rows:
        """See `Choices`; the look-ahead is asked once for each different row."""
        asked = torch.zeros(
            len(self.lengths) * self.max_length * (self.max_length + 1) * self.parents,
            dtype=torch.bool,
            device=rows.device,
        )
        asked[rows.flatten()] = True
        place = asked.cumsum(0) - 1
        found = Rows.of(self.look_ahead(asked.nonzero().squeeze(1)) / self.temperature)
        return found.take(place[rows])

    def node_values(self, trees: Trees) -> Tensor:
        """See `Choices`."""
        row = torch.arange(len(self.lengths), device=trees.left.device)[:, None, None]
        known = (trees.right > trees.left).flatten().nonzero().squeeze(1)
        parent, label = trees.label // self.labels, trees.label % self.labels
        names = self._row(row, trees.left, trees.right, parent).flatten()[known]
        found = self.look_ahead(names).gather(1, label.flatten()[known, None]).squeeze(1)
        values = found.new_zeros(trees.label.numel()).index_put((known,), found)
        return values.view(trees.label.shape)

    def log_joint(self, trees: Trees) -> Tensor:
        """See `Choices`."""
        return _log_joint(self.potentials, trees)

    def annotate(self, trees: Trees) -> Trees:
        """See `Choices`."""
        return annotated(trees, self.labels)

    def root_symbol(self, label: Tensor) -> Tensor:
        """See `Choices`."""
        return self.labels * self.labels + label

    def child_symbol(self, symbol: Tensor, label: Tensor) -> Tensor:
        """See `Choices`."""
        return self.label_of(symbol) * self.labels + label

    def label_of(self, symbol: Tensor) -> Tensor:
        """See `Choices`."""
        return symbol % self.labels


def parent_sample(potentials: ParentPotentials, samples: int, chart: Tensor | None = None) -> Trees:
    """Exact draws of trees given the sentences, top-down, `samples` for each.

    Args:
        potentials: the rules' weights.
        samples: trees per sentence.
        chart: `parent_inside(potentials)`, computed if absent.
    """
    with torch.no_grad():
        chart = parent_inside(potentials) if chart is None else chart
        return draw_trees(ParentChoices.from_chart(potentials, chart), samples)[0]


def annotated(trees: Trees, labels: int) -> Trees:
    """The trees with `P * N + A` for each node's label `A`; the root's parent is `N`."""
    places = trees.label.shape[2]
    parents = trees.label.new_full((*trees.label.shape[:2], places + 1), labels)
    expanded = trees.mask() & (trees.split > trees.left)  # all, but for partial trees
    for child in trees.child_index():
        # what is not a node writes to a place of its own behind the others
        child = torch.where((child >= 0) & expanded, child, places)
        parents.scatter_(2, child, trees.label)
    label = parents[..., :-1] * labels + trees.label
    return Trees(trees.left, trees.right, trees.split, label, trees.lengths)


def parent_tree_log_joint(potentials: ParentPotentials, trees: Trees) -> Tensor:
    """Log weight of every rule in the given trees, differentiable.

    Returns:
        `(batch, samples, 1 + nodes)` nats: the root's label, then each node's rule with its words,
        in preorder; 0 past a tree's nodes. A one-word sentence has `single` in its first entry.
    """
    return _log_joint(potentials, annotated(trees, potentials.labels))


def _log_joint(potentials: ParentPotentials, trees: Trees) -> Tensor:
    """As `parent_tree_log_joint`, of annotated trees."""
    n, labels, parents = potentials.max_length, potentials.labels, potentials.labels + 1
    root = potentials.single[:, None].expand(trees.label.shape[:2])
    if n == 1:
        return root[..., None]
    root = torch.where(
        (trees.lengths > 1)[:, None], potentials.root[trees.label[..., 0] % labels], root
    )
    with full_precision(root):
        first, second = (part % labels for part in trees.child_labels())  # of a word: anything
        left_word, right_word = trees.split - trees.left == 1, trees.right - trees.split == 1
        row = torch.arange(len(trees.lengths), device=root.device)[:, None, None]
        parts = (row.expand_as(first), trees.left, trees.right - 1, trees.label, first, second)
        parts = [part.flatten() for part in parts]
        scores = torch.zeros(first.numel(), dtype=root.dtype, device=root.device)
        mask = trees.mask()

        def pick(case: Tensor) -> tuple[Tensor, ...]:
            chosen = (case & mask).flatten().nonzero().squeeze(1)
            return chosen, *(part[chosen] for part in parts)

        at, _, _, _, symbol, b, c = pick(~left_word & ~right_word)
        rules = potentials.rules.reshape(-1)
        scores = scores.index_put((at,), rules.index_select(0, (symbol * labels + b) * labels + c))
        for case, table, side in (
            (left_word & ~right_word, potentials.word_first, 0),
            (right_word & ~left_word, potentials.word_second, 1),
        ):
            at, rows, left, last, symbol, b, c = pick(case)
            place = (rows * n + (last if side else left)) * parents + symbol % labels
            words = embedding(place, potentials.words.flatten(0, 2))
            weights = table.transpose(2, 3).reshape(-1, table.shape[2])
            weights = embedding(symbol * labels + (b if side else c), weights)
            scores = scores.index_put((at,), (words + weights).logsumexp(1))
        at, rows, left, _, symbol, _, _ = pick(left_word & right_word)
        both = potentials.both_leaves.reshape(-1)
        place = (rows * (n - 1) + left) * labels * parents + symbol
        scores = scores.index_put((at,), both.index_select(0, place))
        return torch.cat([root[..., None], scores.view(first.shape)], 2)

"""Top-down choice of a tree, guided by a chart of look-ahead values.

A tree is chosen from its root downwards. With `V[b, i, j, k, A]` the log look-ahead of label `A`
under context `k` over the span `[i, j)`, and `g` the context of the children of `A`,

    p(root = A)           is proportional to  exp(root[A] + V[0, n, top, A]),
    p(k, B, C | i, j, A)  to  exp(log weight of A -> B C + V[i, k, g, B] + V[k, j, g, C]),

where a one-word child has neither label nor `V`: its factor is part of the rule's weight. With `V`
the inside chart this is exact sampling from the posterior (Goodman, 1998, "Parsing inside-out",
section 2; Johnson, Griffiths and Goldwater, 2007, "Bayesian inference for PCFGs via MCMC", eq. 4);
any other `V` is a policy whose probabilities are just as exact.

Here is what may be chosen and what it weighs; `draws` draws trees and scores them.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from functools import cached_property, singledispatch

import torch
from torch import Tensor
from torch.nn.functional import pad

from gfnem.fixed_shapes import fixed_shapes
from gfnem.parsing.inference.log_joint import annotated, annotated_log_joint, span_scores
from gfnem.parsing.inference.look_ahead import ChartLookAhead, LookAhead, Rows
from gfnem.parsing.inference.nodes import Nodes
from gfnem.parsing.inference.potentials import Potentials, first_of, relative
from gfnem.parsing.inference.splits import Splits, split_weights
from gfnem.parsing.trees.trees import Trees
from gfnem.sampling import moves_from


class RuleChoices:
    """The action weights of a batch under some look-ahead: all that a top-down sampler asks.

    A node is expanded by its *symbol* `k * N + A`: its label with its context. The look-ahead of
    the children of a node, over any span, is a *row* of `N` values.

    Args:
        potentials: the rules' weights.
        look_ahead: rows of `V`, named `((b * n + i) * (n + 1) + j) * K + k`.
        temperature: all log weights are divided by it.
        guided: whether the rules are the target's (see `Scores`).
        spans: `(batch, n, n + 1)` log weight that a target gives each node's span beside the rules;
            None for none. The look-ahead has it in it.

    Attributes:
        labels: the number `N` of nonterminals.
        symbols: how many symbols there are.
        max_length: the padded width `n` of the batch, in tokens.
        lengths: `(batch,)` int64 sentence lengths in tokens.
    """

    def __init__(
        self,
        potentials: Potentials,
        look_ahead: LookAhead,
        temperature: float | Tensor = 1.0,
        guided: bool = True,
        spans: Tensor | None = None,
    ):
        self.potentials, self.look_ahead, self.spans = potentials, look_ahead, spans
        self.temperature, self.guided = temperature, guided
        self.labels = potentials.labels
        self.symbols = self.labels * potentials.contexts
        self.max_length, self.lengths = potentials.max_length, potentials.lengths
        self._looks_up = potentials.contexts > 1  # if not, a symbol is its label

    @classmethod
    def from_chart(
        cls,
        potentials: Potentials,
        chart: Tensor,
        guided: bool = True,
        spans: Tensor | None = None,
    ) -> RuleChoices:
        """With a whole look-ahead chart `(batch, n, n + 1, K, N)`."""
        if chart.dtype != potentials.root.dtype:  # see `inside`
            potentials = potentials.double()
        return cls(potentials, ChartLookAhead(chart), guided=guided, spans=spans)

    def tempered(self, temperature: float | Tensor) -> RuleChoices:
        """The same choices at a temperature."""
        return RuleChoices(self.potentials, self.look_ahead, temperature, self.guided, self.spans)

    def _row(self, row: Tensor, left: Tensor, right: Tensor, context: Tensor | int) -> Tensor:
        span = (row * self.max_length + left) * (self.max_length + 1) + right
        return span * self.potentials.contexts + context if self._looks_up else span

    def root(self) -> Tensor:
        """`(batch, N)` log weights of the root labels."""
        row = torch.arange(len(self.lengths), device=self.lengths.device)
        whole = self._row(row, torch.zeros_like(row), self.lengths, self.potentials.top)
        return (self.potentials.root + self.look_ahead(whole)) / self.temperature

    def leaves(self, nodes: Nodes) -> Tensor:
        """Log weights of the rules whose left / right child is the node's first / last word.

        `(2, count, N)`, over the other child's label.
        """
        found = self.potentials.edge_rules(nodes.label, nodes.row, nodes.left, nodes.right - 1)
        return found / self.temperature if moves_from(self.temperature, 1) else found

    @property
    def padded(self) -> bool:
        """Whether all nodes are looked at, and not those alone that count (see `fixed_shapes`)."""
        return self.potentials.one_table and fixed_shapes(self.lengths)

    @property
    def dense(self) -> bool:
        """Whether rules are a dense table, whose entries may be a symbol's or a sentence's own."""
        return self._options is DenseOptions

    @cached_property
    def _options(self) -> Callable[..., Options]:
        return options_of(self.potentials, self)

    def options(self, nodes: Nodes, groups: Groups | None = None) -> Options:
        """What nodes of three words or more may do.

        Args:
            nodes: the nodes, which had better come by width.
            groups: how many of them have how many words at most, part after part; where `padded`.
        """
        return self._options(self, nodes, groups)

    @property
    def rule_table(self) -> Tensor:
        """`(entries, N, N)` log weights of rules, as they are at temperature 1.

        `Potentials.rules_of` says which entry is whose.
        """
        return self.potentials.rules.flatten(0, 1)

    @cached_property
    def rule_weights(self) -> tuple[Tensor, Tensor]:
        """`(entries, N * N)` weights of rules, relative to their `(entries,)` log maxima."""
        rules = self.rule_table.flatten(1) / self.temperature
        peaks = rules.detach().amax(1)
        return (rules - peaks[:, None]).exp(), peaks

    @cached_property
    def rule_columns(self) -> Tensor:
        """`(entries, N * N)` the same weights, by the right child's label and the left one's.

        Without gradient.
        """
        weights = self.rule_weights[0].detach().unflatten(1, (self.labels, self.labels))
        return weights.mT.flatten(1)

    def row(self, nodes: Nodes, left: Tensor, right: Tensor) -> Tensor:
        """Names the rows of children of the nodes over spans `(count, any number)`; int64."""
        below = self.potentials.below(self.label_of(nodes.label))[:, None] if self._looks_up else 0
        return self._row(nodes.row[:, None], left, right, below)

    def look(self, rows: Tensor) -> Rows:
        """The look-ahead of rows, which may be named more than once: any shape, then `N`."""
        return self.look_ahead.rows(rows, self.temperature)

    def node_values(self, trees: Trees) -> Tensor:
        """`(batch, samples, nodes)` look-ahead of each node of annotated trees, else 0."""
        row = torch.arange(len(self.lengths), device=trees.left.device)[:, None, None]
        context, label = trees.label // self.labels, self.label_of(trees.label)
        names, nodes = self._row(row, trees.left, trees.right, context), trees.right > trees.left
        if self.padded:
            found = self.look_ahead.entries(names.flatten(), label.flatten())
            return torch.where(nodes, found.view(nodes.shape), 0.0)
        known = nodes.flatten().nonzero().squeeze(1)
        names = names.flatten()[known]
        found = self.look_ahead.entries(names, label.flatten()[known])
        values = found.new_zeros(trees.label.numel()).index_put((known,), found)
        return values.view(trees.label.shape)

    def log_joint(self, trees: Trees) -> Tensor:
        """`(batch, samples, 1 + nodes)` log weights of the rules of annotated trees."""
        return annotated_log_joint(self.potentials, trees)

    def expansions(self, trees: Trees) -> Tensor:
        """As `log_joint`, with what the spans of the nodes count besides."""
        scores = self.log_joint(trees)
        return (
            scores if self.spans is None else scores + pad(span_scores(self.spans, trees), (1, 0))
        )

    def annotate(self, trees: Trees) -> Trees:
        """The trees with each node's symbol in place of its label."""
        return annotated(self.potentials, trees)

    def root_symbol(self, label: Tensor) -> Tensor:
        """The symbol of a root with this label."""
        return self.potentials.top * self.labels + label

    def child_symbol(self, symbol: Tensor, label: Tensor) -> Tensor:
        """The symbol of a child with this label of a node with this symbol."""
        if not self._looks_up:
            return label
        return self.potentials.below(self.label_of(symbol)) * self.labels + label

    def label_of(self, symbol: Tensor) -> Tensor:
        """The label of a node with this symbol."""
        return symbol % self.labels if self._looks_up else symbol

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


class Options(ABC):
    """What nodes of three words or more may do.

    Attributes:
        scores: `(count, widest - 1)` log weights of the splits `left + 1, left + 2, ...`; minus
            infinity where a node has no such split.
    """

    scores: Tensor

    @abstractmethod
    def children(
        self, at: Tensor, column: Tensor, draw: Callable[[Tensor], Tensor]
    ) -> tuple[Tensor, Tensor]:
        """Draws the labels of both children, two `(draws,)`; that of a word has no meaning.

        Args:
            at: `(draws,)` which of the nodes.
            column: `(draws,)` its split, as a column of `scores`.
            draw: draws labels `(draws,)`, given their `(draws, N)` relative weights.
        """


@singledispatch
def options_of(potentials: Potentials, choices: RuleChoices) -> Callable[..., Options]:
    """What makes options of these choices, some nodes, and their groups or None.

    It must not keep the choices, which keep it. Where rules are a dense table, `DenseOptions`.
    """
    return DenseOptions


#: most groups of nodes by width, and how many nodes are worth one more
_GROUPS, GROUPED = 6, 512
#: how many nodes have how many words at most
Groups = Sequence[tuple[int, int]]


def by_width(width: Tensor, worth: int = GROUPED) -> Groups:
    """Groups of nodes with these rising numbers of words `(count,)`; `worth` are worth one more."""
    count = len(width)
    if count < worth:
        return [(count, int(width.max()))]
    groups = width.tensor_split(min(_GROUPS, 1 + count // worth))
    widest = torch.stack([group.max() for group in groups]).tolist()
    return [(len(group), most) for group, most in zip(groups, widest, strict=True)]


def different_nodes(choices: RuleChoices, nodes: Nodes) -> tuple[Nodes, Tensor]:
    """Each different node once, narrow ones first, and `(count,)` which of these each node is.

    Few nodes are not worth a comparison: they are taken as they come.
    """
    if len(nodes) < GROUPED:
        return nodes, torch.arange(len(nodes), device=nodes.left.device)
    n, symbols = choices.max_length, choices.symbols
    spans = ((nodes.right - nodes.left) * len(choices.lengths) + nodes.row) * n + nodes.left
    places, which = first_of(spans * symbols + nodes.label)
    return nodes[places], which


class DenseOptions(Options):
    """Options where rules are a dense table.

    See `splits` for those between two phrases. Nodes had better come by width.

    Args:
        choices: the action weights.
        nodes: the nodes.
        groups: see `RuleChoices.options`.
    """

    def __init__(self, choices: RuleChoices, nodes: Nodes, groups: Groups | None = None):
        width = nodes.right - nodes.left
        groups = groups or by_width(width)
        widest = max(most for _, most in groups)
        column = torch.arange(widest - 1, device=width.device)
        left, right = nodes.left[:, None], nodes.right[:, None]
        names, start = [], 0
        for count, most in groups:
            at = slice(start, start + count)
            part, start = nodes.part(at), at.stop
            cut = torch.minimum(left[at] + 2 + column[: most - 3], right[at] - 2)
            names += [choices.row(part, left[at], cut), choices.row(part, cut, right[at])]
        names += [choices.row(nodes, left + 1, right), choices.row(nodes, left, right - 1)]
        rows = choices.look(torch.cat([name.flatten() for name in names]))
        inside, edges = rows[: -2 * len(width)], rows[-2 * len(width) :]
        # of the label of a phrase beside the first word, and beside the last one
        self._edges, peaks = relative(choices.leaves(nodes) + edges.logs.view(2, len(width), -1))
        beside = (self._edges.sum(-1).log() + peaks)[..., None]
        weights, tops = choices.rule_weights
        entry = choices.potentials.rules_of(nodes.label, nodes.row)
        self._names, table = rows.index, rows.table
        self._splits = Splits(inside.index, entry, groups)
        inner, self._joints = split_weights(
            table.relative, table.peaks, weights, choices.rule_columns, self._splits
        )
        inner = inner + tops.index_select(0, entry)[:, None]
        scores = torch.cat([beside[0], inner, beside[1]], 1)
        last = (width - 2)[:, None]
        scores = torch.where(column == last, beside[1], scores)
        self.scores = scores.masked_fill(column > last, -math.inf)
        self._columns = choices.rule_columns.view(-1, choices.labels)
        self._values, self._last = table.relative, width - 2

    def children(
        self, at: Tensor, column: Tensor, draw: Callable[[Tensor], Tensor]
    ) -> tuple[Tensor, Tensor]:
        """See `Options`."""
        edges = self._edges.flatten(0, 1)
        rows = torch.cat([edges, *(joint.flatten(0, 1) for joint in self._joints)])
        inner, names = (part[at] + column - 1 for part in self._splits.starts())
        word_last = column == self._last[at]
        place = torch.where(column == 0, at, inner + len(edges))
        place = torch.where(word_last, at + len(self._last), place)
        # of two phrases the right one's label, of a phrase beside a word that one's
        one = draw(rows.index_select(0, place))
        # beside a word it has no meaning, and may be any
        name = self._names.index_select(0, names.clamp(0, len(self._names) - 1))
        first = self._values.index_select(0, name)
        entry = self._splits.entries[at] * first.shape[1]
        other = draw(first * self._columns.index_select(0, entry + one))
        return torch.where(word_last, one, other), one

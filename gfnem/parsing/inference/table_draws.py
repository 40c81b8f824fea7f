"""How nodes of three words or more are drawn where rules are one table, without a gradient.

Of a node of `w` words the splits are columns `0 .. w - 2`: the first leaves a word to the left, the
last a word to the right. At each, one child's label is drawn from weights over it: of a phrase
beside a word that of the phrase, and of two phrases that of the right one, with the left one's
summed out. What has two sides, a start and an end or a first and a last word, is looked up for both
at once. Operations are few, since nodes often are.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import pad

from gfnem.batched import Batched
from gfnem.parsing.inference.choices import GROUPED, RuleChoices, by_width, different_nodes
from gfnem.parsing.inference.look_ahead import names_of_spans
from gfnem.parsing.inference.nodes import Nodes
from gfnem.parsing.inference.potentials import relative, safe_log
from gfnem.sampling import by_weight, moves_from
from gfnem.sampling import lots as lots_of

#: how many nodes are worth another group of like width: a group has all operations of a draw
_WORTH = 4 * GROUPED


@dataclass
class Lots(Batched):
    """Random numbers that expansions of nodes are drawn by.

    Attributes:
        split, one, other: of the split and of both labels, see `gfnem.sampling.lots`.
        explored: `(..., 1)` bool, whether all three are drawn uniformly; None where none is.
    """

    split: Tensor
    one: Tensor
    other: Tensor
    explored: Tensor | None

    @classmethod
    def draw(
        cls,
        shape: Sequence[int],
        splits: int,
        labels: int,
        like: Tensor,
        epsilon: float | Tensor = 0.0,
        generator: torch.Generator | None = None,
    ) -> Lots:
        """Numbers for as many nodes as `shape` has, of so many splits, or fewer, and labels.

        Args:
            shape: how many nodes.
            splits, labels: how many.
            like: a tensor of any shape, whose type and device they have.
            epsilon: the share of nodes that are explored.
            generator: the source of randomness, on that device.
        """
        found = [lots_of(shape, count, like, generator) for count in (splits, labels, labels)]
        explored = None
        if moves_from(epsilon, 0):
            chance = torch.rand(*shape, 1, generator=generator, device=like.device)
            explored = chance < epsilon
        return cls(*found, explored)

    def rows(self, at: Tensor) -> Lots:
        """Those of some nodes, `(count,)` int64."""
        return self.map(lambda numbers: numbers.index_select(0, at))

    def explore(self, weights: Tensor) -> Tensor:
        """Weights `(count, entries)` to draw by: all 1 where a node is explored."""
        return weights if self.explored is None else weights.masked_fill(self.explored, 1.0)

    def explore_splits(self, weights: Tensor, width: Tensor, labels: int) -> Tensor:
        """Weights `(count, splits)` to draw by: of explored nodes how many choices each split has.

        A split that leaves a word alone has one label to choose, others have two.

        Args:
            weights: of the splits.
            width: `(count,)` the nodes' words.
            labels: how many there are.
        """
        if self.explored is None:
            return weights
        column, end = torch.arange(weights.shape[1], device=weights.device), width[:, None] - 2
        actions = torch.where((column == 0) | (column == end), 1.0, float(labels))
        return torch.where(self.explored, actions * (column <= end), weights)


@dataclass
class Expansions(Batched):
    """What nodes become; every field is `(count,)`.

    Attributes:
        middle: int64, where they are split.
        first, second: int64 labels of the children; that of a word has no meaning.
        norms: log weight of all that a node may do, in nats.
    """

    middle: Tensor
    first: Tensor
    second: Tensor
    norms: Tensor


class TableDraws:
    """Draws nodes' expansions under some choices.

    Args:
        choices: the action weights, of rules that are one table.
    """

    def __init__(self, choices: RuleChoices):
        n, batch, device = choices.max_length, len(choices.lengths), choices.lengths.device
        side, row = torch.arange(2, device=device)[:, None], torch.arange(batch, device=device)
        rows = choices.look(names_of_spans(batch, n, device))
        self.choices, self.table, self.labels = choices, rows.table, choices.labels
        place = pad(rows.index, (0, 0, 0, 1))  # (batch, n + 1, n + 1)
        # rows of spans by the start, or by the end, that they share
        self.place, self.ends = torch.cat([place, place.mT]).flatten(), n + 1
        self.span = (side * batch + row) * self.ends
        self.rules, self.tops = choices.rule_weights
        self.columns = choices.rule_columns.view(-1, self.labels)
        self.after = torch.arange(1, n + 1, device=device)

    def __call__(self, nodes: Nodes, lots: Lots) -> Expansions:
        """Draws for nodes of any widths, each with its own numbers."""
        if len(nodes) < GROUPED:
            return self.draw(nodes, int((nodes.right - nodes.left).max()), lots)
        different, at = different_nodes(self.choices, nodes)
        groups = by_width(different.right - different.left, _WORTH)
        ends = torch.tensor([count for count, _ in groups], device=at.device).cumsum(0)
        at, order = at.sort()
        lots, found, start, first = lots.rows(order), [], 0, 0
        for (count, widest), last in zip(
            groups, torch.searchsorted(at, ends).tolist(), strict=True
        ):
            part = different.part(slice(start, start + count))
            found.append(self.draw(part, widest, lots[first:last], at[first:last] - start))
            start, first = start + count, last
        drawn = Expansions.cat(found, 0)
        return drawn.map(lambda part: torch.empty_like(part).index_copy_(0, order, part))

    def draw(self, nodes: Nodes, widest: int, lots: Lots, at: Tensor | None = None) -> Expansions:
        """As a call, of nodes of so many words at most, padded to these.

        Nodes may have two words, too. What comes of these has no meaning.

        Args:
            nodes: the nodes.
            widest: how many words the widest has.
            lots: random numbers, of each draw.
            at: `(draws,)` int64, which of the nodes each draw is of; if None, there is one of each.
        """
        left, last, label = nodes.left, nodes.right - 1, nodes.label
        count, splits, labels = len(left), widest - 1, self.labels
        cut = left[:, None] + self.after[:splits]
        outside = cut > last[:, None]
        cut = torch.minimum(cut, last[:, None])
        spans = self.span.index_select(1, nodes.row) + torch.stack([left, nodes.right])
        names = (spans * self.ends)[..., None] + cut
        index = self.place.index_select(0, names.flatten())
        values = self.table.relative.index_select(0, index).view(2, -1, labels)
        first, second = values
        level = self.table.peaks.index_select(0, index).view(2, count, splits).sum(0)
        rules = self.rules.index_select(0, label).view(-1, labels, labels)
        weights = torch.bmm(first.view(count, splits, -1), rules).view(-1, labels).mul_(second)
        level.add_(self.tops.index_select(0, label)[:, None])
        # a word as the left child, at the first split, and as the right one at a node's last
        start = torch.arange(0, count * splits, splits, device=label.device)
        end = start + (last - left - 1)
        ends = torch.cat([start, end])
        index = index.index_select(0, torch.cat([start + count * splits, end]))
        beside = self.choices.leaves(nodes).flatten(0, 1)
        beside, peaks = relative(beside + self.table.logs.index_select(0, index))
        weights.index_copy_(0, ends, beside)
        level.view(-1).index_copy_(0, ends, peaks)

        scores = safe_log(weights.sum(-1)).view(count, splits).add_(level)
        top = scores.masked_fill_(outside, -math.inf).amax(-1, keepdim=True)
        chances = scores.sub_(top).exp_()
        norms = chances.sum(-1).log_().add_(top.squeeze(-1))
        if at is not None:
            parts = start, left, last, label, norms, chances
            start, left, last, label, norms, chances = (part.index_select(0, at) for part in parts)
        chances = lots.explore_splits(chances, last + 1 - left, labels)
        column = by_weight(chances, lot=lots.split)
        place = start + column
        one = by_weight(lots.explore(weights.index_select(0, place)), lot=lots.one)
        rest = first.index_select(0, place).mul_(self.columns.index_select(0, label * labels + one))
        middle = left + 1 + column
        other = torch.where(middle == last, one, by_weight(lots.explore(rest), lot=lots.other))
        return Expansions(middle, other, one, norms)

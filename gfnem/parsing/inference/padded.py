"""Top-down choices where shapes are fixed: place after place of all trees (see `fixed_shapes`).

In preorder a node stands behind its parent, and at place `m` it has at most `n - m` words. So the
places of trees are gone through once, and no size depends on what is chosen. What is no node is
taken for one, and whatever comes of it is asked for by nobody.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn.functional import embedding, pad

from gfnem.parsing.inference.choices import RuleChoices
from gfnem.parsing.inference.look_ahead import names_of_spans
from gfnem.parsing.inference.nodes import Nodes
from gfnem.parsing.trees.trees import Trees
from gfnem.sampling import moves_from

#: groups of nodes by width, told by their places
_GROUPS = 4


def draw_padded(
    choices: RuleChoices,
    roots: Tensor,
    epsilon: float | Tensor = 0.0,
    generator: torch.Generator | None = None,
) -> Trees:
    """Draws trees with these roots, without autograd.

    Args:
        choices: the action weights, of rules under one context.
        roots: `(batch, samples)` int64 labels.
        epsilon, generator: as in `draw_trees`.
    """
    (batch, samples), lengths, n = roots.shape, choices.lengths, choices.max_length
    count, places, draw = batch * samples, n - 1, _Draws(choices, samples, epsilon, generator)
    trees = torch.arange(count, device=roots.device)
    following = 1 - torch.arange(2, device=roots.device)[:, None]
    nothing = roots.new_zeros(2, count)
    # left, right, split, label of each place; one more takes what is no node
    table = roots.new_zeros(4, (places + 1) * count)
    table[1, :count] = torch.where(lengths > 1, lengths, 0).repeat_interleave(samples)
    table[3, :count] = roots.flatten()
    for place in range(places):
        left, right, split, label = table[:, place * count : (place + 1) * count]
        if place == places - 1:  # two words at most
            split.copy_((left + 1).minimum(right))
            break
        middle, children = draw(place, left, right, label)
        split.copy_(middle)
        begin, end = torch.stack([left, middle]), torch.stack([middle, right])
        # the left child stands next, the right one behind the left one's nodes
        below = torch.where(end - begin > 1, begin - left + (place + following), places)
        found = torch.stack([begin, end, nothing, children])
        below = below * count + trees
        table.index_copy_(1, below.flatten(), found.flatten(1))
    shape = (batch, samples, places)
    parts = table.view(4, places + 1, count)[:, :places].transpose(1, 2).contiguous()
    return Trees(*(part.view(shape) for part in parts), lengths[:, None].expand(batch, samples))


class _Draws:
    """Draws how nodes at one place of all trees are expanded.

    Splits are numbered by where they are, `0 .. n`, whatever the node. At each, one child's label
    is drawn from weights over it: of a phrase beside a word that of the phrase, and of two phrases
    that of the right one, with the left one's summed out. What has two sides, a start and an end
    or a first and a last word, is looked up for both at once: tables of both stand behind each
    other.
    """

    def __init__(
        self,
        choices: RuleChoices,
        samples: int,
        epsilon: float | Tensor,
        generator: torch.Generator | None,
    ):
        rules, heat = choices.potentials, choices.temperature
        n, batch, device = choices.max_length, len(choices.lengths), choices.lengths.device
        self.labels, self.explores = choices.labels, moves_from(epsilon, 0)
        self.split, count = torch.arange(n + 1, device=device), batch * samples
        row = torch.arange(batch, device=device).repeat_interleave(samples)
        side = torch.arange(2, device=device)[:, None]
        rows = choices.look(names_of_spans(batch, n, device))
        self.values = rows.table.relative
        # rows of spans, and their log maxima, by the start or by the end that they share
        place = pad(rows.index, (0, 0, 0, 1))  # (batch, n + 1, n + 1)
        self.place = torch.cat([place, place.mT]).flatten(0, 1)
        self.peaks = rows.table.peaks.index_select(0, self.place.flatten()).view(self.place.shape)
        self.row = (side * batch + row) * (n + 1)
        self.rules, self.tops = choices.rule_weights
        leaves = [(part.flatten(0, -2), scale.flatten()) for part, scale in rules.leaf_weights]
        self.words, self.scales = (torch.cat(part) for part in zip(*leaves, strict=True))
        if moves_from(heat, 1):
            self.words, self.scales = self.words.pow(1 / heat), self.scales / heat
        self.stride = batch * self.labels
        self.word = (side * n * batch + row) * self.labels

        def races(*shape: int) -> Tensor:
            """One over exponential times: weights times these are greatest where one is drawn."""
            times = torch.empty(n, *shape, dtype=self.values.dtype, device=device)
            return times.exponential_(generator=generator).reciprocal_()

        self.races = races(count, n + 1), races(count, self.labels), races(count, self.labels)
        if self.explores:
            chance = torch.rand(n, count, 1, generator=generator, device=device)
            self.explored = chance < epsilon

    def __call__(
        self, place: int, left: Tensor, right: Tensor, label: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Splits `(count,)`, and labels `(2, count)` of both children; a word's has no meaning."""
        last = (right - 1).clamp(min=0)
        spans = (self.row + torch.stack([left, right])).flatten()
        first, second = embedding(self.place.index_select(0, spans), self.values).chunk(2)
        level, level_second = self.peaks.index_select(0, spans).chunk(2)
        words = (torch.stack([left, last]) * self.stride + self.word + label).flatten()
        by_word, by_word_last = self.words.index_select(0, words)[:, None].chunk(2)
        scale, scale_last = self.scales.index_select(0, words)[:, None].chunk(2)
        rules = embedding(label, self.rules).view(-1, self.labels, self.labels)
        after = self.split == (left + 1)[:, None]  # the left child is a word
        before = self.split == last[:, None]  # the right one is, and perhaps the left one too
        half = torch.where(after[..., None], by_word, first @ rules)
        weights = torch.where(before[..., None], first * by_word_last, half * second)
        tops = self.tops.index_select(0, label)[:, None]
        level = torch.where(
            before, level + scale_last, torch.where(after, scale, level + tops) + level_second
        )
        scores = weights.sum(2).log() + level
        if self.explores:
            explored = self.explored[place]
            # a split that leaves a word alone has one label to choose, others have two
            actions = torch.where(after | before, 0.0, math.log(self.labels))
            scores = torch.where(explored, actions, scores)
        outside = (self.split <= left[:, None]) | (self.split >= right[:, None])
        chances = scores.masked_fill(outside, -torch.inf).softmax(1)
        split = (chances * self.races[0][place]).argmax(1, keepdim=True)
        at = split[..., None].expand(-1, 1, self.labels)
        chosen = weights.gather(1, at).squeeze(1)
        if self.explores:
            chosen = chosen.masked_fill(explored, 1.0)
        one = (chosen * self.races[1][place]).argmax(1)
        rest = rules.gather(2, one[:, None, None].expand(-1, self.labels, 1)).squeeze(2)
        rest = rest * first.gather(1, at).squeeze(1)
        if self.explores:
            rest = rest.masked_fill(explored, 1.0)
        split = split.squeeze(1)
        other = torch.where(split == last, one, (rest * self.races[2][place]).argmax(1))
        narrow = right - left <= 2  # of two words, or no node
        return torch.where(narrow, (left + 1).minimum(right), split), torch.stack([other, one])


def padded_norms(choices: RuleChoices, trees: Trees) -> Tensor:
    """`(batch, samples, nodes)` log weight of all that each node may do; of narrow ones 0.

    Differentiable. Groups of nodes by width are told by their places.
    """
    batch, samples, places = trees.left.shape
    count, size = places - 1, batch * samples  # a node at the last place has two words
    if count < 1:
        return choices.root().new_zeros(trees.left.shape)
    row = torch.arange(size * count, device=trees.left.device)
    row = (row % size).div(samples, rounding_mode="floor")
    left, right, label = (
        part.flatten(0, 1).T[:count].flatten() for part in (trees.left, trees.right, trees.label)
    )
    wide = right - left > 2  # what has fewer words is weighed as the first three of its sentence
    nodes = Nodes(row, row, torch.where(wide, left, 0), torch.where(wide, right, 3), label)
    starts = sorted({count * group // _GROUPS for group in range(_GROUPS)})
    groups = [
        ((end - start) * size, places + 1 - start)
        for start, end in zip(starts, [*starts[1:], count], strict=True)
    ]
    norms = torch.where(wide, choices.options(nodes, groups).scores.logsumexp(-1), 0.0)
    return pad(norms.view(count, size).T, (0, 1)).reshape(batch, samples, places)

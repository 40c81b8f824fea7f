"""Top-down choice of a tree, guided by a chart of look-ahead values.

A tree is chosen from its root downwards. With `V[b, i, j, A]` the log look-ahead of label `A` over
the span `[i, j)`,

    p(root = A)        is proportional to  exp(root[A] + V[0, n, A]),
    p(k, B, C | i, j, A)  to  exp(log weight of A -> B C + V[i, k, B] + V[k, j, C]),

where a one-word child has neither label nor `V`: its factor is part of the rule's weight. With `V`
the inside chart this is exact sampling from the posterior (Goodman, 1998, "Parsing inside-out",
section 2; Johnson, Griffiths and Goldwater, 2007, "Bayesian inference for PCFGs via MCMC", eq. 4);
any other `V` is a policy whose probabilities are just as exact.

Weights of all splits of a node come from `V_L^T R_A V_R`, one batched product over the nodes, in
exp space with maxima taken out; nothing of size nodes x splits x labels^2 is built.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import embedding

from gfnem.parsing.potentials import RulePotentials, at_least_float, full_precision, safe_log
from gfnem.parsing.trees import Trees


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
    left, right, split, label = torch.zeros(4, batch * samples * places, dtype=torch.long).to(
        roots.device
    )
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


class _Choices:
    """The action weights of a batch under one chart of values."""

    def __init__(self, potentials: RulePotentials, values: Tensor):
        self.potentials = potentials
        self.labels, self.n = potentials.labels, potentials.max_length
        self.values = values.reshape(-1, self.labels)
        self.peaks = self.values.detach().amax(-1)
        self.relative = (self.values - self.peaks[:, None]).exp()
        self.rule_peaks = potentials.rules.detach().amax((1, 2))
        shifted = potentials.rules - self.rule_peaks[:, None, None]
        self.rules = shifted.exp().reshape(self.labels, -1)

    def span(self, row: Tensor, left: Tensor, right: Tensor) -> Tensor:
        """Where a span stands in the flattened chart."""
        return (row * self.n + left) * (self.n + 1) + right

    def root(self) -> Tensor:
        """`(batch, N)` log weights of the root labels."""
        lengths = self.potentials.lengths
        row = torch.arange(len(lengths), device=lengths.device)
        whole = self.span(row, torch.zeros_like(row), lengths)
        return self.potentials.root + embedding(whole, self.values)

    # Rows are taken with `embedding`: its backward is fast, and deterministic on several threads.
    def edges(self, nodes: Nodes) -> tuple[Tensor, Tensor]:
        """Log weights of the other child's label when the left / the right child is a word.

        Two `(count, N)`. For nodes of three words or more.
        """
        row, left, right, label = nodes.row, nodes.left, nodes.right, nodes.label
        tables = (self.potentials.left_leaf, self.potentials.right_leaf)
        words = (left, right - 1)
        spans = (self.span(row, left + 1, right), self.span(row, left, right - 1))
        first, second = (
            embedding((row * self.n + word) * self.labels + label, table.reshape(-1, self.labels))
            + embedding(span, self.values)
            for table, word, span in zip(tables, words, spans, strict=True)
        )
        return first, second

    def splits(self, nodes: Nodes, edges: tuple[Tensor, Tensor], rules: Tensor) -> Tensor:
        """`(count, widest - 1)` log weights of the splits `left + 1, left + 2, ...`.

        Minus infinity where a node has no such split. `rules` is `(count, N, N)`, each node's.
        """
        width = (nodes.right - nodes.left)[:, None]
        column = torch.arange(int(width.max()) - 1, device=width.device)
        middle = torch.minimum(nodes.left[:, None] + 1 + column, nodes.right[:, None] - 1)[:, 1:-1]
        first = self.span(nodes.row[:, None], nodes.left[:, None], middle)
        second = self.span(nodes.row[:, None], middle, nodes.right[:, None])
        inner = embedding(first, self.relative) @ rules
        inner = safe_log((inner * embedding(second, self.relative)).sum(-1))
        inner = inner + self.peaks[first] + self.peaks[second] + self.rule_peaks[nodes.label, None]
        by_left, by_right = (edge.logsumexp(-1, keepdim=True) for edge in edges)
        inner = torch.cat([by_left, inner, by_right], 1)
        inner = torch.where(column == width - 2, by_right, inner)
        return inner.masked_fill(column > width - 2, -math.inf)

    def node_rules(self, nodes: Nodes) -> Tensor:
        """`(count, N, N)` weights of each node's rules, relative to their largest."""
        return embedding(nodes.label, self.rules).view(-1, self.labels, self.labels)


def _draw(weights: Tensor, generator: torch.Generator | None) -> Tensor:
    """Draws an index of the last axis in proportion to the weights (exponential races)."""
    return (weights / torch.empty_like(weights).exponential_(generator=generator)).argmax(-1)


def _temper(potentials: RulePotentials, values: Tensor, temperature: float):
    if temperature == 1:
        return potentials, values
    return potentials.map(lambda table: table / temperature), values / temperature


@torch.no_grad()
def sample_trees(
    potentials: RulePotentials,
    values: Tensor,
    samples: int,
    temperature: float = 1.0,
    epsilon: float = 0.0,
    generator: torch.Generator | None = None,
) -> tuple[Trees, Tensor, Tensor]:
    """Draws trees top-down, without autograd.

    Args:
        potentials: the rules' weights.
        values: `(batch, n, n + 1, N)` finite log look-ahead of each span and label, in nats.
        samples: trees per sentence.
        temperature: every joint action weight (of a root label; of a split and both child labels)
            is raised to `1 / temperature` before normalising.
        epsilon: the probability, at each choice anew, of a uniform one instead: over root labels,
            or over all splits with all child labels.
        generator: the source of randomness, on the potentials' device.

    Returns:
        The trees; `(batch, samples)` their log probability at temperature 1 and epsilon 0; and
        `(batch, samples)` their log probability under the distribution really drawn from. Nats.
    """
    with full_precision(values):
        potentials, values = potentials.detach(), at_least_float(values)
        choices = _Choices(*_temper(potentials, values, temperature))
        lengths, labels = potentials.lengths, potentials.labels
        batch, places = len(lengths), potentials.max_length - 1
        normalisers = values.new_zeros(batch * samples * places)

        def explore(weights: Tensor) -> Tensor | bool:
            draws = torch.rand(weights.shape[:-1], generator=generator, device=weights.device)
            return (draws < epsilon)[..., None]

        root_scores = choices.root()
        roots = root_scores.softmax(-1)[:, None].repeat(1, samples, 1)
        if epsilon > 0:
            roots = roots.masked_fill(explore(roots), 1.0)

        def choose(nodes: Nodes) -> tuple[Tensor, Tensor, Tensor]:
            split = nodes.left + 1
            first, second = torch.zeros_like(split), torch.zeros_like(split)
            wide = (nodes.right - nodes.left > 2).nonzero().squeeze(1)
            if len(wide):
                split[wide], first[wide], second[wide] = choose_wide(nodes.select(wide))
            return split, first, second

        def choose_wide(nodes: Nodes) -> tuple[Tensor, Tensor, Tensor]:
            rules, edges = choices.node_rules(nodes), choices.edges(nodes)
            scores = choices.splits(nodes, edges, rules)
            normaliser = scores.logsumexp(-1, keepdim=True)
            normalisers[nodes.slot] = normaliser.squeeze(-1)
            weights = (scores - normaliser).exp()
            if epsilon > 0:
                explored = explore(weights)
                column = torch.arange(weights.shape[1], device=weights.device)
                last = (nodes.right - nodes.left - 2)[:, None]
                # A split that leaves a word alone has one label to choose, others have two.
                actions = torch.where((column == 0) | (column == last), 1.0, float(labels))
                weights = torch.where(explored, actions * (column <= last), weights)
            column = _draw(weights, generator)
            split = nodes.left + 1 + column
            inner = ((column > 0) & (split < nodes.right - 1))[:, None]
            by_left = choices.relative[choices.span(nodes.row, nodes.left, split)]
            by_right = choices.relative[choices.span(nodes.row, split, nodes.right)]
            first = by_left * (rules @ by_right[..., None]).squeeze(-1)
            first = torch.where(inner, first, edges[1].softmax(-1))
            if epsilon > 0:
                first = first.masked_fill(explored, 1.0)
            first = _draw(first, generator)
            second = rules[torch.arange(len(first), device=first.device), first] * by_right
            second = torch.where(inner, second, edges[0].softmax(-1))
            if epsilon > 0:
                second = second.masked_fill(explored, 1.0)
            return split, first, _draw(second, generator)

        trees = grow_trees(lengths, places + 1, _draw(roots, generator), choose)
        if temperature == 1 and epsilon == 0:
            scores = _action_weights(potentials, values, trees)
            scores[..., 0] -= root_scores.logsumexp(-1)[:, None]
            scores[..., 1:] -= normalisers.view(batch, samples, places)
            log_q = scores.masked_fill_(_forced(trees), 0).sum(-1)
            return trees, log_q, log_q.clone()
        log_q = score_trees(potentials, values, trees).sum(-1)
        behaviour = score_trees(potentials, values, trees, temperature, epsilon).sum(-1)
        return trees, log_q, behaviour


def score_trees(
    potentials: RulePotentials,
    values: Tensor,
    trees: Trees,
    temperature: float = 1.0,
    epsilon: float = 0.0,
) -> Tensor:
    """Log probability of every choice that builds the given trees, differentiable.

    Nodes that several samples of a sentence share are normalised once.

    Args:
        potentials, values, temperature, epsilon: as in `sample_trees`.
        trees: the trees to score.

    Returns:
        `(batch, samples, 1 + nodes)` nats: the root's label, then each node's split and child
        labels, in preorder; 0 past a tree's nodes and for one-word sentences.
    """
    with full_precision(values):
        potentials, values = _temper(potentials, at_least_float(values), temperature)
        choices = _Choices(potentials, values)
        labels, n = choices.labels, choices.n
        weights = _action_weights(potentials, values, trees)
        roots = choices.root().logsumexp(-1)[:, None].expand(-1, trees.samples)
        forced, width = _forced(trees), trees.right - trees.left
        slot = (width > 2).flatten().nonzero().squeeze(1)
        row = slot.div(max(width[0].numel(), 1), rounding_mode="floor")
        spans = choices.span(row, trees.left.flatten()[slot], trees.right.flatten()[slot])
        keys = spans * labels + trees.label.flatten()[slot]
        keys, inverse = keys.unique(return_inverse=True)
        place = torch.zeros(width.numel(), dtype=torch.long, device=width.device)
        place[slot] = inverse + 1
        norms = values.new_zeros(1)
        if len(keys):
            span, label = keys // labels, keys % labels
            start, right = span // (n + 1), span % (n + 1)
            nodes = Nodes(keys, start // n, start % n, right, label)
            edges = choices.edges(nodes)
            splits = choices.splits(nodes, edges, choices.node_rules(nodes))
            norms = torch.cat([norms, splits.logsumexp(-1)])
        norms = norms.index_select(0, place).view(width.shape)
        scores = weights - torch.cat([roots[..., None], norms], -1)
        if epsilon > 0:
            actions = (width - 3).clamp(min=0) * labels**2 + 2 * labels
            actions = torch.cat([actions.new_full((*roots.shape, 1), labels), actions], -1)
            uniform = math.log(epsilon) - actions.to(scores.dtype).log()
            kept = math.log1p(-epsilon) if epsilon < 1 else -math.inf
            scores = torch.logaddexp(scores + kept, uniform)
        return scores.masked_fill(forced, 0)


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


def _action_weights(potentials: RulePotentials, values: Tensor, trees: Trees) -> Tensor:
    """`(batch, samples, 1 + nodes)` unnormalised log weights of the choices building `trees`."""
    batch, n, ends, labels = values.shape
    flat = values.reshape(-1)
    row = torch.arange(batch, device=values.device)[:, None, None]
    scores = tree_log_joint(potentials, trees)
    if n == 1:
        return scores

    def look_ahead(left: Tensor, right: Tensor, label: Tensor, applies: Tensor) -> Tensor:
        place = ((row * n + left) * ends + right) * labels + label
        place = torch.where(applies, place, 0)
        found = flat.index_select(0, place.flatten()).view(place.shape)
        return torch.where(applies, found, 0.0)

    first, second = trees.child_labels()
    mask = trees.mask()
    children = look_ahead(trees.left, trees.split, first, (first >= 0) & mask)
    children = children + look_ahead(trees.split, trees.right, second, (second >= 0) & mask)
    top = (slice(None), slice(None), slice(0, 1))
    root = look_ahead(trees.left[top], trees.right[top], trees.label[top], mask[:, :, :1])
    return scores + torch.cat([root, children], -1)


def _forced(trees: Trees) -> Tensor:
    """`(batch, samples, 1 + nodes)` bool: entries where nothing is chosen."""
    width = trees.right - trees.left
    one_word = (trees.lengths == 1)[:, None, None].expand(-1, trees.samples, 1)
    return torch.cat([one_word, width <= 2], -1)

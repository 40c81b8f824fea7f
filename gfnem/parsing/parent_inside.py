"""Exact inference where a symbol's expansion depends on its parent: inside, best tree, posterior.

A symbol together with its parent's label is the symbol of a larger context-free grammar (parent
annotation; Johnson, 1998, "PCFG models of linguistic tree representations"). Its rules are sparse:
the children of `A` under `P` are annotated with `A` alone. So splits are summed once for each
parent, `M_A[B, C] = sum_k I[i, k, B | A] I[k, j, C | A]`, and then
`I[i, j, A | P] = sum_{B, C} R[P, A, B, C] M_A[B, C]`.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch
from torch import Tensor

from gfnem.parsing.descent import Nodes, grow_trees
from gfnem.parsing.potentials import IMPOSSIBLE, at_least_float, full_precision, safe_log
from gfnem.parsing.trees import Trees


@dataclass
class ParentPotentials:
    """Log weights of one batch's rules under each parent, preterminals summed out.

    In nats; `N` nonterminals; a parent `P` is a nonterminal or, last, the start symbol (`N`). What
    cannot happen weighs `IMPOSSIBLE` or less, never minus infinity.

    Attributes:
        root: `(N,)` log p(A | start).
        rules: `(N + 1, N, N, N)`, `[P, A, B, C]` for A -> B C under P.
        left_leaf: `(batch, n, N, N + 1, N)`, `[b, i, A, P, C]`: the left child of A is word `i`.
        right_leaf: `(batch, n, N, N + 1, N)`, `[b, i, A, P, B]`: the right child is word `i`.
        both_leaves: `(batch, n - 1, N + 1, N)`, `[b, i, P, A]`: children are words `i`, `i + 1`.
        single: `(batch,)` log probability of the first word as a one-word sentence.
        lengths: `(batch,)` int64 sentence lengths in tokens.
    """

    root: Tensor
    rules: Tensor
    left_leaf: Tensor
    right_leaf: Tensor
    both_leaves: Tensor
    single: Tensor
    lengths: Tensor

    @classmethod
    def from_tables(
        cls, root: Tensor, rules: Tensor, emissions: Tensor, lengths: Tensor
    ) -> ParentPotentials:
        """Sums the preterminals out of a grammar's tables, differentiably.

        Args:
            root: `(N + T,)` log weights of the start symbol's child.
            rules: `(N + 1, N, N + T, N + T)` log weights of A -> B C under P.
            emissions: `(batch, n, N + 1, T)` log weight of each word under each preterminal whose
                parent is P.
            lengths: `(batch,)` int64 sentence lengths in tokens.

        Raises:
            ValueError: if the shapes do not agree.
        """
        batch, n, parents, preterminals = emissions.shape
        labels = parents - 1
        symbols = labels + preterminals
        if root.shape != (symbols,) or rules.shape != (parents, labels, symbols, symbols):
            raise ValueError(
                f"{labels} nonterminals and {preterminals} preterminals do not fit root "
                f"{tuple(root.shape)} and rules {tuple(rules.shape)}"
            )
        with full_precision(rules):
            root, rules, emissions = (
                at_least_float(table).clamp(min=IMPOSSIBLE) for table in (root, rules, emissions)
            )
            single = torch.logsumexp(root[labels:] + emissions[:, 0, labels], -1)
            # a word's parent is never the start symbol from here on: (A, batch, n, T)
            words = emissions[:, :, :labels].permute(2, 0, 1, 3)
            peaks = words.detach().amax(-1)
            words = (words - peaks[..., None]).exp()

            def one_leaf(table: Tensor) -> Tensor:
                # (P, A, T, other child)
                table = table.permute(1, 2, 0, 3)
                tops = table.detach().amax(1, keepdim=True)
                weights = (table - tops).exp().flatten(2)
                logs = safe_log(words.flatten(1, 2) @ weights)
                logs = logs.view(labels, batch, n, parents, labels)
                logs = logs + peaks[..., None, None] + tops[:, :, None]
                return logs.permute(1, 2, 0, 3, 4)

            pairs = rules[:, :, labels:, labels:].permute(1, 2, 3, 0)  # A, T, T', P
            tops = pairs.detach().amax((1, 2))
            weights = (pairs - tops[:, None, None]).exp().flatten(2)
            half = words[:, :, :-1].flatten(1, 2) @ weights
            half = half.view(labels, batch, max(n - 1, 0), preterminals, parents)
            both = safe_log((words[:, :, 1:, None] @ half).squeeze(3))
            both = both + (peaks[:, :, :-1] + peaks[:, :, 1:])[..., None] + tops[:, None, None]
            return cls(
                root[:labels],
                rules[:, :, :labels, :labels],
                one_leaf(rules[:, :, labels:, :labels]),
                one_leaf(rules[:, :, :labels, labels:].transpose(2, 3)),
                both.permute(1, 2, 3, 0),
                single,
                lengths,
            )

    @property
    def labels(self) -> int:
        """How many nonterminals there are."""
        return self.rules.shape[1]

    def detach(self) -> ParentPotentials:
        """The same weights without gradient."""
        return ParentPotentials(*(getattr(self, field.name).detach() for field in fields(self)))


def parent_inside(potentials: ParentPotentials, span_potentials: Tensor | None = None) -> Tensor:
    """Log inside value of every span and label under every parent.

    In exp space relative to detached maxima of each span and parent. In float32 a term about 87
    nats below the largest conceivable one counts as 0.

    Args:
        potentials: the rules' weights.
        span_potentials: `(batch, n, n + 1, N)` nats, added for each node `[i, j)` labelled `A`,
            whatever its parent. Default: none.

    Returns:
        `(batch, n, n + 1, N + 1, N)` nats, `[b, i, j, P, A]`, differentiable. `IMPOSSIBLE` where
        `[i, j)` is shorter than two words or passes the sentence's end.
    """
    with full_precision(potentials.rules):
        batch, n, labels, parents, _ = potentials.left_leaf.shape
        device = potentials.rules.device
        none = potentials.rules.new_full((batch, 1, parents, labels), IMPOSSIBLE)
        chart = torch.cat([none, *_widths(potentials, span_potentials)], 1)
        # packed by width: width w starts behind entry 0 and the n - 1, n - 2, ... spans below it
        start = torch.arange(n, device=device)[:, None]
        end = torch.arange(n + 1, device=device)
        width = end - start
        offset = (width - 2) * (2 * n - width + 1) // 2
        place = torch.where(width >= 2, 1 + offset + start, 0)
        chart = chart.index_select(1, place.flatten()).view(batch, n, n + 1, parents, labels)
        outside = end > potentials.lengths[:, None]
        return chart.masked_fill(outside[:, None, :, None, None], IMPOSSIBLE)


def _widths(potentials: ParentPotentials, span_potentials: Tensor | None):
    """Yields the log inside values `(batch, n - width + 1, N + 1, N)` for widths 2, 3, ..., n."""
    batch, n, labels, parents, _ = potentials.left_leaf.shape
    rule_peaks = potentials.rules.detach().amax((2, 3))
    rules = (potentials.rules - rule_peaks[..., None, None]).exp()
    rules = rules.permute(1, 2, 3, 0).reshape(labels, labels * labels, parents)
    left_peaks = potentials.left_leaf.detach().amax(-1)
    left_leaf = (potentials.left_leaf - left_peaks[..., None]).exp()
    right_peaks = potentials.right_leaf.detach().amax(-1)
    right_leaf = (potentials.right_leaf - right_peaks[..., None]).exp()
    older = last = None  # (batch, spans, parent, label) and maxima of the last two widths
    empty = rules.new_empty(batch, n, 0, labels, labels), rules.new_empty(batch, n, 0, labels)
    # narrower spans by start (narrowest first) and by end (widest first): splits pair up in columns
    starts, ends = empty, [table[:, 2:] for table in empty]
    for width in range(2, n + 1):
        count = n - width + 1
        if width == 2:
            log = potentials.both_leaves
        else:
            values, peaks = last
            terms = [
                (left_leaf[:, :count] @ values[:, 1:, ..., None]).squeeze(-1),
                (right_leaf[:, width - 1 :] @ values[:, :-1, ..., None]).squeeze(-1),
            ]
            scales = [
                left_peaks[:, :count] + peaks[:, 1:, :, None],
                right_peaks[:, width - 1 :] + peaks[:, :-1, :, None],
            ]  # all (batch, spans, A, P)
            if width > 3:
                starts = [
                    torch.cat([old[:, :count], new[:, :count, None]], 2)
                    for old, new in zip(starts, older, strict=True)
                ]
                ends = [
                    torch.cat([new[:, 2:, None], old[:, 1:]], 2)
                    for old, new in zip(ends, older, strict=True)
                ]
                split_peaks = starts[1] + ends[1]
                top = split_peaks.amax(2, keepdim=True)
                scaled = starts[0] * (split_peaks - top).exp()[..., None]
                pairs = torch.einsum("bikxy,bikxz->xbiyz", scaled, ends[0])
                inner = pairs.reshape(labels, batch * count, -1) @ rules
                terms.append(inner.view(labels, batch, count, parents).permute(1, 2, 0, 3))
                scales.append(top.squeeze(2)[..., None] + rule_peaks.T)
            peak = torch.stack(scales).amax(0)
            total = sum(
                term * (scale - peak).exp() for term, scale in zip(terms, scales, strict=True)
            )
            log = (safe_log(total) + peak).transpose(2, 3)
        if span_potentials is not None:
            extra = at_least_float(span_potentials).diagonal(width, 1, 2)
            log = log + extra.transpose(1, 2)[:, :, None]
        yield log
        below = log[:, :, :labels]
        peaks = below.detach().amax(-1)
        older, last = last, ((below - peaks[..., None]).exp(), peaks)


def _roots(potentials: ParentPotentials, chart: Tensor) -> Tensor:
    """`(batch, N)` log weight of each root label."""
    lengths = potentials.lengths
    row = torch.arange(len(lengths), device=lengths.device)
    return potentials.root + chart[row, 0, lengths, potentials.labels]


def parent_log_partition(potentials: ParentPotentials, chart: Tensor | None = None) -> Tensor:
    """Log probability of each sentence, `(batch,)` nats, all its trees summed.

    Args:
        potentials: the rules' weights.
        chart: `parent_inside(potentials)`, computed if absent.
    """
    chart = parent_inside(potentials) if chart is None else chart
    total = _roots(potentials, chart).logsumexp(-1)
    return torch.where(potentials.lengths == 1, potentials.single, total)


def parent_span_marginals(potentials: ParentPotentials) -> Tensor:
    """Posterior probability that `[i, j)` is a node labelled `A`, without autograd.

    The gradient of the log partition in additive span potentials (Eisner, 2016).

    Returns:
        `(batch, n, n + 1, N)` probabilities; a sentence's entries sum to its nodes, `length - 1`.
    """
    batch, n, labels = potentials.left_leaf.shape[:3]
    potentials = potentials.detach()
    with torch.enable_grad():
        extra = potentials.rules.new_zeros(batch, n, n + 1, labels, requires_grad=True)
        if n == 1:
            return torch.zeros_like(extra)
        total = parent_log_partition(potentials, parent_inside(potentials, extra)).sum()
        return torch.autograd.grad(total, extra)[0]


def _grow(lengths: Tensor, n: int, roots: Tensor, labels: int, choose) -> Trees:
    """Trees grown over annotated symbols `P * N + A`, and then named by `A`."""
    trees = grow_trees(lengths, n, labels * labels + roots, choose)
    trees.label = trees.label % labels
    return trees


@torch.no_grad()
def parent_viterbi(potentials: ParentPotentials) -> tuple[Trees, Tensor]:
    """The best labelled tree of each sentence (one sample), and `(batch,)` log p(x, z) in nats."""
    with full_precision(potentials.rules):
        return _viterbi(potentials.detach())


def _viterbi(potentials: ParentPotentials) -> tuple[Trees, Tensor]:
    batch, n, labels, parents, _ = potentials.left_leaf.shape
    device, lengths = potentials.rules.device, potentials.lengths
    rules = potentials.rules.flatten(2)
    best = rules.new_full((batch, n, n + 1, parents, labels), IMPOSSIBLE)
    back = torch.zeros(3, *best.shape, dtype=torch.long, device=device)  # split, left, right label
    for width in range(2, n + 1):
        start = torch.arange(n - width + 1, device=device)
        end = start + width
        if width == 2:
            best[:, start, end] = potentials.both_leaves
            back[0][:, start, end] = (start + 1)[:, None, None]
            continue
        middle = start[:, None] + torch.arange(2, width - 1, device=device)
        for label in range(labels):  # one parent of the children at a time, to bound memory
            scores, second = (
                potentials.left_leaf[:, : len(start), label] + best[:, start + 1, end, label, None]
            ).max(-1)
            split = (start + 1)[:, None].expand_as(second)
            choice = torch.stack([split, torch.zeros_like(second), second])
            by_right, first = (
                potentials.right_leaf[:, width - 1 :, label] + best[:, start, end - 1, label, None]
            ).max(-1)
            split = (end - 1)[:, None].expand_as(first)
            other = torch.stack([split, first, torch.zeros_like(first)])
            choice = torch.where(by_right > scores, other, choice)
            scores = torch.maximum(scores, by_right)
            if width > 3:
                lefts = best[:, start[:, None], middle, label]
                rights = best[:, middle, end[:, None], label]
                pairs, cuts = (lefts[..., None] + rights[..., None, :]).max(2)
                inner, pair = (pairs.flatten(2)[:, :, None] + rules[:, label]).max(-1)
                cut = cuts.flatten(2).gather(2, pair) + 2 + start[:, None]
                other = torch.stack([cut, pair // labels, pair % labels])
                choice = torch.where(inner > scores, other, choice)
                scores = torch.maximum(scores, inner)
            best[:, start, end, :, label] = scores
            back[:, :, start, end, :, label] = choice
    score, roots = _roots(potentials, best).max(-1)

    def choose(nodes: Nodes) -> tuple[Tensor, Tensor, Tensor]:
        parent, label = nodes.label // labels, nodes.label % labels
        split, first, second = back[:, nodes.row, nodes.left, nodes.right, parent, label]
        return split, label * labels + first, label * labels + second

    trees = _grow(lengths, n, roots[:, None], labels, choose)
    return trees, torch.where(lengths == 1, potentials.single, score)


@torch.no_grad()
def parent_sample(potentials: ParentPotentials, samples: int, chart: Tensor | None = None) -> Trees:
    """Exact draws of trees given the sentences, top-down, `samples` for each.

    Args:
        potentials: the rules' weights.
        samples: trees per sentence.
        chart: `parent_inside(potentials)`, computed if absent.
    """
    with full_precision(potentials.rules):
        potentials = potentials.detach()
        chart = parent_inside(potentials) if chart is None else chart.detach()
        return _sample(potentials, samples, chart)


def _sample(potentials: ParentPotentials, samples: int, chart: Tensor) -> Trees:
    labels, n = potentials.labels, chart.shape[1]
    rule_peaks = potentials.rules.amax((2, 3))

    def choose(nodes: Nodes) -> tuple[Tensor, Tensor, Tensor]:
        split = nodes.left + 1
        first, second = torch.zeros_like(split), torch.zeros_like(split)
        wide = (nodes.right - nodes.left > 2).nonzero().squeeze(1)
        if len(wide):
            split[wide], first[wide], second[wide] = choose_wide(nodes.select(wide))
        annotation = nodes.label % labels * labels
        return split, annotation + first, annotation + second

    def choose_wide(nodes: Nodes) -> tuple[Tensor, Tensor, Tensor]:
        row, left, right = nodes.row, nodes.left, nodes.right
        parent, label = nodes.label // labels, nodes.label % labels
        by_left = (
            potentials.left_leaf[row, left, label, parent] + chart[row, left + 1, right, label]
        )
        by_right = (
            potentials.right_leaf[row, right - 1, label, parent]
            + chart[row, left, right - 1, label]
        )
        peak = rule_peaks[parent, label]
        rules = (potentials.rules[parent, label] - peak[:, None, None]).exp()
        width = (right - left)[:, None]
        column = torch.arange(int(width.max()) - 1, device=width.device)
        middle = torch.minimum(left[:, None] + 1 + column, right[:, None] - 1)
        lefts = chart[row[:, None], left[:, None], middle, label[:, None]]
        rights = chart[row[:, None], middle, right[:, None], label[:, None]]
        left_peaks, right_peaks = lefts.amax(-1), rights.amax(-1)
        lefts, rights = (
            (lefts - left_peaks[..., None]).exp(),
            (rights - right_peaks[..., None]).exp(),
        )
        scores = safe_log(((lefts @ rules) * rights).sum(-1))
        scores = scores + left_peaks + right_peaks + peak[:, None]
        scores = torch.where(column == 0, by_left.logsumexp(-1)[:, None], scores)
        scores = torch.where(column == width - 2, by_right.logsumexp(-1)[:, None], scores)
        scores = scores.masked_fill(column > width - 2, -torch.inf)
        at = scores.softmax(-1).multinomial(1).squeeze(1)
        place = torch.arange(len(at), device=at.device)
        inner = ((at > 0) & (at < right - left - 2))[:, None]
        lefts, rights = lefts[place, at], rights[place, at]
        first = lefts * (rules @ rights[..., None]).squeeze(-1)
        first = torch.where(inner, first, by_right.softmax(-1)).multinomial(1).squeeze(1)
        second = rules[place, first] * rights
        second = torch.where(inner, second, by_left.softmax(-1)).multinomial(1).squeeze(1)
        return left + 1 + at, first, second

    roots = _roots(potentials, chart).softmax(-1).multinomial(samples, replacement=True)
    return _grow(potentials.lengths, n, roots, labels, choose)


def parent_labels(trees: Trees, start: int) -> Tensor:
    """`(batch, samples, nodes)` int64 label of each node's parent; `start` for the root."""
    parents = trees.label.new_full((*trees.label.shape[:2], trees.label.shape[2] + 1), start)
    for child in trees.child_index():
        # what is not a node writes to a place of its own behind the others
        child = torch.where((child >= 0) & trees.mask(), child, trees.label.shape[2])
        parents.scatter_(2, child, trees.label)
    return parents[..., :-1]


def parent_tree_log_joint(potentials: ParentPotentials, trees: Trees) -> Tensor:
    """Log weight of every rule in the given trees, differentiable.

    Returns:
        `(batch, samples, 1 + nodes)` nats: the root's label, then each node's rule with its words,
        in preorder; 0 past a tree's nodes. A one-word sentence has `single` in its first entry.
    """
    n, labels = potentials.left_leaf.shape[1], potentials.labels
    row = torch.arange(len(trees.lengths), device=trees.left.device)[:, None, None]
    root = potentials.single[:, None].expand(trees.label.shape[:2])
    if n == 1:
        return root[..., None]
    root = torch.where((trees.lengths > 1)[:, None], potentials.root[trees.label[..., 0]], root)
    parent, label = parent_labels(trees, labels), trees.label
    first, second = trees.child_labels()
    left_word, right_word = first < 0, second < 0
    first, second = first.clamp(min=0), second.clamp(min=0)
    last = (trees.right - 1).clamp(min=0)
    scores = torch.where(
        left_word,
        potentials.left_leaf[row, trees.left, label, parent, second],
        potentials.right_leaf[row, last, label, parent, first],
    )
    scores = torch.where(
        left_word | right_word, scores, potentials.rules[parent, label, first, second]
    )
    both = potentials.both_leaves[row, trees.left.clamp(max=n - 2), parent, label]
    scores = torch.where(left_word & right_word, both, scores).masked_fill(~trees.mask(), 0.0)
    return torch.cat([root[..., None], scores], 2)

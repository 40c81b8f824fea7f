"""Bracketings under parent-conditioned rules: trees whose labels are summed out."""

from __future__ import annotations

import torch
from torch import Tensor

from gfnem.parsing.inference.parent_potentials import ParentPotentials
from gfnem.parsing.inference.potentials import full_precision, safe_log
from gfnem.parsing.trees.heights import by_height
from gfnem.parsing.trees.trees import Trees


def parent_bracketing_log_joint(potentials: ParentPotentials, trees: Trees) -> Tensor:
    """Log weight of each tree's bracketing, summed over all ways to label it, differentiable.

    As `bracketing_log_joint`, with a value for each label of a node under each label of its
    parent. What the samples of a sentence have in common, subtree by subtree, is valued once.

    Returns:
        `(batch, samples)` nats: log of the sum over labels of `p(x, z)`.
    """
    with full_precision(potentials.productions):
        n, labels = potentials.max_length, potentials.labels
        single = potentials.single[:, None].expand(-1, trees.samples)
        if n == 1 or not (trees.lengths > 1).any():
            return single
        levels, place = by_height(trees)
        row = torch.arange(len(trees.lengths), device=place.device)[:, None, None]
        left, last = (
            (row * n + end).flatten() for end in (trees.left, (trees.right - 1).clamp(min=0))
        )
        blocks = _Blocks(potentials)
        values: list[Tensor] = []  # `(N + 1, count, N)` of all different nodes, level by level
        known = place.new_zeros(0)  # which of these each node is
        count = 0
        for level in levels:
            first, second = (
                torch.where(child < 0, -1, known[child.clamp(min=0)]) if len(known) else child
                for child in (level.first, level.second)
            )
            # words are told by their places, subtrees by what was found below
            key = (first + 1) * (place.numel() + 1) + second + 1
            key = torch.where(first + second == -2, left[level.slot], key)
            different, same = key.unique(return_inverse=True)
            one = torch.empty_like(different).scatter_(
                0, same, torch.arange(len(same), device=same.device)
            )
            below = torch.cat(values, 1) if values else None
            slot = level.slot[one]
            values.append(blocks.value(first[one], second[one], left[slot], last[slot], below))
            known = torch.cat([known, same + count])
            count += len(one)
        roots = known[place[:, :, 0].clamp(min=0)].flatten()
        top = torch.cat(values, 1)[labels].index_select(0, roots) + potentials.root
        top = top.logsumexp(1).view(len(trees.lengths), -1)
        return torch.where((trees.lengths > 1)[:, None], top, single)


class _Blocks:
    """Rules in exp space, block by block, with the children's parent leading."""

    def __init__(self, potentials: ParentPotentials):
        self.labels, self.parents, self.n = (
            potentials.labels,
            potentials.labels + 1,
            potentials.max_length,
        )
        self.both_leaves = potentials.both_leaves.flatten(0, 1)
        self.words, self.word_peaks = (
            table.flatten(1, 2) for table in potentials.word_weights
        )  # (A, batch * n, T), (A, batch * n)
        self.rules = self._relative(potentials.rules)
        self.word_first = self._relative(potentials.word_first)
        self.word_second = self._relative(potentials.word_second)

    @staticmethod
    def _relative(table: Tensor) -> tuple[Tensor, Tensor]:
        """`(A, X, Y * P)` in exp space and `(A, 1, P)` maxima of a `(P, A, X, Y)` table."""
        table = table.permute(1, 2, 3, 0)
        peaks = table.detach().amax((1, 2), keepdim=True)
        return (table - peaks).exp().flatten(2), peaks.squeeze(1)

    def value(
        self, first: Tensor, second: Tensor, left: Tensor, last: Tensor, below: Tensor | None
    ) -> Tensor:
        """`(N + 1, count, N)` log weight of nodes of one height under each parent and label.

        Args:
            first, second: `(count,)` children's places in `below`, -1 for a word.
            left, last: `(count,)` first and last word, `row * n + position`.
            below: `(N + 1, values so far, N)`.
        """
        if below is None:
            pairs = left.div(self.n, rounding_mode="floor") * (self.n - 1) + left % self.n
            return self.both_leaves.index_select(0, pairs).transpose(0, 1)
        cases = ((first >= 0) & (second >= 0), first < 0, second < 0)
        inner, by_left, by_right = (case.nonzero().squeeze(1) for case in cases)

        def child(index: Tensor) -> tuple[Tensor, Tensor]:
            logs = below[: self.labels].index_select(1, index)
            peaks = logs.detach().amax(2)
            return (logs - peaks[..., None]).exp(), peaks

        def word(index: Tensor) -> tuple[Tensor, Tensor]:
            return self.words.index_select(1, index), self.word_peaks.index_select(1, index)

        found = [
            self._join(self.rules, child(first[inner]), child(second[inner])),
            self._join(self.word_first, word(left[by_left]), child(second[by_left])),
            self._join(self.word_second, word(last[by_right]), child(first[by_right])),
        ]
        order = torch.cat([inner, by_left, by_right]).argsort()
        return torch.cat(found, 1).index_select(1, order).permute(2, 1, 0)

    def _join(self, rules, one, other) -> Tensor:
        """`(A, count, P)` log weights: two children's `(A, count, size)` weights and maxima."""
        weights, tops = rules
        half = (one[0] @ weights).unflatten(2, (-1, self.parents))
        total = (other[0][:, :, None] @ half).squeeze(2)
        return safe_log(total) + (one[1] + other[1])[..., None] + tops

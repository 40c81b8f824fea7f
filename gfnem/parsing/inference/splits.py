"""What splits between two phrases weigh, of many nodes at once, the gradient written out.

With `L` and `R` the look-ahead values of what a split leaves to the left and to the right, and `A`
the rules of the node's symbol, a split weighs the sum of `(L A) * R`: products over nodes that
come by width, in groups that are padded to the widest of each. Everything is in exp space with
maxima taken out, and nothing of size nodes x splits x labels^2 is built.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from gfnem.parsing.inference.potentials import full_precision, safe_log, safe_over


@dataclass
class Splits:
    """Nodes, with what their splits leave.

    Attributes:
        names: `(rows,)` int64 rows of look-ahead values: of each group all left children, node
            after node and split after split, then all right ones.
        entries: `(count,)` int64, which rules each node has.
        groups: how many nodes have how many words at most, group after group.
    """

    names: Tensor
    entries: Tensor
    groups: Sequence[tuple[int, int]]

    def starts(self) -> tuple[Tensor, Tensor]:
        """Two `(count,)` int64: of all nodes' splits each node's first one, and its left child."""
        splits, names, start = [], [], 0
        for count, widest in self.groups:
            places = torch.arange(count, device=self.names.device) * (widest - 3) + start
            splits.append(places)
            names.append(places + start)  # right children of the groups before stand between
            start += count * (widest - 3)
        return torch.cat(splits), torch.cat(names)

    def parts(self, *rows: Tensor) -> Iterator[tuple[slice, list[Tensor]]]:
        """Group by group: its nodes, and of each of some rows left and right ones.

        Args:
            rows: each `(rows, ...)`; they come as `(nodes, splits, ...)`.
        """
        node = start = 0
        for count, widest in self.groups:
            splits = widest - 3
            middle = start + count * splits
            end = middle + count * splits
            yield (
                slice(node, node + count),
                [
                    part.view(count, splits, *part.shape[1:])
                    for each in rows
                    for part in (each[start:middle], each[middle:end])
                ],
            )
            node, start = node + count, end


def split_weights(
    values: Tensor, peaks: Tensor, rules: Tensor, columns: Tensor, splits: Splits
) -> tuple[Tensor, list[Tensor]]:
    """Log weights of splits, and what they are sums of.

    Args:
        values: `(names, N)` look-ahead values in exp space, over maxima.
        peaks: `(names,)` the log maxima.
        rules: `(entries, N * N)` rules in exp space, by the left child's and the right one's label.
        columns: `(entries, N * N)` the same by the right child's and the left one's label.
        splits: the nodes.

    Returns:
        `(count, widest - 3)` nats of the splits with two words or more on both sides, relative to
        the rules' maxima, 0 where a group has no such split; and, where there is no gradient, of
        each group `(nodes, splits, N)` weights over the right child's label, relative; else none.
    """
    if torch.is_grad_enabled() and (values.requires_grad or rules.requires_grad):
        return _Weights.apply(values, peaks, rules, columns, splits), []
    joints: list[Tensor] = []
    found = _weigh(values, peaks, rules, splits, joints)[0]
    return found, joints


def _weigh(
    values: Tensor, peaks: Tensor, rules: Tensor, splits: Splits, joints: list[Tensor] | None
) -> tuple[Tensor, Tensor, list[tuple[Tensor, Tensor]]]:
    """The log weights, all rows' values, and of each group left children's products and sums."""
    labels = values.shape[1]
    copies, tops = values.index_select(0, splits.names), peaks.index_select(0, splits.names)
    widest = max(most for _, most in splits.groups)
    found = values.new_zeros(len(splits.entries), widest - 3)
    kept = []
    for at, (left, right, one, other) in splits.parts(copies, tops):
        own = rules.index_select(0, splits.entries[at]).view(-1, labels, labels)
        half = torch.bmm(left, own)
        joint = half * right
        total = joint.sum(-1)
        found[at, : total.shape[1]] = safe_log(total) + (one + other)
        if joints is None:
            kept.append((half, total))
        else:
            joints.append(joint)
    return found, copies, kept


class _Weights(torch.autograd.Function):
    """See `split_weights`."""

    @staticmethod
    def forward(ctx, values, peaks, rules, columns, splits):
        with full_precision(values):
            found, copies, kept = _weigh(values, peaks, rules, splits, None)
        ctx.kept = len(values), len(rules), columns, splits, copies, kept
        return found

    @staticmethod
    def backward(ctx, gradient: Tensor):
        with full_precision(gradient):
            names, entries, columns, splits, copies, kept = ctx.kept
            labels = copies.shape[1]
            of_values = of_rules = None
            found = torch.empty_like(copies)
            if ctx.needs_input_grad[2]:
                of_rules = gradient.new_zeros(entries, labels**2)
            parts = splits.parts(copies, found)
            for (at, (left, right, to_left, to_right)), (half, total) in zip(
                parts, kept, strict=True
            ):
                share = gradient[at, : total.shape[1]] * safe_over(total)
                torch.mul(half, share[..., None], out=to_right)
                half = right * share[..., None]
                entry = splits.entries[at]
                own = columns.index_select(0, entry).view(-1, labels, labels)
                torch.bmm(half, own, out=to_left)
                if of_rules is not None:
                    of_rules.index_add_(0, entry, torch.bmm(left.mT, half).flatten(1))
            if ctx.needs_input_grad[0]:
                of_values = _sums(found, splits.names, names)
            return of_values, None, of_rules, None, None


def _sums(rows: Tensor, names: Tensor, count: int) -> Tensor:
    """`(count, N)` sums of the rows that have the same name, always added in the same order."""
    if rows.is_cuda:  # `index_add_` adds there as it comes
        return torch.ops.aten.embedding_dense_backward(rows, names, count, -1, False)
    return rows.new_zeros(count, rows.shape[1]).index_add_(0, names, rows)

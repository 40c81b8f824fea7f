"""Sets of parents that a layer permits: their sums and draws, from tables of sums over subsets."""

from __future__ import annotations

import torch
from torch import Tensor

from gfnem.graphs.exact import drawn_by, log_subset_sums

#: nodes that are decided together when a set is drawn
_BLOCK = 5
#: the log of one less what rounding leaves of a difference of equal sums
_LEAST = -1e-15


def partial_sums(scores: Tensor) -> list[Tensor]:
    """Sums over sets of parents, of ever more of the nodes.

    Args:
        scores: `(..., n, 2 ** n)` float64 log weights of all sets by their bit masks, finite.

    Returns:
        Tables of the same shape. In number `k` an entry is the log sum over the sets that are the
        same but lack any of the first `5 k` nodes; in the last, over all subsets.
    """
    n = scores.shape[-2]
    found = [scores]
    for first in range(0, n, _BLOCK):
        nodes = range(first, min(first + _BLOCK, n))
        found.append(log_subset_sums(found[-1], n, nodes))
    return found


def log_shares(sums: Tensor, placed: Tensor, last: Tensor) -> Tensor:
    """`(batch, samples, n)` log sum over the sets of parents that a layer permits each variable.

    They hold placed nodes alone, and one at least of the last layer; where none is placed there is
    no parent. It is the difference of two entries of `sums`: where these hardly differ it is
    nothing beside what other layers have.

    Args:
        sums: `(batch, n, 2 ** n)` the last of `partial_sums`.
        placed, last: `(batch, samples, n)` bit masks of the nodes placed and of the last layer.
    """

    def entries(masks: Tensor) -> Tensor:
        return sums.gather(2, masks.transpose(1, 2)).transpose(1, 2)

    whole = entries(placed)
    return torch.where(placed == 0, whole, _without(whole, entries(placed & ~last)))


def _without(whole: Tensor, part: Tensor) -> Tensor:
    """Log of a sum less a part of it."""
    return whole + (-torch.expm1((part - whole).clamp(max=_LEAST))).log()


@torch.no_grad()
def draw_parents(sums: list[Tensor], node: Tensor, placed: Tensor, last: Tensor) -> Tensor:
    """`(batch, samples)` int64 bit masks: sets of parents, drawn among those that a layer permits.

    Some nodes at a time, by the sums over what is decided later; it costs much less than to weigh
    all sets.

    Args:
        sums: `partial_sums` `(batch, n, 2 ** n)`.
        node: `(batch, samples)` whose parents.
        placed, last: `(batch, samples)` bit masks, as for `log_shares`.
    """
    n = sums[0].shape[1]
    chosen = torch.zeros_like(placed)
    node, placed, last = node[..., None], placed[..., None], last[..., None]
    for number in reversed(range(len(sums) - 1)):
        first = number * _BLOCK
        some = torch.arange(2 ** min(_BLOCK, n - first), device=node.device) << first
        sets, open_ = chosen[..., None] | some, placed & (2**first - 1)
        table = sums[number].flatten(1)

        def entries(masks: Tensor, table: Tensor = table) -> Tensor:
            index = (node << n) + masks
            return table.gather(1, index.flatten(1)).view_as(index)

        # where no parent is of the last layer so far, one must be later
        whole, hit = entries(sets | open_), ((sets & last) > 0) | (placed == 0)
        weight = torch.where(hit, whole, _without(whole, entries(sets | (open_ & ~last))))
        fits = ((sets & ~placed) == 0) & (hit | ((open_ & last) > 0))
        pick = drawn_by(weight.masked_fill(~fits, -torch.inf))
        chosen = sets.gather(2, pick[..., None])[..., 0]
    return chosen

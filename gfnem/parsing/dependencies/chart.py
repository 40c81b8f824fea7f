"""Exact inference over projective dependency trees (Eisner, 1996).

A tree is `heads`, int64: 0 for the word that hangs from the wall, else 1 + the place of a word's
head; 0 past the sentence's end. One word hangs from the wall. All dependents of a word on one side
of it, with what hangs from them, are a *half* of the word; it reaches to its outermost word.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from gfnem.batched import Batched


@dataclass
class ArcPotentials(Batched):
    """Log weights of the parts of dependency trees, in nats.

    Attributes:
        arcs: `(batch, n + 1, n)`, `[b, h, d]`: word `d` hangs from word `h - 1`, or from the wall
            where `h` is 0. Finite everywhere; what no tree has is not looked at.
        nonempty: `(batch, n, 2)`: a word has dependents on its left, on its right.
        base: `(batch,)` what every tree of a sentence has.
        lengths: `(batch,)` int64 words.
    """

    arcs: Tensor
    nonempty: Tensor
    base: Tensor
    lengths: Tensor

    def mask(self) -> Tensor:
        """`(batch, n)` bool: places of words."""
        return torch.arange(self.arcs.shape[2], device=self.arcs.device) < self.lengths[:, None]

    def tilted(self, arcs: Tensor) -> ArcPotentials:
        """With `(batch, n + 1, n)` nats added to the arcs."""
        return ArcPotentials(self.arcs + arcs, self.nonempty, self.base, self.lengths)

    def detach(self) -> ArcPotentials:
        """The same weights without gradient."""
        return self.map(Tensor.detach)


def arc_scores(arcs: Tensor, heads: Tensor) -> Tensor:
    """`(batch, samples, n)` entries of `(batch, n + 1, n)` arcs that `heads` name, all places."""
    return arcs.gather(1, heads)


def has_dependents(heads: Tensor, counted: Tensor) -> Tensor:
    """`(batch, samples, n, 2)` bool: which words have dependents on their left, on their right.

    Args:
        heads: `(batch, samples, n)`.
        counted: bool of a shape that expands to that: the dependents that there are.
    """
    n = heads.shape[2]
    right = torch.arange(n, device=heads.device) >= heads
    place = (2 * heads + right).masked_fill(~counted, 0)  # 0 and 1: dependents of the wall
    found = torch.zeros(*heads.shape[:2], 2 * n + 2, dtype=torch.bool, device=heads.device)
    return found.scatter(2, place, True)[..., 2:].unflatten(2, (n, 2))


def tree_score(potentials: ArcPotentials, heads: Tensor) -> Tensor:
    """`(batch, samples)` log weight of trees, in nats."""
    mask = potentials.mask()[:, None]
    arcs = torch.where(mask, arc_scores(potentials.arcs, heads), 0.0).sum(2)
    halves = has_dependents(heads, mask) * potentials.nonempty[:, None]
    return potentials.base[:, None] + arcs + halves.flatten(2).sum(2)


@dataclass
class Chart:
    """What the inside pass finds.

    Attributes:
        total: `(batch,)` log sum over all trees.
        halves: `(batch, n, n)`, `[b, h, e]`: log sum over halves of word `h` that reach to word
            `e`, without `nonempty`; 0 where `e` is `h`.
    """

    total: Tensor
    halves: Tensor


def inside(
    potentials: ArcPotentials, add: Callable[[Tensor, int], Tensor] = torch.logsumexp
) -> Chart:
    """The inside pass in `O(n^3)`, differentiable.

    A half that is not empty is an arc to its outermost dependent, all of the half before that, and
    the two halves of the dependent. Valence that tells the first dependent from others needs no
    more than this: it is whether a half is empty (Klein and Manning, 2004, section 3).

    Args:
        potentials: log weights.
        add: `add(tensor, axis)`: how alternatives become one.
    """
    arcs = potentials.arcs[:, 1:]
    batch, n, _ = arcs.shape
    to_left, to_right = potentials.nonempty.unbind(2)
    # Spans stand by their first word and width, `first`, and by their last word and falling width,
    # `last`: all ways to divide a span are then slices of both. Before the arc is drawn the parts
    # are halves of both its ends; after it the arc with what is below, and a half behind.
    first, last, first_arc, last_arc = (arcs.new_zeros(2, batch, n, n) for _ in range(4))
    for width in range(1, n):
        count, at = n - width, n - 1 - width
        both = first[:, :, :count, :width] + last[:, :, width:, n - width :]
        drawn = torch.stack([arcs.diagonal(width, 1, 2), arcs.diagonal(-width, 1, 2)])
        drawn = add(both, 3) + drawn  # from the first word to the last, and the other way round
        first_arc[0, :, :count, width] = drawn[0]
        last_arc[1, :, width:, at] = drawn[1]
        right = first_arc[0, :, :count, 1 : width + 1] + last_arc[0, :, width:, at + 1 :]
        left = first_arc[1, :, :count, :width] + last_arc[1, :, width:, at : n - 1]
        half = add(torch.stack([right, left]), 3)
        whole = half + torch.stack([to_right[:, :count], to_left[:, width:]])
        first[0, :, :count, width] = half[0]
        first[1, :, :count, width] = whole[0]
        last_arc[0, :, width:, at] = whole[0]
        last[0, :, width:, at] = whole[1]
        last[1, :, width:, at] = half[1]
        first_arc[1, :, :count, width] = whole[1]
    place = torch.arange(n, device=arcs.device)
    wide = place - place[:, None]  # [h, e]
    rightwards = first[0].gather(2, wide.clamp(min=0).expand_as(arcs))
    leftwards = last[1].gather(2, (n - 1 + wide).clamp(max=n - 1).expand_as(arcs))
    halves = torch.where(wide > 0, rightwards, leftwards)
    roots = root_weights(potentials, halves)
    return Chart(add(roots, 1) + potentials.base, halves)


def given_halves(potentials: ArcPotentials, halves: Tensor) -> Tensor:
    """`(batch, n, n)` what a half weighs whose word has no other on this side, of `Chart.halves`.

    0 for an empty half.
    """
    n = halves.shape[1]
    place = torch.arange(n, device=halves.device)
    wide = place - place[:, None]
    left, right = potentials.nonempty.unbind(2)
    nonempty = torch.where(wide > 0, right[..., None], left[..., None])
    return torch.where(wide == 0, 0.0, halves + nonempty)


def root_weights(potentials: ArcPotentials, halves: Tensor) -> Tensor:
    """`(batch, n)` log weight of the trees that hang from each word, in nats, without `base`.

    Past a sentence's end it is -1e4.
    """
    given = given_halves(potentials, halves)
    last = (potentials.lengths - 1)[:, None, None].expand(-1, halves.shape[1], 1)
    below = given[:, :, 0] + given.gather(2, last)[..., 0]
    return (potentials.arcs[:, 0] + below).masked_fill(~potentials.mask(), -1e4)


def arc_marginals(potentials: ArcPotentials) -> Tensor:
    """`(batch, n + 1, n)` posterior probability of each arc, without autograd."""
    return _gradient(potentials, torch.logsumexp)


def best_heads(potentials: ArcPotentials) -> Tensor:
    """`(batch, n)` int64: the heaviest tree of each sentence, without autograd."""
    found = _gradient(potentials, lambda tensor, axis: tensor.max(axis).values).argmax(1)
    return found.masked_fill(~potentials.mask(), 0)


def minimum_risk(marginals: Tensor, lengths: Tensor) -> Tensor:
    """`(batch, n)` int64: the tree with the most arcs to be expected right.

    Args:
        marginals: `(batch, n + 1, n)` how probable each arc is.
        lengths: `(batch,)` words.
    """
    batch, _, n = marginals.shape
    nothing = marginals.new_zeros(batch, n, 2)
    return best_heads(ArcPotentials(marginals, nothing, nothing[:, 0, 0], lengths))


def _gradient(potentials: ArcPotentials, add: Callable[[Tensor, int], Tensor]) -> Tensor:
    with torch.enable_grad():
        arcs = potentials.arcs.detach().requires_grad_()
        rest = potentials.detach()
        rest.arcs = arcs
        return torch.autograd.grad(inside(rest, add).total.sum(), arcs)[0]

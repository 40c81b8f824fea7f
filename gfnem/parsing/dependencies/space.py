"""Projective dependency trees, built from the wall downwards."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from gfnem.batched import Batched
from gfnem.parsing.dependencies.chart import has_dependents
from gfnem.parsing.text.sentences import Sentences
from gfnem.space import LatentSpace


@dataclass
class PartialHeads(Batched):
    """A tree under construction.

    Attributes:
        owner: `(batch, samples, n)` int64: the head of a word that is attached, as in `heads`; of
            any other the word whose half it is in. 0 is the wall.
        order: `(batch, samples, n)` int64: with which step each word was attached, from 1; 0 where
            it is not.
        lengths: `(batch, samples)` int64 words.
    """

    owner: Tensor
    order: Tensor
    lengths: Tensor

    def open(self) -> Tensor:
        """`(batch, samples, n)` bool: words that are not attached yet."""
        place = torch.arange(self.order.shape[2], device=self.order.device)
        return (self.order == 0) & (place < self.lengths[..., None])

    def nonempty(self) -> Tensor:
        """`(batch, samples, n, 2)` bool: halves that are not empty, on the left and on the right.

        That is known as soon as a half is.
        """
        return has_dependents(self.owner, self.open() | (self.order > 0))


@dataclass
class Half:
    """The half that is divided next: that of the first word which is not attached.

    Attributes:
        owner: `(batch, samples)` int64: its word, as in `heads`; 0: the whole sentence.
        last: `(batch, samples)` int64: its outermost word.
        right: `(batch, samples)` bool: whether it lies on the right of its word.
        words: `(batch, samples, n)` bool: what is in it; nothing in final states.
    """

    owner: Tensor
    last: Tensor
    right: Tensor
    words: Tensor

    @classmethod
    def of(cls, state: PartialHeads) -> Half:
        """The half of each state."""
        open_words = state.open()
        place = torch.arange(open_words.shape[2], device=open_words.device)
        first = open_words.int().argmax(2, keepdim=True)
        owner = state.owner.gather(2, first)
        right = first >= owner
        words = open_words & (state.owner == owner) & ((place >= owner) == right)
        last = torch.where(right, (place * words).amax(2, keepdim=True), first)
        return cls(owner[..., 0], last[..., 0], right[..., 0], words)


class HeadsSpace(LatentSpace[Sentences, Tensor, PartialHeads]):
    """`z` is `(batch, samples, n)` int64 `heads` of a projective tree (see `chart`).

    The first step chooses the word that hangs from the wall. Each other step divides a half: it
    attaches the outermost dependent `k`, and says with `m` how far the half before it reaches. What
    lies between is a half of `k`, what lies beyond `k` another. The half divided is always that of
    the first word not attached, so a tree of `n` words has one trajectory, of `n` steps. The action
    is `k * n + m`; `m` is the half's own word where no dependent is left, and `k` for the wall.
    """

    unique_trajectory = True

    def initial_state(self, x: Sentences, samples: int) -> PartialHeads:
        """Nothing attached."""
        nothing = torch.zeros_like(x.tokens)[:, None].repeat(1, samples, 1)
        return PartialHeads(nothing, nothing, x.lengths[:, None].repeat(1, samples))

    def to_latent(self, x: Sentences, state: PartialHeads) -> Tensor:
        """The heads."""
        return state.owner

    def final_state(self, x: Sentences, z: Tensor) -> PartialHeads:
        """The trees are built again."""
        state = self.initial_state(x, z.shape[1])
        least, most = extents(z)
        place = torch.arange(z.shape[2], device=z.device)
        for _ in range(z.shape[2]):
            half = Half.of(state)
            of_half = half.words & (z == half.owner[..., None])
            outer = torch.where(half.right, (place * of_half).amax(2), of_half.int().argmax(2))
            k = outer[..., None]
            before = torch.where(
                half.right, least.gather(2, k)[..., 0] - 1, most.gather(2, k)[..., 0] + 1
            )
            m = torch.where(half.owner == 0, outer, before)
            state = state.where(
                self.is_final(state), self.step(state, self.action(state, outer, m))
            )
        return state

    @staticmethod
    def action(state: PartialHeads, dependent: Tensor, before: Tensor) -> Tensor:
        """The number of the action that attaches `dependent`, the half before it up to `before`."""
        return dependent * state.owner.shape[2] + before

    def is_final(self, state: PartialHeads) -> Tensor:
        """Whether every word is attached."""
        return ~state.open().any(2)

    def is_initial(self, state: PartialHeads) -> Tensor:
        """Whether no word is."""
        return (state.order == 0).all(2)

    def forward_mask(self, state: PartialHeads) -> Tensor:
        """`(batch, samples, n * n)`."""
        half = Half.of(state)
        place = torch.arange(state.owner.shape[2], device=state.owner.device)
        k, m = place[:, None], place
        own = half.owner[..., None, None] - 1
        inside = torch.where(
            half.right[..., None, None], (own <= m) & (m < k), (k < m) & (m <= own)
        )
        inside = torch.where(own < 0, k == m, inside)
        return (inside & half.words[..., None]).flatten(2)

    def backward_mask(self, state: PartialHeads) -> Tensor:
        """`(batch, samples, 1)`: there is one way back."""
        return ~self.is_initial(state)[..., None]

    def step(self, state: PartialHeads, action: Tensor) -> PartialHeads:
        """Attaches a word and hands out the two halves of it."""
        half, n = Half.of(state), state.owner.shape[2]
        place = torch.arange(n, device=action.device)
        k, m = (action // n)[..., None], (action % n)[..., None]
        beyond = torch.where(half.right[..., None], place > m, place < m)
        beyond = (beyond | (half.owner == 0)[..., None]) & half.words & (place != k)
        number = (state.order > 0).sum(2, keepdim=True) + 1
        order = torch.where((place == k) & half.words, number, state.order)
        return PartialHeads(torch.where(beyond, k + 1, state.owner), order, state.lengths)

    def unstep(self, state: PartialHeads, action: Tensor) -> PartialHeads:
        """Takes back the word attached last, and what was handed to it."""
        k = state.order.argmax(2, keepdim=True)
        place = torch.arange(state.owner.shape[2], device=k.device)
        below = state.open() & (state.owner == k + 1)
        owner = torch.where(below, state.owner.gather(2, k), state.owner)
        return PartialHeads(owner, state.order.masked_fill(place == k, 0), state.lengths)

    def backward_action(self, state: PartialHeads, action: Tensor) -> Tensor:
        """The only way back."""
        return torch.zeros_like(action)

    def forward_action(self, state: PartialHeads, action: Tensor) -> Tensor:
        """The word attached last, and how far the half before it reaches."""
        k = state.order.argmax(2, keepdim=True)
        owner = state.owner.gather(2, k)
        place = torch.arange(state.owner.shape[2], device=k.device)
        before = state.open() & (state.owner == owner)
        after_own, before_own = before & (place >= owner), before & (place < owner)
        own = (owner[..., 0] - 1).clamp(min=0)
        right = torch.where(after_own, place, -1).amax(2).maximum(own)
        left = torch.where(before_own, place, len(place)).amin(2).minimum(own)
        m = torch.where(k[..., 0] > own, right, left)
        return self.action(state, k[..., 0], torch.where(owner[..., 0] == 0, k[..., 0], m))


def extents(heads: Tensor) -> tuple[Tensor, Tensor]:
    """Two `(batch, samples, n)` int64: the first and the last word below each word, or itself."""
    n = heads.shape[2]
    place = torch.arange(n, device=heads.device).expand_as(heads)
    least, most = (torch.nn.functional.pad(place, (1, 0)) for _ in range(2))  # entry 0: the wall
    for _ in range(n - 1):  # a tree is no deeper
        least = least.scatter_reduce(2, heads, least[..., 1:], "amin")
        most = most.scatter_reduce(2, heads, most[..., 1:], "amax")
    return least[..., 1:], most[..., 1:]

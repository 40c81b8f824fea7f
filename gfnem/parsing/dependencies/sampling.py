"""Sentences of a dependency model, drawn with their trees."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from gfnem.batched import Batched
from gfnem.parsing.text.sentences import Sentences

#: the sides of a word
LEFT, RIGHT = 0, 1

#: most rounds of draws, of which those that are short enough are kept
_ROUNDS = 100


@dataclass
class Decisions(Batched):
    """What some words decide as heads, in nats.

    Attributes:
        attach: `(words, 2, vocab_size)` log probability of each dependent on each side.
        go: `(words, 2, 2)` log-odds of another dependent, by side and valence: whether there is
            none yet on that side, or one.
    """

    attach: Tensor
    go: Tensor


def draw_trees(
    roots: Tensor, decide: Callable[[Tensor], Decisions], count: int, max_length: int
) -> tuple[Sentences, Tensor]:
    """Draws `count` sentences with their heads `(count, 1, n)`, given that they are short enough.

    Args:
        roots: `(vocab_size,)` log probability of each word as the root.
        decide: what words decide as heads.
        max_length: longer sentences are thrown away and drawn again.

    Raises:
        RuntimeError: if fewer than one sentence in a hundred is as short.
    """
    words, heads, lengths = [], [], []
    missing = count
    for _ in range(_ROUNDS):
        found = _Drawn(roots, decide, max(missing, 32), max_length)
        found.run()
        kept = (found.size <= max_length).nonzero()[:missing, 0]
        missing -= len(kept)
        words.append(found.in_order(found.word)[kept])
        heads.append(found.in_order(found.head())[kept])
        lengths.append(found.size[kept])
        if not missing:
            break
    else:
        raise RuntimeError(f"sentences of at most {max_length} words are too rare to draw")
    length = torch.cat(lengths)
    n = int(length.max())
    return Sentences(torch.cat(words)[:, :n], length), torch.cat(heads)[:, None, :n]


class _Drawn:
    """Sentences that are drawn from left to right, each with a stack of words not yet complete.

    Words are numbered as they are drawn, from 1; 0 stands for the wall. A word is said once its
    dependents on the left are complete.
    """

    def __init__(
        self, roots: Tensor, decide: Callable[[Tensor], Decisions], count: int, max_length: int
    ):
        self.decide, self.longest = decide, max_length
        shape = count, max_length + 2  # the last place is for what is too long

        def zeros() -> Tensor:
            return torch.zeros(shape, dtype=torch.long, device=roots.device)

        self.word, self.parent, self.place = zeros(), zeros(), zeros()
        self.left, self.later, self.stack = zeros(), zeros(), zeros()
        self.size, self.depth, self.said = zeros()[:, 0], zeros()[:, 0], zeros()[:, 0]
        every = torch.ones_like(self.size, dtype=torch.bool)
        self._push(every, torch.multinomial(roots.exp(), count, replacement=True), self.size)

    def run(self) -> None:
        """Draws until all sentences are complete or too long."""
        while (live := (self.depth > 0) & (self.size <= self.longest)).any():
            at = (self.depth - 1).clamp(min=0)
            top = _look(self.stack, at)
            made, left = self.decide(_look(self.word, top)), _look(self.left, top)
            go = made.go.sigmoid()
            new, to_left = live & (left < 0), live & (left > 0)
            say = live & (left == 0) & (_look(self.place, top) == 0)
            rest = live & ~new & ~to_left & ~say
            p = go[:, RIGHT].gather(1, _look(self.later, top)[:, None])[:, 0]
            to_right = rest & (torch.rand_like(p) < p)
            self.said = self.said + say
            _put(self.place, top, self.said, say)
            _put(
                self.left, top, torch.where(new, self._number(go[:, LEFT]), left - 1), new | to_left
            )
            _put(self.later, top, torch.ones_like(top), to_right)
            self.depth = self.depth - (rest & ~to_right).long()
            new = to_left | to_right
            row = torch.arange(len(top), device=top.device)
            child = torch.multinomial(made.attach[row, to_right.long()].exp(), 1)[:, 0]
            self._push(new, child, top)

    def _push(self, new: Tensor, word: Tensor, parent: Tensor) -> None:
        self.size = self.size + new
        number = self.size
        unknown = torch.full_like(word, -1)  # how many there are on its left
        for table, value in ((self.word, word), (self.parent, parent), (self.left, unknown)):
            _put(table, number, value, new)
        _put(self.stack, self.depth, number, new)
        self.depth = self.depth + new

    def _number(self, go: Tensor) -> Tensor:
        """`(count,)` dependents on a side, of the probabilities `(count, 2)` of another, drawn."""
        first, later = go.unbind(1)
        more = torch.rand_like(later).log() / later.clamp(1e-6, 1 - 1e-6).log()
        number = 1 + more.clamp(max=self.longest).long()
        return torch.where(torch.rand_like(first) < first, number, 0)

    def head(self) -> Tensor:
        """`(count, numbers)` the place of each word's head, from 1; 0 for the wall."""
        return self.place.gather(1, self.parent)

    def in_order(self, table: Tensor) -> Tensor:
        """What a table has of words by number, by place from 0."""
        found = torch.zeros_like(table).scatter(1, self.place, table)
        return found[:, 1 : self.longest + 1]


def _look(table: Tensor, at: Tensor) -> Tensor:
    return table.gather(1, at[:, None])[:, 0]


def _put(table: Tensor, at: Tensor, value: Tensor, where: Tensor) -> None:
    at = at[:, None]
    table.scatter_(1, at, torch.where(where[:, None], value[:, None], table.gather(1, at)))

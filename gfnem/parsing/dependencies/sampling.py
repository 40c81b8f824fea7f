"""Sentences of a dependency model, drawn with their trees."""

from __future__ import annotations

import torch
from torch import Tensor

from gfnem.parsing.text.sentences import Sentences

#: most rounds of draws, of which those that are short enough are kept
_ROUNDS = 100


def draw_trees(
    roots: Tensor, attach: Tensor, go: Tensor, count: int, max_length: int
) -> tuple[Sentences, Tensor]:
    """Draws `count` sentences with their heads `(count, 1, n)`, given that they are short enough.

    Args:
        roots: `(vocab_size,)` log probability of each word as the root.
        attach: `(vocab_size, 2, vocab_size)` of each dependent, by head and side.
        go: `(vocab_size, 2, 2)` log-odds of another dependent, by side and valence.
        max_length: longer sentences are thrown away and drawn again.

    Raises:
        RuntimeError: if fewer than one sentence in a hundred is as short.
    """
    words, heads, lengths = [], [], []
    missing = count
    for _ in range(_ROUNDS):
        found = _Drawn(roots, attach, go, max(missing, 32), max_length)
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

    def __init__(self, roots: Tensor, attach: Tensor, go: Tensor, count: int, max_length: int):
        self.attach, self.go, self.longest = attach.exp(), go.sigmoid(), max_length
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
            word, left = _look(self.word, top), _look(self.left, top)
            to_left = live & (left > 0)
            say = live & (left == 0) & (_look(self.place, top) == 0)
            rest = live & ~to_left & ~say
            p = self.go[word, 1].gather(1, _look(self.later, top)[:, None])[:, 0]
            to_right = rest & (torch.rand_like(p) < p)
            self.said = self.said + say
            _put(self.place, top, self.said, say)
            _put(self.left, top, left - 1, to_left)
            _put(self.later, top, torch.ones_like(top), to_right)
            self.depth = self.depth - (rest & ~to_right).long()
            new = to_left | to_right
            child = torch.multinomial(self.attach[word, to_right.long()], 1)[:, 0]
            self._push(new, child, top)

    def _push(self, new: Tensor, word: Tensor, parent: Tensor) -> None:
        self.size = self.size + new
        number = self.size
        go = self.go[word, 0]
        first = torch.rand_like(go[:, 0]) < go[:, 0]
        more = torch.rand_like(go[:, 1]).log() / go[:, 1].clamp(1e-6, 1 - 1e-6).log()
        left = torch.where(first, 1 + more.clamp(max=self.longest).long(), 0)
        for table, value in ((self.word, word), (self.parent, parent), (self.left, left)):
            _put(table, number, value, new)
        _put(self.stack, self.depth, number, new)
        self.depth = self.depth + new

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

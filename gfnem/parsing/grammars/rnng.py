"""A generator of sentences and trees that remembers its whole derivation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import dropout, logsigmoid

from gfnem.parsing.text.sentences import Sentences
from gfnem.parsing.trees.derivations import Derivations, preorder
from gfnem.parsing.trees.trees import Trees
from gfnem.ranges import Count, Fact, PartialShare
from gfnem.target import GenerativeModel

#: stacks whose next words' probabilities are held in memory at a time
CHUNK = 4096


class RNNG(GenerativeModel[Sentences, Trees]):
    """A recurrent neural network grammar over unlabelled binary trees.

    Generates words and tree together, from left to right (Dyer et al. 2016, arXiv 1602.07776; the
    unlabelled binary form of Kim et al. 2019, arXiv 1904.03746, section 2.1). An LSTM reads the
    stack from the bottom to the top; words are embedded, and two items that are joined are
    composed by a binary Tree-LSTM (Tai et al. 2015, eqs. 9-14). The first word is pushed onto the
    empty stack; after each push there is a choice:

    - one item on the stack: SHIFT, or the sentence ends;
    - more: SHIFT, or REDUCE the two topmost items to one.

    SHIFT draws the next word given the stack as it is. Everything on the stack, to the bottom,
    has a say in every choice, so nothing here can be done by dynamic programming. With a narrow
    `memory` what is to be known of earlier words must be in the few topmost items, as it is where
    they are constituents.

    Args:
        vocab_size: words, the unknown word included; from the data if None.
        dim: size of embeddings and of both LSTMs' states.
        dropout: share of what the stack reads of its items, and of what choices and words read of
            the stack, that is left out at random; in training and with autograd only, that is, in
            the M-step: what the sampler aims at is not random.
        memory: how many of the topmost items have a say in a choice; None: the whole stack.
    """

    unit = "token"

    def __init__(
        self,
        vocab_size: Fact = None,
        dim: Count = 128,
        dropout: PartialShare = 0.3,
        memory: Count | None = None,
    ):
        super().__init__()
        self.memory = memory
        self.vocab_size, self.dim, self.dropout = vocab_size, dim, dropout
        self.word = nn.Embedding(vocab_size, dim)
        self.compose_net = nn.Linear(2 * dim, 5 * dim)
        self.bottom = nn.Parameter(torch.zeros(2 * dim))
        self.item_net = nn.Linear(dim, 4 * dim)
        self.stack_net = nn.Linear(dim, 4 * dim, bias=False)
        self.close_net = nn.Linear(dim, 2)  # REDUCE, end; against SHIFT
        self.word_net = nn.Linear(dim, dim)  # words are told by the embeddings they are read by
        self.word_bias = nn.Parameter(torch.zeros(vocab_size))
        nn.init.normal_(self.word.weight, std=0.1)
        with torch.no_grad():  # remember at first
            self.item_net.bias[dim : 2 * dim] += 1

    def facts(self) -> dict[str, Any]:
        """What spaces and policies are told: one label, and how large `Stack.state` is."""
        return {"nonterminals": 1, "stack_size": 2 * self.dim}

    def names(self) -> list[str]:
        """The only label."""
        return ["X"]

    def units(self, x: Sentences) -> Tensor:
        """`(batch,)` tokens of each sentence."""
        return x.lengths

    # ------------------------------------------------------------------ the networks

    def leaves(self, words: Tensor) -> Tensor:
        """`(..., 2 * dim)` items of word indices `(...)`: what is seen, and a memory cell."""
        return self.word(words).repeat(*(1,) * words.dim(), 2)

    def compose(self, first: Tensor, second: Tensor) -> Tensor:
        """Joins items, `(..., 2 * dim)` each."""
        (seen, cell), (other_seen, other_cell) = first.chunk(2, -1), second.chunk(2, -1)
        gates = self.compose_net(torch.cat([seen, other_seen], -1))
        gates, update = gates.split([4 * self.dim, self.dim], -1)
        keep, keep_other, write, show = gates.sigmoid().chunk(4, -1)
        cell = keep * cell + keep_other * other_cell + write * update.tanh()
        return torch.cat([show * cell.tanh(), cell], -1)

    def push(self, below: Tensor, item: Tensor) -> Tensor:
        """The stack's state `(..., 2 * dim)` with one more item.

        Args:
            below: the state without it.
            item: `(..., 4 * dim)`, what `item_net` makes of the seen half of the item.
        """
        hidden, cell = below.chunk(2, -1)
        gates, update = (item + self.stack_net(hidden)).split([3 * self.dim, self.dim], -1)
        write, keep, show = gates.sigmoid().chunk(3, -1)
        cell = keep * cell + write * update.tanh()
        return torch.cat([show * cell.tanh(), cell], -1)

    def close_logit(self, state: Tensor, alone: Tensor) -> Tensor:
        """`(...)` log odds, in nats, of ending (where an item is `alone`) or REDUCE to SHIFT."""
        reduce, end = self.close_net(state[..., : self.dim]).unbind(-1)
        return torch.where(alone, end, reduce)

    def word_query(self, state: Tensor) -> Tensor:
        """`(..., dim)`: a word's logit is this times its embedding, plus its bias."""
        return self.word_net(state[..., : self.dim])

    def word_logits(self, state: Tensor) -> Tensor:
        """`(..., vocab_size)` unnormalised log probabilities of the word to SHIFT."""
        return self.word_query(state) @ self.word.weight.T + self.word_bias

    # ------------------------------------------------------------------ scoring

    def log_joint(self, x: Sentences, z: Trees) -> Tensor:
        """`(batch, samples)` `log p(x, z)` in nats; labels are ignored.

        Whatever several trees of the batch have in common is computed once: equal subtrees, equal
        stacks, and the distribution of the next word given a stack.
        """
        stacks = self.stacks(x, z)
        way, states = stacks.way, self._drop(stacks.states)
        nodes = way.first.shape[2]
        close = self.close_logit(states, stacks.depths == 0)
        choices = torch.cat([logsigmoid(close), logsigmoid(-close)])
        chosen = pick(choices, stacks.after + len(close) * way.shifts)
        score = torch.where(way.item_mask, chosen, 0.0).sum(2)

        before = torch.where(way.below < 0, 0, stacks.after.gather(2, way.below.clamp(min=0)))
        before = torch.where(way.item_mask[:, :, nodes:], before, 0)
        used, place = before.unique(return_inverse=True)
        seen = states.index_select(0, used)
        query = self.word_query(seen)
        total = torch.cat([self.word_logits(part).logsumexp(1) for part in seen.split(CHUNK)])
        words = x.tokens[:, None].expand_as(place)
        said = pick(query, place) * self.word(x.tokens)[:, None]
        said = said.sum(3) + pick(self.word_bias, words) - pick(total, place)
        return score + torch.where(way.item_mask[:, :, nodes:], said, 0.0).sum(2)

    def stacks(self, x: Sentences, z: Trees) -> Stacks:
        """What all stacks look like on the way to the given trees, each different one once."""
        way = Derivations.from_trees(z, x.max_length)
        return self._stacks(way, *self._items(x, way))

    def _items(self, x: Sentences, way: Derivations) -> tuple[Tensor, Tensor]:
        """Vectors of all subtrees, each different one once.

        Returns `(batch, samples, items)` int64, the vector's row, and `(rows, 2 * dim)`.
        """
        samples, nodes = way.first.shape[1:]
        words, which = x.tokens.unique(return_inverse=True)
        item = torch.cat([torch.zeros_like(way.first), which[:, None].expand(-1, samples, -1)], 2)
        table = self.leaves(words)
        for height in range(1, int(way.height.max()) + 1 if nodes else 1):
            row = (way.height == height).nonzero(as_tuple=True)
            pairs = [item[row[0], row[1], part[row]] for part in (way.first, way.second)]
            kinds, which = torch.unique(pairs[0] * len(table) + pairs[1], return_inverse=True)
            item[row] = len(table) + which
            first, second = kinds // len(table), kinds % len(table)
            joined = self.compose(table.index_select(0, first), table.index_select(0, second))
            table = torch.cat([table, joined])
        return item, table

    def _stacks(self, way: Derivations, item: Tensor, table: Tensor) -> Stacks:
        # from the bottom of the stacks to their tops, as `_items` goes from words to roots
        inputs = self.item_net(self._drop(table[:, : self.dim]))
        states, depths = self.bottom[None], [way.depth.new_zeros(1)]
        after = torch.zeros_like(item)
        depth = way.depth.gather(2, way.begin).masked_fill(~way.item_mask, -1)
        below = way.below.gather(2, way.begin)
        levels = int(depth.max()) + 1
        for level in range(levels if self.memory is None else min(levels, self.memory)):
            # with a narrow memory every item is pushed onto what is next to it, anew at each level
            reached = depth == level if self.memory is None else depth >= level
            row = reached.nonzero(as_tuple=True)
            under = after[row[0], row[1], below[row]] if level else torch.zeros_like(row[0])
            deeper = (depth[row] > level).long()  # than what the state knows
            kinds = (under * len(table) + item[row]) * 2 + deeper
            kinds, which = torch.unique(kinds, return_inverse=True)
            after[row] = len(states) + which
            depths.append(level + kinds % 2)
            under, over = kinds // 2 // len(table), kinds // 2 % len(table)
            pushed = self.push(states.index_select(0, under), inputs.index_select(0, over))
            states = torch.cat([states, pushed])
        return Stacks(way, after, states, torch.cat(depths))

    def _drop(self, tensor: Tensor) -> Tensor:
        return dropout(tensor, self.dropout, self.training and torch.is_grad_enabled())

    # ------------------------------------------------------------------ sampling

    @torch.no_grad()
    def sample(self, count: int, max_length: int = 40) -> tuple[Sentences, Trees]:
        """Draws `count` sentences of at most `max_length` tokens with their trees.

        Longer derivations are thrown away and drawn again.

        Raises:
            RuntimeError: if fewer than one derivation in a thousand fits.
        """
        pieces: list[tuple[Tensor, ...]] = []
        found = tried = 0
        while found < count:
            size = max(2 * (count - found), 32)
            pieces.append(self._derive(size, max_length))
            found, tried = found + len(pieces[-1][0]), tried + size
            if tried > 1000 * max(found, 1):
                raise RuntimeError(
                    f"only {found} of {tried} derivations had at most {max_length} tokens"
                )
        tokens, lengths, left, right, split = (
            torch.cat(part)[:count] for part in zip(*pieces, strict=True)
        )
        longest = int(lengths.max())
        left, right, split = (part[:, None, : longest - 1] for part in (left, right, split))
        z = Trees(left, right, split, torch.zeros_like(left), lengths[:, None])
        return Sentences(tokens[:, :longest], lengths), z

    def _derive(self, count: int, max_length: int) -> tuple[Tensor, ...]:
        """Tokens, lengths, and spans and splits in preorder, of the derivations that fit."""
        stack = Stack(self, count, max_length)
        tokens = stack.read.new_zeros(count, max_length)
        done = torch.zeros_like(stack.read, dtype=torch.bool)
        busy = torch.arange(count, device=tokens.device)
        while len(busy):
            state = stack.state(busy)
            close = self.close_logit(state, stack.size[busy] == 1).sigmoid()
            close = (torch.rand_like(close) < close) & (stack.size[busy] > 0)
            end = close & (stack.size[busy] == 1)
            fits = close | (stack.read[busy] < max_length)
            done[busy[end]] = True
            shift = ~close & fits
            word = self.word_logits(state[shift]).softmax(1)
            word = torch.multinomial(word, 1).squeeze(1) if len(word) else tokens[:0, 0]
            tokens[busy[shift], stack.read[busy[shift]]] = word
            stack.reduce(busy[close & ~end])
            stack.shift(busy[shift], word)
            busy = busy[fits & ~end]
        nodes = (part[done] for part in stack.nodes())
        return tokens[done], stack.read[done], *nodes


@dataclass
class Stacks:
    """Every stack on the way to some trees, each different one once.

    Attributes:
        way: the derivations.
        after: `(batch, samples, items)` int64, the row of the stack that each item tops.
        states: `(rows, 2 * dim)` what each looks like; row 0 is empty.
        depths: `(rows,)` int64, 0 where the top is the only item.
    """

    way: Derivations
    after: Tensor
    states: Tensor
    depths: Tensor


class Stack:
    """The stacks of many derivations, item by item, without autograd.

    Args:
        model: the generator.
        rows: how many derivations.
        max_length: most tokens of each.

    Attributes:
        read: `(rows,)` int64 words shifted.
        size: `(rows,)` int64 items on the stack.
    """

    def __init__(self, model: RNNG, rows: int, max_length: int):
        bottom = model.bottom.detach()
        self.model, self.max_length = model, max_length
        self._states = bottom.new_zeros(rows, max_length + 1, 2 * model.dim)
        self._states[:, 0] = bottom
        self._items = torch.zeros_like(self._states)
        self.read, self.size = torch.zeros(2, rows, dtype=torch.long, device=bottom.device)
        self._begin = self.read.new_zeros(rows, max_length + 1)  # of each item on the stack
        self._left, self._right = self.read.new_zeros(2, rows, max_length)  # by a node's split

    def state(self, rows: Tensor) -> Tensor:
        """`(len(rows), 2 * dim)` what the stacks of these rows look like."""
        return self._states[rows, self.size[rows]]

    def shift(self, rows: Tensor, words: Tensor) -> None:
        """Pushes the next word of each of these rows."""
        self._push(rows, self.model.leaves(words), self.read[rows])
        self.read[rows] += 1

    def reduce(self, rows: Tensor) -> None:
        """Joins the two topmost items of each of these rows."""
        top = self.size[rows]
        begin, split = self._begin[rows, top - 1], self._begin[rows, top]
        self._left[rows, split], self._right[rows, split] = begin, self.read[rows]
        item = self.model.compose(self._items[rows, top - 1], self._items[rows, top])
        self.size[rows] -= 2
        self._push(rows, item, begin)

    def _push(self, rows: Tensor, item: Tensor, begin: Tensor) -> None:
        self.size[rows] += 1
        top = self.size[rows]
        self._items[rows, top], self._begin[rows, top] = item, begin
        memory = self.model.memory or 1  # a whole stack goes on from the state of what lies below
        state = self._states[rows, 0 if self.model.memory else top - 1]
        for place in (top - back for back in reversed(range(memory))):
            seen = self.model.item_net(self._items[rows, place.clamp(min=0), : self.model.dim])
            state = torch.where(place[:, None] > 0, self.model.push(state, seen), state)
        self._states[rows, top] = state

    def nodes(self) -> tuple[Tensor, Tensor, Tensor]:
        """`(rows, max_length - 1)` left ends, right ends and splits so far, in preorder."""
        return preorder(self._left, self._right)


def pick(table: Tensor, index: Tensor) -> Tensor:
    """Rows of a table, `(*index.shape, ...)`; its backward is deterministic."""
    return table.index_select(0, index.flatten()).view(*index.shape, *table.shape[1:])

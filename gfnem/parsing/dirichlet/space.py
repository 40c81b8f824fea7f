"""Labelled trees of a few sentences together, built word by word."""

from __future__ import annotations

import functools
import itertools
from dataclasses import dataclass

import torch
from torch import Tensor

from gfnem.batched import Batched
from gfnem.ranges import Count
from gfnem.space import LatentSpace


@dataclass
class Analyses(Batched):
    """Trees under construction.

    Attributes:
        actions: `(batch, samples, steps)` int64 what has been done, -1 for what has not.
        stack: `(batch, samples, length)` int64 symbols of the sentence at hand, -1 above the top.
        counts: `(batch, samples, rules)` int64 how often each rule is used (see `Rules`).
        read: `(batch, samples)` int64 words shifted, of all sentences.
        words: `(batch, samples, words)` int64 all words in a row, -1 past the end.
        ends: `(batch, samples, words)` bool: the last word of each sentence.
    """

    actions: Tensor
    stack: Tensor
    counts: Tensor
    read: Tensor
    words: Tensor
    ends: Tensor

    @property
    def depth(self) -> Tensor:
        """`(batch, samples)` symbols on the stack."""
        return (self.stack >= 0).sum(2)

    def next_word(self) -> Tensor:
        """`(batch, samples)` int64; -1 where no word is left."""
        words = torch.nn.functional.pad(self.words, (0, 1), value=-1)
        return words.gather(2, self.read[..., None])[..., 0]

    def sentence_read(self) -> Tensor:
        """`(batch, samples)` bool: whether the last word that was shifted ends a sentence."""
        ends = torch.nn.functional.pad(self.ends, (1, 0))
        return ends.gather(2, self.read[..., None])[..., 0]

    def top(self) -> tuple[Tensor, Tensor]:
        """The two topmost symbols, the lower one first; `(batch, samples)` int64, 0 for none."""
        padded = torch.nn.functional.pad(self.stack, (2, 0))
        pair = [padded.gather(2, (self.depth + place)[..., None])[..., 0] for place in (0, 1)]
        return pair[0].clamp(min=0), pair[1].clamp(min=0)


class Rules:
    """The rules of a grammar, numbered: roots, pairs of symbols, words.

    Symbols are the preterminals, then the nonterminals.

    Args:
        nonterminals, preterminals, vocabulary: how many there are.
    """

    def __init__(self, nonterminals: int, preterminals: int, vocabulary: int):
        self.nonterminals, self.preterminals = nonterminals, preterminals
        self.vocabulary, self.symbols = vocabulary, nonterminals + preterminals

    @property
    def groups(self) -> list[int]:
        """The sizes of the groups that sum to one: the roots, each left-hand side."""
        pairs = [self.symbols**2] * self.nonterminals
        return [self.nonterminals, *pairs, *[self.vocabulary] * self.preterminals]

    def __len__(self) -> int:
        """How many rules."""
        return sum(self.groups)

    def pair(self, parent: Tensor, left: Tensor, right: Tensor) -> Tensor:
        """The number of the rule by which nonterminal `parent` becomes two symbols."""
        return self.nonterminals + (parent * self.symbols + left) * self.symbols + right

    def word(self, preterminal: Tensor, word: Tensor) -> Tensor:
        """The number of the rule by which a preterminal becomes a word."""
        first = self.nonterminals * (1 + self.symbols**2)
        return first + preterminal * self.vocabulary + word


class AnalysesSpace(LatentSpace[Tensor, Tensor, Analyses]):
    """`z` is `(batch, samples, steps)` int64: what is done, word by word and node by node.

    Action `t` below `preterminals` shifts the next word as preterminal `t`; action
    `preterminals + A` makes the two topmost symbols the children of nonterminal `A`. A sentence's
    tree is complete before the next sentence begins. Each set of trees has one such sequence, -1
    past its end; the one backward action takes the last action back. Observations are
    `(batch, sentences, length)` int64 words, -1 past the end of a sentence.

    Args:
        nonterminals, preterminals, vocabulary: of the grammar; a model tells them.
    """

    unique_trajectory = True

    def __init__(
        self,
        nonterminals: Count | None = None,
        preterminals: Count | None = None,
        vocabulary: Count | None = None,
    ):
        assert nonterminals is not None and preterminals is not None and vocabulary is not None
        self.rules = Rules(nonterminals, preterminals, vocabulary)

    def initial_state(self, x: Tensor, samples: int) -> Analyses:
        """Nothing read.

        Raises:
            ValueError: if a sentence has a single word, for which there is no tree.
        """
        real = x >= 0
        if (real.sum(2) == 1).any():
            raise ValueError("a sentence of one word has no tree: two words are the least")
        ends = real & ~torch.nn.functional.pad(real[..., 1:], (0, 1))
        order = (~real).flatten(1).long().argsort(dim=1, stable=True)
        words, ends = x.flatten(1).gather(1, order), ends.flatten(1).gather(1, order)
        shape, (sentences, length) = (len(x), samples), x.shape[1:]
        nothing = torch.full((1,), -1, device=x.device)
        return Analyses(
            nothing.expand(*shape, sentences * (2 * length - 1)).clone(),
            nothing.expand(*shape, length).clone(),
            torch.zeros(*shape, len(self.rules), dtype=torch.long, device=x.device),
            torch.zeros(shape, dtype=torch.long, device=x.device),
            words[:, None].expand(-1, samples, -1),
            ends[:, None].expand(-1, samples, -1),
        )

    def final_state(self, x: Tensor, z: Tensor) -> Analyses:
        """The actions are taken again."""
        state = self.initial_state(x, z.shape[1])
        for action in z.unbind(2):
            state = state.where(action < 0, self.step(state, action.clamp(min=0)))
        return state

    def to_latent(self, x: Tensor, state: Analyses) -> Tensor:
        """`(batch, samples, steps)` int64."""
        return state.actions

    def is_final(self, state: Analyses) -> Tensor:
        """Whether all sentences have their trees."""
        return state.sentence_read() & (state.depth == 1) & (state.next_word() < 0)

    def is_initial(self, state: Analyses) -> Tensor:
        """Whether nothing is read."""
        return state.read == 0

    def forward_mask(self, state: Analyses) -> Tensor:
        """`(batch, samples, symbols)`: to shift while the sentence goes on, to reduce a pair."""
        over, depth = state.sentence_read(), state.depth
        shift = (state.next_word() >= 0) & (~over | (depth == 1))
        nonterminals, preterminals = self.rules.nonterminals, self.rules.preterminals
        parts = [
            shift[..., None].expand(-1, -1, preterminals),
            (depth > 1)[..., None].expand(-1, -1, nonterminals),
        ]
        return torch.cat(parts, 2)

    def backward_mask(self, state: Analyses) -> Tensor:
        """`(batch, samples, 1)`: there is one way back."""
        return ~self.is_initial(state)[..., None]

    def used(self, state: Analyses) -> tuple[Tensor, Tensor]:
        """What rule each action would use.

        Returns:
            `(batch, samples, symbols)` int64 rules, and `(batch, samples)` bool, whether to reduce
            gives the sentence its root.
        """
        rules, device = self.rules, state.read.device
        left, right = state.top()
        word = state.next_word().clamp(min=0)[..., None]
        shifts = rules.word(torch.arange(rules.preterminals, device=device), word)
        parents = torch.arange(rules.nonterminals, device=device)
        pairs = rules.pair(parents, left[..., None], right[..., None])
        return torch.cat([shifts, pairs], 2), state.sentence_read() & (state.depth == 2)

    def step(self, state: Analyses, action: Tensor) -> Analyses:
        """Shifts a word or makes a node."""
        depth, over, first = state.depth, state.sentence_read(), self.rules.preterminals
        shifts = action < first
        # a sentence that has its tree leaves the stack to the next
        place = torch.where(shifts, torch.where(over, 0, depth), (depth - 2).clamp(min=0))
        places = torch.arange(state.stack.shape[2], device=depth.device)
        above = places > place[..., None]
        here = places == place[..., None]
        stack = torch.where(above, -1, torch.where(here, action[..., None], state.stack))
        rules, last = self.used(state)
        rule = rules.gather(2, action[..., None])
        root = ((last & ~shifts)[..., None]).long()
        counts = state.counts.scatter_add(2, rule, torch.ones_like(rule))
        counts = counts.scatter_add(2, (action - first).clamp(min=0)[..., None], root)
        return Analyses(
            self._written(state, 0, action),
            stack,
            counts,
            (state.read + shifts).clamp(max=state.words.shape[2]),
            state.words,
            state.ends,
        )

    @staticmethod
    def _written(state: Analyses, back: int, action: Tensor) -> Tensor:
        place = torch.arange(state.actions.shape[2], device=action.device)
        here = place == (state.actions >= 0).sum(2, keepdim=True) - back
        return torch.where(here, action[..., None], state.actions)

    def unstep(self, state: Analyses, action: Tensor) -> Analyses:
        """Takes the last action back; the others are taken again."""
        actions = self._written(state, 1, torch.full_like(action, -1))
        nothing = torch.zeros_like(state.counts)
        again = Analyses(
            torch.full_like(actions, -1),
            torch.full_like(state.stack, -1),
            nothing,
            nothing[..., 0],
            state.words,
            state.ends,
        )
        for earlier in actions.unbind(2):
            again = again.where(earlier < 0, self.step(again, earlier.clamp(min=0)))
        return again

    def backward_action(self, state: Analyses, action: Tensor) -> Tensor:
        """0."""
        return torch.zeros_like(action)

    def forward_action(self, state: Analyses, action: Tensor) -> Tensor:
        """The last action."""
        last = (state.actions >= 0).sum(2, keepdim=True) - 1
        return state.actions.gather(2, last.clamp(min=0))[..., 0].clamp(min=0)

    def trees(self, length: int, device: torch.device | str = "cpu") -> Tensor:
        """`(trees, 2 * length - 1)` int64: the actions of every tree over so many words."""
        rules = self.rules
        found = _sequences(length, rules.nonterminals, rules.preterminals)
        return torch.tensor(found, device=device)

    def every(self, x: Tensor, limit: int = 1_000_000) -> Tensor:
        """`(sets, steps)` int64: every `z` of one observation `(1, sentences, length)`.

        Raises:
            ValueError: if there are more than `limit`.
        """
        lengths = [length for length in (x[0] >= 0).sum(1).tolist() if length]
        lists = [self.trees(length, x.device) for length in lengths]
        number = functools.reduce(lambda count, trees: count * len(trees), lists, 1)
        if number > limit:
            raise ValueError(f"{number:,} sets of trees are too many to list")
        ranges = [torch.arange(len(trees), device=x.device) for trees in lists]
        picked = torch.cartesian_prod(*ranges).reshape(number, len(lists))
        found = torch.cat([trees[picked[:, at]] for at, trees in enumerate(lists)], 1)
        steps = x.shape[1] * (2 * x.shape[2] - 1)
        return torch.nn.functional.pad(found, (0, steps - found.shape[1]), value=-1)


@functools.lru_cache(maxsize=16)
def _sequences(length: int, nonterminals: int, preterminals: int) -> list[tuple[int, ...]]:
    if length == 1:
        return [(preterminal,) for preterminal in range(preterminals)]
    found = []
    for split in range(1, length):
        parts = [_sequences(part, nonterminals, preterminals) for part in (split, length - split)]
        for left, right in itertools.product(*parts):
            found += [(*left, *right, preterminals + parent) for parent in range(nonterminals)]
    return found

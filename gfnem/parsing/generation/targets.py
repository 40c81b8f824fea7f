"""What a sentence is worth: rewards that look at the words alone."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from gfnem.parsing.generation.strings import Strings, all_sentences, how_many
from gfnem.parsing.grammars.language import ContextTables, length_weights
from gfnem.parsing.grammars.tabular import TabularGrammar
from gfnem.parsing.text.sentences import Sentences
from gfnem.ranges import Amount, Count, Fact, NotNegative, PartialShare
from gfnem.target import Target

#: with no more sentences than this, log Z is the sum over all of them
LISTED = 200_000
#: sentences that are weighed together
_ROWS = 4096


class SentenceTarget(Target[Sentences, Strings]):
    """A reward `R` of sentences, `log p~(x, z) = log R(z)`: the sentence is what is built.

    A subclass says what a sentence is worth in `log_reward`. Sentences of `shortest` to `longest`
    words are all there are; `log_partition` is the log of the sum of `R` over them.

    Args:
        vocab_size: words, the unknown word included.
        longest: most words of a sentence.
        shortest: fewest words; 1 if None.
    """

    unit = "token"

    def __init__(
        self, vocab_size: Fact = None, longest: Fact = None, shortest: Count | None = None
    ):
        super().__init__()
        self.vocab_size, self.longest, self.shortest = vocab_size, longest, shortest or 1

    @abstractmethod
    def log_reward(self, x: Sentences) -> Tensor:
        """`(batch,)` `log R` of sentences, in nats."""

    def log_joint(self, x: Sentences, z: Strings) -> Tensor:
        """`(batch, samples)` `log R` of the sentences that were built."""
        return self.log_reward(z.sentences()).view(z.lengths.shape)

    def log_marginal(self, x: Sentences) -> Tensor:
        """`(batch,)` `log R`: an observed sentence leaves nothing to be built."""
        return self.log_reward(x)

    def log_partition(self) -> Tensor:
        """`()` exact log Z in nats, by a sum over all sentences."""
        x = all_sentences(self.vocab_size, self.shortest, self.longest).to(self.device)
        rows = torch.arange(len(x), device=self.device).split(_ROWS)
        return torch.cat([self.log_reward(x[part]) for part in rows]).logsumexp(0)

    def offers(self, hook: str) -> bool:
        """`log_partition` where the sentences can be listed, or in closed form."""
        if hook == "log_partition" and type(self).log_partition is SentenceTarget.log_partition:
            return how_many(self.vocab_size, self.shortest, self.longest) <= LISTED
        return super().offers(hook)

    @property
    def device(self) -> torch.device:
        """Where its parameters and buffers are."""
        held = (*self.parameters(), *self.buffers())
        return held[0].device if held else torch.get_default_device()

    def facts(self) -> dict[str, Any]:
        """Nothing that the data do not tell."""
        return {}

    def units(self, x: Sentences) -> Tensor:
        """`(batch,)` tokens of each sentence."""
        return x.lengths.clamp(min=1)


class GrammarTarget(SentenceTarget):
    """The marginal probability of a sentence under a written-down grammar, by the inside algorithm.

    A grammar gives most strings no probability at all, and a sampler that writes one of them with
    any probability is infinitely far from it. So a share of each symbol's probability is spread
    over all its rules, and of each preterminal's over all words. The sampler sees no tree.

    Args:
        grammar: as of `TabularGrammar`; that of an embedded corpus, or "english", if None.
        vocabulary: the words behind word indices, from the data.
        smoothing: the share that is spread.
        longest: most words of a sentence.
        shortest: fewest words; 1 if None.
    """

    def __init__(
        self,
        grammar: str | None = None,
        vocabulary: Sequence[str] | None = None,
        smoothing: PartialShare = 0.01,
        longest: Fact = None,
        shortest: Count | None = None,
    ):
        known = TabularGrammar(grammar or "english", vocabulary)
        super().__init__(known.vocab_size, longest, shortest)
        self.grammar = known
        if smoothing:
            for name, axes in (("rules", 2), ("emissions", 1)):
                table = getattr(known, name).exp()
                size = table.shape[-axes:].numel()
                setattr(known, name, ((1 - smoothing) * table + smoothing / size).log())

    def log_reward(self, x: Sentences) -> Tensor:
        """`(batch,)` log p of the words, over all trees."""
        given = self.grammar.given(x)
        return x.by_length(lambda rows: given.some(rows).log_marginal())

    def log_partition(self) -> Tensor:
        """`()` the log probability that a sentence has these lengths."""
        tables: ContextTables = self.grammar.by_context()
        return length_weights(tables, self.longest)[self.shortest - 1 :].sum().log().float()


class Copied(SentenceTarget):
    """The copy language: `w w`, the same words twice. It is not context-free.

    `log R` is minus the penalty for each word that differs from its counterpart, and for the word
    left over in a sentence of odd length.

    Args:
        penalty: nats.
        vocab_size, longest, shortest: as of `SentenceTarget`.
    """

    def __init__(
        self,
        penalty: NotNegative = 4.0,
        vocab_size: Fact = None,
        longest: Fact = None,
        shortest: Count | None = None,
    ):
        super().__init__(vocab_size, longest, shortest)
        self.penalty = penalty

    def log_reward(self, x: Sentences) -> Tensor:
        """`(batch,)` minus the penalties."""
        half = x.lengths[:, None] // 2
        place = torch.arange(x.max_length, device=x.tokens.device)
        other = x.tokens.gather(1, (place + half).clamp(max=x.max_length - 1))
        wrong = ((x.tokens != other) & (place < half)).sum(1) + x.lengths % 2
        return -self.penalty * wrong.float()


class Counted(SentenceTarget):
    """The language `a^n b^n`: one word some times, then another as many times.

    `log R` is minus the penalty for each word that would have to be another, and for the word in
    the middle of a sentence of odd length.

    Args:
        penalty: nats.
        first, second: the two words, by index.
        vocab_size, longest, shortest: as of `SentenceTarget`.

    Raises:
        ValueError: if there are no two such words.
    """

    def __init__(
        self,
        penalty: NotNegative = 4.0,
        first: Amount = 1,
        second: Amount = 2,
        vocab_size: Fact = None,
        longest: Fact = None,
        shortest: Count | None = None,
    ):
        super().__init__(vocab_size, longest, shortest)
        if first == second or not 0 <= first < vocab_size or not 0 <= second < vocab_size:
            raise ValueError(
                f"first {first}, second {second}: two of {vocab_size} words are needed"
            )
        self.penalty, self.first, self.second = penalty, first, second

    def log_reward(self, x: Sentences) -> Tensor:
        """`(batch,)` minus the penalties."""
        half = x.lengths[:, None] // 2
        place = torch.arange(x.max_length, device=x.tokens.device)
        wanted = torch.where(place < half, self.first, self.second)
        middle = (x.lengths[:, None] % 2 == 1) & (place == half)
        wrong = ((x.tokens != wanted) | middle) & x.mask()
        return -self.penalty * wrong.sum(1).float()

"""The space of sentences: words are written from left to right, then an end."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from gfnem.batched import Batched
from gfnem.parsing.generation.strings import Strings, nothing
from gfnem.parsing.text.sentences import Sentences
from gfnem.ranges import Count, Fact
from gfnem.space import LatentSpace


@dataclass
class Written(Batched):
    """What is written so far.

    Attributes:
        tokens: `(batch, samples, longest)` int64; 0 where nothing is written.
        count: `(batch, samples)` int64 words written.
        ended: `(batch, samples)` bool: whether the sentence is complete.
        given: `(batch, samples)` bool: observed, and so complete from the start.
    """

    tokens: Tensor
    count: Tensor
    ended: Tensor
    given: Tensor


class SentenceSpace(LatentSpace[Sentences, Strings, Written]):
    """Sentences of `shortest` to `longest` words.

    An observation is a sentence, which leaves nothing to be built, or a sentence of no words, from
    which any is built. Forward action `w` writes word `w`, action `vocab_size` ends the sentence.
    Policies that build sentences in another way, such as from trees, share the space: its
    structures are theirs.

    Args:
        vocab_size: words, the unknown word included.
        longest: most words of a sentence.
        shortest: fewest words; 1 if None.

    Raises:
        ValueError: if no sentence has such a length.
    """

    unique_trajectory = True

    def __init__(
        self, vocab_size: Fact = None, longest: Fact = None, shortest: Count | None = None
    ):
        self.vocab_size, self.longest, self.shortest = vocab_size, longest, shortest or 1
        if self.shortest > longest:
            raise ValueError(
                f"no sentence has {self.shortest} words at least and {longest} at most"
            )

    def initial_state(self, x: Sentences, samples: int) -> Written:
        """Nothing, or the sentence that was observed."""
        z, given = Strings.of(x, self.longest, samples), x.lengths > 0
        given = given[:, None].expand(-1, samples)
        return Written(z.tokens, z.lengths, given, given)

    def final_state(self, x: Sentences, z: Strings) -> Written:
        """Complete sentences."""
        given = (x.lengths > 0)[:, None].expand_as(z.lengths)
        return Written(z.tokens, z.lengths, torch.ones_like(given), given)

    def states(self, x: Sentences, z: Strings) -> list[Written]:
        """The states on the way to each sentence; a shorter one stays at its end."""
        final = self.final_state(x, z)
        place = torch.arange(self.longest, device=z.tokens.device)
        found = []
        for step in range(self.longest + 2):
            count = torch.where(final.given, z.lengths, z.lengths.clamp(max=step))
            tokens = torch.where(place < count[..., None], z.tokens, 0)
            found.append(Written(tokens, count, final.given | (z.lengths < step), final.given))
        return found

    def to_latent(self, x: Sentences, state: Written) -> Strings:
        """The words."""
        return Strings(state.tokens, state.count)

    def is_final(self, state: Written) -> Tensor:
        """Complete sentences."""
        return state.ended

    def is_initial(self, state: Written) -> Tensor:
        """Nothing written that was not observed."""
        return state.given | ((state.count == 0) & ~state.ended)

    def forward_mask(self, state: Written) -> Tensor:
        """Words where there is room, the end after the fewest words."""
        return torch.cat(self.permitted(state.count, ~state.ended), 2)

    def permitted(self, count: Tensor, open: Tensor) -> tuple[Tensor, Tensor]:
        """Whether a word, and whether the end may follow so many words.

        Args:
            count: `(batch, samples)` words written.
            open: `(batch, samples)` bool: whether anything may.

        Returns:
            `(batch, samples, vocab_size)` and `(batch, samples, 1)` bool.
        """
        word = ((count < self.longest) & open)[..., None].expand(*count.shape, self.vocab_size)
        return word, ((count >= self.shortest) & open)[..., None]

    def backward_mask(self, state: Written) -> Tensor:
        """One way back."""
        return ~self.is_initial(state).unsqueeze(2)

    def step(self, state: Written, action: Tensor) -> Written:
        """Writes a word, or ends."""
        ends = (action == self.vocab_size) | state.ended
        place = state.count.clamp(max=self.longest - 1)[..., None]
        word = torch.where(ends, state.tokens.gather(2, place).squeeze(2), action)
        tokens = state.tokens.scatter(2, place, word[..., None])
        count = torch.where(ends, state.count, (state.count + 1).clamp(max=self.longest))
        return Written(tokens, count, ends, state.given)

    def unstep(self, state: Written, action: Tensor) -> Written:
        """Takes the end back, or the last word."""
        kept = state.ended | (state.count == 0)
        last = (state.count - 1).clamp(min=0)
        word = torch.where(kept, state.tokens.gather(2, last[..., None]).squeeze(2), 0)
        tokens = state.tokens.scatter(2, last[..., None], word[..., None])
        count = torch.where(kept, state.count, last)
        return Written(tokens, count, torch.zeros_like(state.ended), state.given)

    def backward_action(self, state: Written, action: Tensor) -> Tensor:
        """The only way back."""
        return torch.zeros_like(action)

    def forward_action(self, state: Written, action: Tensor) -> Tensor:
        """The end, or the last word."""
        last = (state.count - 1).clamp(min=0)[..., None]
        word = state.tokens.gather(2, last).squeeze(2)
        return torch.where(state.ended, self.vocab_size, word)

    def free(self, x: Sentences) -> Sentences:
        """A sentence of no words."""
        return nothing(self.longest, x.tokens.device)

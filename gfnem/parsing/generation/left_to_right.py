"""A sampler that writes a sentence word by word: no tree, and one trajectory to each sentence."""

from __future__ import annotations

import torch
from torch import Tensor

from gfnem.parsing.generation.sampler import SentenceSampler
from gfnem.parsing.generation.space import SentenceSpace, Written
from gfnem.parsing.generation.strings import Strings
from gfnem.parsing.generation.word_network import WordNetwork, log_of_words
from gfnem.parsing.text.sentences import Sentences
from gfnem.policy import Scores, Step
from gfnem.ranges import Count, Fact
from gfnem.sampling import Exploration, draw, log_probability
from gfnem.space import LatentSpace, Trajectories


class LeftToRight(SentenceSampler[Written]):
    """An LSTM over the words so far, which chooses the next word or the end.

    Args:
        vocab_size, longest, shortest: as of `SentenceSpace`.
        dim: size of word vectors and of the LSTM's state.
    """

    def __init__(
        self,
        vocab_size: Fact = None,
        longest: Fact = None,
        shortest: Count | None = None,
        dim: Count = 128,
    ):
        super().__init__()
        self.space = SentenceSpace(vocab_size, longest, shortest)
        self.longest = longest
        self.network = WordNetwork(vocab_size, dim)

    def forward(self, context: Sentences, state: Written) -> Step:
        """Reads the words so far of each state."""
        scores = self.network(state.tokens.flatten(0, 1))
        place = state.count.flatten()[:, None, None].expand(-1, 1, scores.shape[2])
        return Step(scores.gather(1, place).view(*state.count.shape, -1))

    def log_sentence(self, x: Sentences) -> Tensor:
        """`(batch,)` exact log probability of sentences, in nats."""
        return self._log_steps(Strings.drawn(x, x.max_length))[0].sum(2)[0]

    def _log_steps(self, z: Strings) -> tuple[Tensor, Tensor]:
        """`(batch, samples, n + 1)` nats of each word and the end, and which of them there are."""
        x = z.sentences()
        place = torch.arange(x.max_length + 1, device=x.tokens.device)[None]
        mask = place <= x.lengths[:, None]
        count = torch.minimum(place, x.lengths[:, None])
        allowed = torch.cat(self.space.permitted(count, mask), 2)
        logs = log_of_words(log_probability(self.network(x.tokens), allowed), x)
        shape = (*z.lengths.shape, -1)
        return logs.view(shape), mask.view(shape)

    @torch.no_grad()
    def sample(
        self,
        context: Sentences,
        x: Sentences,
        space: LatentSpace,
        samples: int,
        exploration: Exploration | None = None,
    ) -> Trajectories:
        """Writes word after word; the LSTM reads each once."""
        first = self.space.initial_state(context, samples)
        open, count = ~first.ended, first.count
        written = [first.tokens[:, :, place] for place in range(self.longest)]
        last, memory = torch.full_like(count, self.space.vocab_size), None
        log_behaviour = self.level.new_zeros(count.shape)
        for place in range(self.longest + 1):
            if not open.any():
                break
            scores, memory = self.network.step(last.flatten(), memory)
            allowed = torch.cat(self.space.permitted(count, open), 2)
            last, log_drawn = draw(
                scores.view(*count.shape, -1), allowed, exploration or Exploration()
            )
            log_behaviour = log_behaviour + log_drawn.masked_fill(~open, 0.0)
            open = open & (last < self.space.vocab_size)
            if place < self.longest:
                written[place] = torch.where(open, last, written[place])
            count = count + open
        z = Strings(torch.stack(written, 2), count)
        return Trajectories(z, log_behaviour=log_behaviour)

    @torch.no_grad()
    def retrace(
        self, context: Sentences, x: Sentences, space: LatentSpace, latent: Strings
    ) -> Trajectories:
        """A sentence is its own trajectory."""
        return Trajectories(latent, log_behaviour=self.level.new_zeros(latent.lengths.shape))

    def score(
        self,
        context: Sentences,
        space: LatentSpace,
        trajectories: Trajectories,
        flows: bool = False,
        forward_looking: bool = False,
        steps: int | None = None,
    ) -> Scores:
        """Reads each sentence once."""
        log_pf, mask = self._log_steps(trajectories.latent)
        open = (context.lengths == 0)[:, None, None]
        log_pf, mask = log_pf.masked_fill(~open, 0.0), mask & open
        return Scores(log_pf, torch.zeros_like(log_pf), mask, self.log_z(context))

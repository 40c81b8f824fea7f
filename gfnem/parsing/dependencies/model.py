"""The dependency model with valence (Klein and Manning, 2004, section 3)."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import logsigmoid

from gfnem.parsing.dependencies.chart import (
    ArcPotentials,
    Chart,
    arc_marginals,
    best_heads,
    inside,
    tree_score,
)
from gfnem.parsing.dependencies.policy import HalfChoices, partial_score
from gfnem.parsing.dependencies.sampling import LEFT, RIGHT, Decisions, draw_trees
from gfnem.parsing.dependencies.space import HeadsSpace
from gfnem.parsing.grammars.neural_pcfg import scoring
from gfnem.parsing.inference.charted import Charted
from gfnem.parsing.text.sentences import Sentences
from gfnem.ranges import Count, Fact, NotNegative
from gfnem.sampling import draw
from gfnem.target import GenerativeModel

#: valence: whether a word has a dependent on that side already
FIRST, LATER = 0, 1

#: how far a step of the optimiser takes a number of a table, over one of a network: there is
#: nothing above a table that would add steps up
_STRIDE = 8.0


class GivenHeads(Charted[Tensor, ArcPotentials, Chart]):
    """A dependency model, given sentences; potentials have what each arc counts besides in them.

    Args:
        target: the model.
        x: the sentences.
        parts: `(batch, n + 1, n)` nats that each arc counts besides. None: the model alone.
    """

    target: DMV

    def _weigh(self) -> ArcPotentials:
        found = self.target.potentials(self.x)
        return found if self.parts is None else found.tilted(self.parts)

    def _inside(self) -> Chart:
        return inside(self.potentials)

    def log_joint(self, z: Tensor) -> Tensor:
        """`(batch, samples)` nats."""
        return tree_score(self.potentials, z)

    def partial_log_joint(self, state: Any) -> Tensor:
        """`(batch, samples)` nats of what a state has decided."""
        return partial_score(self.potentials, state)

    def log_marginal(self) -> Tensor:
        """`(batch,)` exact log sum over all trees, in nats."""
        return self.chart().total

    @torch.no_grad()
    def sample_posterior(self, samples: int) -> Tensor:
        """`(batch, samples, n)` exact draws of heads."""
        choices, space = HalfChoices(self.potentials, self.chart().halves), HeadsSpace()
        state = space.initial_state(self.x, samples)
        while not (final := space.is_final(state)).all():
            action, _ = draw(choices.weights(state), space.forward_mask(state))
            state = state.where(final, space.step(state, action))
        return space.to_latent(self.x, state)

    @torch.no_grad()
    def best_heads(self) -> Tensor:
        """`(batch, n)` the most probable tree of each sentence."""
        return best_heads(self.potentials)

    def arc_marginals(self) -> Tensor:
        """`(batch, n + 1, n)` posterior probability of each arc, without autograd."""
        with torch.no_grad():
            return arc_marginals(self.potentials)


class DMV(GenerativeModel[Sentences, Tensor]):
    """Words choose their dependents from the nearest outwards, first whether there is another.

    The wall has one dependent. Whether a word has another one depends on the word, the side and on
    whether that would be the first there; which one on word and side. `z` is the `heads` (see
    `chart`). A subclass says what the probabilities are.

    Args:
        vocab_size: words, the unknown word (index 0) included.
    """

    unit = "token"

    def __init__(self, vocab_size: Count):
        super().__init__()
        self.vocab_size = vocab_size

    @abstractmethod
    def roots(self) -> Tensor:
        """`(vocab_size,)` log probability of the word that hangs from the wall, in nats."""

    @abstractmethod
    def decisions(self, words: Tensor) -> Decisions:
        """What `(words,)` int64 numbers of the vocabulary decide as heads."""

    def given(self, x: Sentences) -> GivenHeads:
        """The model, given sentences."""
        return GivenHeads(self, x)

    def tilted(self, x: Sentences, parts: Tensor) -> GivenHeads:
        """The model, given sentences, and `(batch, n + 1, n)` nats for each arc."""
        return GivenHeads(self, x, parts)

    def potentials(self, x: Sentences) -> ArcPotentials:
        """Log weights of arcs in each sentence."""
        n = x.max_length
        words, number = x.tokens.unique(return_inverse=True)
        made = self.decisions(words)
        place = torch.arange(n, device=number.device)
        right = (place > place[:, None]).long()
        row = ((number[..., None] * 2 + right) * self.vocab_size + x.tokens[:, None]).flatten()
        attach = made.attach.flatten().index_select(0, row).view(len(x), n, n)
        go, stop = (logsigmoid(part)[number] for part in (made.go, -made.go))
        later = go[..., LATER]  # (batch, n, 2)
        again = torch.where(right.bool(), later[..., RIGHT, None], later[..., LEFT, None])
        arcs = torch.cat([self.roots()[x.tokens][:, None], attach + again], 1)
        nonempty = go[..., FIRST] - later + stop[..., LATER] - stop[..., FIRST]
        none = stop[..., FIRST].sum(2).masked_fill(~x.mask(), 0.0)
        return ArcPotentials(arcs, nonempty, none.sum(1), x.lengths)

    def log_joint(self, x: Sentences, z: Tensor) -> Tensor:
        """`(batch, samples)` `log p(x, z)` in nats."""
        return self.given(x).log_joint(z)

    def partial_log_joint(self, x: Sentences, state: Any) -> Tensor:
        """`(batch, samples)` of the decisions that a state has made."""
        return self.given(x).partial_log_joint(state)

    def log_marginal(self, x: Sentences) -> Tensor:
        """`(batch,)` exact `log p(x)` in nats, by the inside algorithm."""
        return self.given(x).log_marginal()

    def sample_posterior(self, x: Sentences, samples: int) -> Tensor:
        """`(batch, samples, n)` exact draws of heads."""
        return self.given(x).sample_posterior(samples)

    def best_heads(self, x: Sentences) -> Tensor:
        """`(batch, n)` the most probable tree of each sentence, without autograd."""
        return self.given(x).best_heads()

    def arc_marginals(self, x: Sentences) -> Tensor:
        """`(batch, n + 1, n)` posterior probability of each arc, without autograd."""
        return self.given(x).arc_marginals()

    @torch.no_grad()
    def sample(self, count: int, max_length: int = 40) -> tuple[Sentences, Tensor]:
        """Draws sentences of at most `max_length` words with their trees; longer ones are redrawn.

        Raises:
            RuntimeError: if fewer than one sentence in a hundred is as short.
        """
        return draw_trees(self.roots(), self.decisions, count, max_length)

    def units(self, x: Sentences) -> Tensor:
        """`(batch,)` tokens of each sentence."""
        return x.lengths


class TabularDMV(DMV):
    """A number for each decision of each word: for parts of speech, or a few hundred words.

    Args:
        vocab_size: words, the unknown word included; from the data if None.
        scale: standard deviation of the numbers at first, in nats.
    """

    def __init__(self, vocab_size: Fact = None, scale: NotNegative = 0.1):
        assert vocab_size is not None
        super().__init__(vocab_size)
        scale = scale / _STRIDE
        self.root = nn.Parameter(scale * torch.randn(vocab_size))
        self.attach = nn.Parameter(scale * torch.randn(vocab_size, 2, vocab_size))
        self.go = nn.Parameter(scale * torch.randn(vocab_size, 2, 2))

    def roots(self) -> Tensor:
        """See `DMV`."""
        return (_STRIDE * self.root).log_softmax(0)

    def decisions(self, words: Tensor) -> Decisions:
        """See `DMV`."""
        attach, go = _STRIDE * self.attach[words], _STRIDE * self.go[words]
        return Decisions(attach.log_softmax(2), go)


class NeuralDMV(DMV):
    """Decisions of words from their vectors through small networks (after Jiang et al. 2016).

    Args:
        vocab_size: words, the unknown word included; from the data if None.
        dim: size of vectors and hidden layers.
        clusters: dependents are chosen by a cluster of words, which is summed out: `p(word | head,
            side) = sum_c p(c | head, side) p(word | c)`. None: words are chosen outright.
    """

    def __init__(self, vocab_size: Fact = None, dim: Count = 128, clusters: Count | None = None):
        assert vocab_size is not None
        super().__init__(vocab_size)
        self.word = nn.Parameter(torch.empty(vocab_size, dim))
        self.wall = nn.Parameter(torch.empty(1, dim))
        self.side = nn.Parameter(torch.empty(2, dim))
        self.head_net = scoring(dim, nn.Linear(dim, dim))
        self.go_net = nn.Linear(dim, 2)
        self.choice = nn.Linear(dim, clusters or vocab_size)
        self.cluster: nn.Parameter | None = None
        if clusters is not None:
            self.cluster = nn.Parameter(torch.empty(clusters, dim))
            self.emission = scoring(dim, nn.Linear(dim, vocab_size))
            nn.init.xavier_uniform_(self.cluster)
        for parameter in (self.word, self.wall, self.side):
            nn.init.xavier_uniform_(parameter)

    def roots(self) -> Tensor:
        """See `DMV`."""
        return self._words(self.head_net(self.wall))[0]

    def decisions(self, words: Tensor) -> Decisions:
        """See `DMV`."""
        hidden = self.head_net(self.word[words][:, None] + self.side)
        return Decisions(self._words(hidden), self.go_net(hidden))

    def _words(self, hidden: Tensor) -> Tensor:
        found = self.choice(hidden).log_softmax(-1)
        if self.cluster is None:
            return found
        tiny = torch.finfo(found.dtype).tiny
        words = self.emission(self.cluster).softmax(1)
        return (found.exp() @ words).clamp(min=tiny).log()

"""The compound PCFG of Kim et al. (2019, arXiv 1906.10225): rules that know the sentence."""

from __future__ import annotations

from functools import cached_property

import torch
from torch import Tensor, nn

from gfnem.parsing.grammars.grammar import GivenTrees, Grammar, start_choice
from gfnem.parsing.grammars.neural_pcfg import Residual
from gfnem.parsing.grammars.rule_tables import rules_of
from gfnem.parsing.grammars.sampling import draw_derivations, joined
from gfnem.parsing.grammars.sentence_noise import sentence_noise
from gfnem.parsing.inference.by_sentence import SentencePotentials
from gfnem.parsing.inference.inside import span_marginals
from gfnem.parsing.inference.viterbi import viterbi
from gfnem.parsing.policies.encoder import FenceEncoder
from gfnem.parsing.text.sentences import Sentences
from gfnem.parsing.trees.trees import Trees
from gfnem.ranges import Count, Fact


class GivenCompound(GivenTrees):
    """A compound PCFG, given sentences, each with a vector that its inference network draws.

    Likelihoods and draws are of the grammars of these vectors; trees are chosen by those of the
    mean vectors (as in Kim et al., section 3.1).
    """

    target: CompoundPCFG

    @cached_property
    def at_mean(self) -> SentencePotentials:
        """The potentials of the mean vectors, without gradient."""
        with torch.no_grad():
            return self.target.potentials_of(self.x, self.target.inferred(self.x)[0])

    @torch.no_grad()
    def best_trees(self) -> Trees:
        """The most probable tree of each sentence, without autograd."""
        return viterbi(self.at_mean, self.spans)[0]

    def span_marginals(self) -> Tensor:
        """`(batch, n, n + 1, N)` posterior probability of each labelled span, without autograd."""
        return span_marginals(self.at_mean, self.spans)


class CompoundPCFG(Grammar):
    """A neural PCFG whose rule probabilities depend on a vector that each sentence has.

    The vector `v` is standard normal, so `p(x, z) = E_v p(x, z | v)`, and words and rules far apart
    in a tree may depend on each other. An inference network, an LSTM over the sentence, gives a
    normal distribution `q(v | x)`. Given sentences, a vector is drawn for each, and the target is

        log p~(x, z) = log p(x, z | v) - KL(q(v | x) | p(v)):

    the sampler learns the posterior over trees given the vector, and the M-step climbs the evidence
    lower bound of Kim et al. (eq. 3), trees drawn by the sampler, the vector reparameterised.
    `log_marginal` sums over all trees exactly; over vectors it is that lower bound, in expectation.

    What is drawn for a sentence changes with each M-update, and is the same wherever the sentence
    comes up meanwhile (`sentence_noise`): two parts of an update never mean different vectors, and
    figures repeat. `tables` and what is made of them, such as the grammar that is shown or written
    to a file, are those of the vector 0.

    Args:
        vocab_size: words, the unknown word included; taken from the data if None.
        nonterminals: symbols of phrases, which label the tree's nodes.
        preterminals: symbols of words; they are summed out.
        dim: size of embeddings and hidden layers.
        latent: size of the vector.
        encoder: size of the inference network's embeddings and states.
        shortest: fewest words of a sentence; above 1, sentences of one word are impossible. Taken
            from the data; 1 if None.
    """

    marginal_is_exact = False

    def __init__(
        self,
        vocab_size: Fact = None,
        nonterminals: Count = 30,
        preterminals: Count = 60,
        dim: Count = 256,
        latent: Count = 64,
        encoder: Count = 128,
        shortest: Count | None = None,
    ):
        assert vocab_size is not None
        super().__init__(nonterminals, preterminals, vocab_size)
        self.shortest, self.latent = shortest or 1, latent
        symbols = nonterminals + preterminals
        self.start = nn.Parameter(torch.empty(1, dim))
        self.nonterminal = nn.Parameter(torch.empty(nonterminals, dim))
        self.preterminal = nn.Parameter(torch.empty(preterminals, dim))
        self.root_net = _Scoring(dim, latent, symbols)
        self.word_net = _Scoring(dim, latent, vocab_size)
        self.rule_net = nn.Linear(dim, symbols * symbols)
        self.rule_shift = nn.Linear(latent, symbols * symbols, bias=False)
        for parameter in self.parameters():
            if parameter.dim() > 1:
                nn.init.xavier_uniform_(parameter)
        with torch.no_grad():  # the noise in vectors costs likelihood before they are of use
            for shift in (self.rule_shift, self.root_net.of_vector, self.word_net.of_vector):
                shift.weight *= 0.1
        self.reader = FenceEncoder(vocab_size, encoder)
        self.of_vector = nn.Linear(self.reader.dim_out, 2 * latent)
        self._m_updates = 0

    def on_step(self, m_updates: int) -> None:
        """Other vectors are drawn after each M-update."""
        self._m_updates = m_updates

    def offers(self, hook: str) -> bool:
        """All but the likelihood of brackets alone, whose sentences, and vectors, are not known."""
        return super().offers(hook) and hook != "log_brackets"

    def given(self, x: Sentences) -> GivenCompound:
        """The grammar, given sentences."""
        return GivenCompound(self, x)

    def tilted(self, x: Sentences, parts: Tensor) -> GivenCompound:
        """The grammar, given sentences, and `(batch, n, n + 1)` nats for each node's span."""
        return GivenCompound(self, x, parts)

    def inferred(self, x: Sentences) -> tuple[Tensor, Tensor]:
        """Two `(batch, latent)`: mean and log variance of `q(v | x)`."""
        states = self.reader.fences(x)[:, 1:]
        states = states.masked_fill(~x.mask()[..., None], -torch.inf).amax(1)
        mean, log_variance = self.of_vector(states).chunk(2, 1)
        return mean, log_variance

    def potentials(self, x: Sentences) -> SentencePotentials:
        """Those of vectors that are drawn; each tree has the divergence of `q` in its root."""
        mean, log_variance = self.inferred(x)
        noise = sentence_noise(x, self.latent, self._m_updates).to(mean)
        vectors = mean + (log_variance / 2).exp() * noise
        divergence = (mean.square() + log_variance.exp() - log_variance - 1).sum(1) / 2
        return self.potentials_of(x, vectors, -divergence)

    def potentials_of(
        self, x: Sentences, vectors: Tensor, constant: Tensor | float = 0.0
    ) -> SentencePotentials:
        """The rules' log weights under a vector for each sentence.

        Args:
            x: the sentences.
            vectors: `(batch, latent)`.
            constant: `(batch,)` nats that each tree counts besides.
        """
        root, rules, emissions = self._tables(vectors)
        words = emissions.gather(2, x.tokens[:, None].expand(-1, self.preterminals, -1)).mT
        root = root + torch.as_tensor(constant, device=root.device).unsqueeze(-1)
        return SentencePotentials.from_tables(root, rules, words, x.lengths)

    def _tables(self, vectors: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """`Grammar.tables` with a leading axis of vectors `(batch, latent)`."""
        symbols = self.nonterminals + self.preterminals
        root = self.root_net(self.start, vectors)[:, 0]
        root = start_choice(root, self.nonterminals, self.shortest)
        rules = self.rule_net(self.nonterminal) + self.rule_shift(vectors)[:, None]
        emissions = self.word_net(self.preterminal, vectors).log_softmax(2)
        return root, rules.log_softmax(2).unflatten(2, (symbols, symbols)), emissions

    def tables(self) -> tuple[Tensor, Tensor, Tensor]:
        """Normalised log probabilities (see `Grammar.tables`) under the vector 0."""
        root, rules, emissions = self._tables(self.start.new_zeros(1, self.latent))
        return root[0], rules[0], emissions[0]

    @torch.no_grad()
    def sample(self, count: int, max_length: int = 40) -> tuple[Sentences, Trees]:
        """Draws `count` sentences of at most `max_length` tokens with their trees.

        Each has a vector of the prior. Longer derivations are thrown away, and drawn again under
        the same vector.

        Raises:
            RuntimeError: if fewer than one derivation in a thousand fits.
        """
        vectors = torch.randn(count, self.latent, device=self.start.device)
        pieces = []
        for row in range(count):
            root, rules, words = (table[0].exp() for table in self._tables(vectors[row : row + 1]))
            pieces.append(draw_derivations(root, rules_of(rules), words[None], 1, max_length))
        return joined(pieces, count)


class _Scoring(nn.Module):
    """Scores of embeddings, each beside every sentence's vector.

    Args:
        dim: size of embeddings and hidden layers.
        latent: size of vectors.
        scores: how many.
    """

    def __init__(self, dim: int, latent: int, scores: int):
        super().__init__()
        self.of_symbol, self.of_vector = nn.Linear(dim, dim), nn.Linear(latent, dim, bias=False)
        self.rest = nn.Sequential(Residual(dim), Residual(dim), nn.Linear(dim, scores))

    def forward(self, symbols: Tensor, vectors: Tensor) -> Tensor:
        """`(batch, count, scores)` for `(count, dim)` embeddings and `(batch, latent)` vectors."""
        return self.rest(self.of_symbol(symbols) + self.of_vector(vectors)[:, None])

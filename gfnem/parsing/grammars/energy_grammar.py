"""A grammar times an energy of whole sentences with their trees."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import embedding

from gfnem.errors import UserError
from gfnem.parsing.grammars.grammar import GivenTrees, Grammar
from gfnem.parsing.grammars.neural_pcfg import NeuralPCFG
from gfnem.parsing.grammars.sampling import joined
from gfnem.parsing.inference.potentials import IMPOSSIBLE, Potentials
from gfnem.parsing.text.sentences import Sentences
from gfnem.parsing.trees.joins import Joins
from gfnem.parsing.trees.trees import Trees
from gfnem.ranges import Count, Fact, Positive
from gfnem.target import Conditioned, EnergyModel

#: pairs of sentence and tree that are drawn and looked at together
_TOGETHER = 1024


class SentenceEnergy(nn.Module):
    """`E(x, z)` of a sentence and its bracketing, within `-bound` and `bound`; labels have no say.

    A recursive network reads the tree upwards from the words (`Joins`). A perceptron looks at what
    it makes of the whole tree, at the means of nodes and of words, and at the length: nothing here
    is a sum over the rules of the tree.

    Args:
        vocab_size: words.
        dim: size of the vectors.
        bound: in nats.
    """

    def __init__(self, vocab_size: int, dim: int, bound: float):
        super().__init__()
        self.bound = bound
        self.word = nn.Embedding(vocab_size, dim)
        self.join = Joins(dim)
        self.hidden, self.score = nn.Linear(3 * dim + 1, dim), nn.Linear(dim, 1)
        for parameter in self.score.parameters():
            nn.init.zeros_(parameter)  # before training the model is the grammar

    def forward(self, x: Sentences, z: Trees) -> Tensor:
        """`(batch, samples)` nats, differentiable."""
        words = self.word(x.tokens).tanh()
        known, row = self.join.read(z, words)
        nodes = z.mask().unsqueeze(3) * embedding(row, known)
        of_nodes = nodes.sum(2) / (z.lengths - 1).clamp(min=1).unsqueeze(2)
        of_words = (words * x.mask().unsqueeze(2)).sum(1) / x.lengths.unsqueeze(1)
        top = words[:, :1].expand(-1, z.samples, -1)  # where there is one word alone
        if nodes.shape[2]:
            top = torch.where((z.lengths > 1).unsqueeze(2), nodes[:, :, 0], top)
        length = z.lengths.to(known).log().unsqueeze(2)
        seen = torch.cat([top, of_nodes, of_words[:, None].expand_as(top), length], 2)
        score = self.score(self.hidden(seen).tanh()).squeeze(2)
        return self.bound * (score / self.bound).tanh()


class GivenEnergy(Conditioned[Sentences, Trees]):
    """A grammar times an energy, given sentences.

    Args:
        target: the two.
        x: the sentences.
        guide: the grammar given the sentences, which samplers start from; spans may count besides.
    """

    target: EnergyGrammar

    def __init__(self, target: EnergyGrammar, x: Sentences, guide: GivenTrees):
        super().__init__(target, x)
        self.guide, self.spans = guide, guide.spans

    @property
    def potentials(self) -> Potentials:
        """The grammar's."""
        return self.guide.potentials

    def normalised(self) -> Conditioned[Sentences, Trees]:
        """Without what spans count."""
        if self.spans is None:
            return self
        if self._normalised is None:
            self._normalised = self.target.given(self.x)
        return self._normalised

    def log_joint(self, z: Trees) -> Tensor:
        """`(batch, samples)` `log p~(x, z)` in nats."""
        return self._weighed(self.guide.log_joint(z), z)

    def collapsed_log_joint(self, z: Trees) -> Tensor:
        """`(batch, samples)` log of the sum of `p~` over all labels of the bracketings."""
        return self._weighed(self.guide.collapsed_log_joint(z), z)

    def _weighed(self, log_joint: Tensor, z: Trees) -> Tensor:
        too_long = z.lengths > self.target.longest
        return (log_joint - self.target.energy(self.x, z)).masked_fill(too_long, IMPOSSIBLE)


class EnergyGrammar(EnergyModel[Sentences, Trees]):
    """`p(x, z) = p_G(x, z) exp(-E(x, z)) / Z`, a grammar `p_G` and an energy of the whole.

    The whole-sentence exponential model of Rosenfeld, Chen and Zhu (2001, "Whole-sentence
    exponential language models"; as residual energies Deng et al. 2020, arXiv 2004.11714), with a
    latent tree that energy and grammar share. It is not context-free: `E` sees words and
    brackets all together. `E` is bounded, so draws of the grammar tell Z and make exact draws.

    Args:
        grammar: the `p_G`, whose `log p(x, z)` is exact; a `NeuralPCFG` if None.
        vocab_size: words, the unknown word included; from the data if None.
        shortest: fewest words of a sentence, for that `NeuralPCFG`; from the data, 1 if None.
        dim: size of the energy's vectors.
        bound: the energy lies between minus this and this, in nats.
        longest: most tokens of a sentence; longer ones have probability 0.
        draws: of the grammar that estimate log Z.

    Raises:
        ValueError: if the grammar's `log p(x, z)` is a bound.
    """

    unit = "token"

    def __init__(
        self,
        grammar: Grammar | None = None,
        vocab_size: Fact = None,
        shortest: Count | None = None,
        dim: Count = 64,
        bound: Positive = 3.0,
        longest: Count = 150,
        draws: Count = 8192,
    ):
        super().__init__()
        assert vocab_size is not None
        grammar = NeuralPCFG(vocab_size, shortest=shortest) if grammar is None else grammar
        if not grammar.marginal_is_exact:
            raise ValueError(f"grammar: {type(grammar).__name__} has no exact log p(x, z)")
        self.grammar, self.vocab_size = grammar, vocab_size
        self.longest, self.draws = longest, draws
        self.energy = SentenceEnergy(vocab_size, dim, bound)
        self._estimate: tuple[list, tuple[Tensor, Tensor]] | None = None

    def given(self, x: Sentences) -> GivenEnergy:
        """The model, given sentences."""
        return GivenEnergy(self, x, self.grammar.given(x))

    def tilted(self, x: Sentences, parts: Tensor) -> GivenEnergy:
        """The model, given sentences, and `(batch, n, n + 1)` nats for each node's span."""
        return GivenEnergy(self, x, self.grammar.tilted(x, parts))

    def potentials(self, x: Sentences) -> Potentials:
        """The grammar's: samplers start from its rules."""
        return self.grammar.potentials(x)

    def offers(self, hook: str) -> bool:
        """What the grammar offers and the energy leaves true."""
        if hook in ("collapsed_log_joint", "tilted", "potentials"):
            return self.grammar.offers(hook)
        return super().offers(hook)

    def log_joint(self, x: Sentences, z: Trees) -> Tensor:
        """`(batch, samples)` `log p_G(x, z) - E(x, z)` in nats."""
        return self.given(x).log_joint(z)

    def collapsed_log_joint(self, x: Sentences, z: Trees) -> Tensor:
        """`(batch, samples)` `log p_G(x, bracketing) - E(x, z)` in nats."""
        return self.given(x).collapsed_log_joint(z)

    # ---------------------------------------------------------------- the whole distribution

    @torch.no_grad()
    def propose(self, count: int) -> tuple[Sentences, Trees]:
        """Draws of the grammar, of at most `longest` tokens.

        The model is in proportion to their density times `exp(-E)`.
        """
        return self.grammar.sample(count, self.longest)

    @torch.no_grad()
    def sample(self, count: int, proposals: int = 100_000) -> tuple[Sentences, Trees]:
        """`count` exact draws of the model: proposals that are kept with `exp(-E - bound)`.

        Args:
            count: how many.
            proposals: made at most for each draw.

        Raises:
            RuntimeError: if fewer were kept.
        """
        kept: list[tuple[Sentences, Trees]] = []
        found = tried = 0
        while found < count:
            x, z = self.propose(_TOGETHER)
            log_share = -self.energy(x, z)[:, 0] - self.energy.bound
            keep = torch.rand_like(log_share).log() < log_share
            tried += _TOGETHER
            if keep.any():
                found += int(keep.sum())
                kept.append((x[keep], z[keep]))
            if tried > proposals * max(found, 1):
                raise RuntimeError(f"only {found} of {tried:,} proposals were kept")
        return joined([(x, z.resized()) for x, z in kept], count)

    @torch.no_grad()
    def estimated_log_partition(self) -> tuple[Tensor, Tensor]:
        """`()` log Z by draws of the grammar, and its standard error, in nats.

        `Z = p_G(n <= longest) E[exp(-E)]`, the first factor exact. Made once for the same
        parameters. Draws from torch's global generator.
        """
        versions = [(p._version, p.device) for p in self.parameters()]
        if self._estimate is None or self._estimate[0] != versions:
            weights = []
            for start in range(0, self.draws, _TOGETHER):
                x, z = self.propose(min(_TOGETHER, self.draws - start))
                weights.append((-self.energy(x, z)[:, 0]).double().exp())
            weight = torch.cat(weights)
            fits = self.grammar.length_weights(self.longest).sum()
            error = weight.std(correction=0) / weight.mean() / math.sqrt(len(weight))
            self._estimate = versions, ((fits * weight.mean()).log(), error)
        return self._estimate[1]

    # ---------------------------------------------------------------- what the grammar tells

    def in_support(self, x: Sentences) -> Tensor:
        """`(batch,)` bool: sentences that are not too long, and that the grammar can derive."""
        return self.grammar.in_support(x) & (x.lengths <= self.longest)

    def prepare(self, data: Any) -> None:
        """Refuses sentences that are too long, and has the grammar read what it must know."""
        longest = int(data.sizes().max())
        if longest > self.longest:
            raise UserError(
                f"a sentence of {longest} tokens, and those of the model have at most "
                f"{self.longest}: set --model.longest {longest}"
            )
        self.grammar.prepare(data)

    def on_step(self, m_updates: int) -> None:
        """Told to the grammar."""
        self.grammar.on_step(m_updates)

    def facts(self) -> dict[str, Any]:
        """The grammar's."""
        return self.grammar.facts()

    def names(self) -> list[str]:
        """The grammar's nonterminals."""
        return self.grammar.names()

    def units(self, x: Sentences) -> Tensor:
        """`(batch,)` tokens of each sentence."""
        return x.lengths

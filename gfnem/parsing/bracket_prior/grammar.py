"""A grammar, and beside it a prior over the bracketings of its trees."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from gfnem.parsing.bracket_prior.brackets import Brackets
from gfnem.parsing.bracket_prior.energy import BracketEnergy
from gfnem.parsing.grammars.neural_pcfg import NeuralPCFG
from gfnem.parsing.inference.potentials import full_precision
from gfnem.parsing.text.sentences import Sentences
from gfnem.parsing.trees.trees import Trees
from gfnem.ranges import Count, Positive
from gfnem.schedules import Anneal, value_at
from gfnem.target import Conditioned, Target


class GivenShaped(Conditioned[Sentences, Trees]):
    """A grammar with a prior over brackets, given sentences."""

    def __init__(self, target: ShapedGrammar, x: Sentences):
        super().__init__(target, x)
        self._grammar = target.grammar.given(x)

    @property
    def potentials(self) -> Any:
        """The weights of the grammar's rules."""
        return self._grammar.potentials

    def log_joint(self, z: Trees) -> Tensor:
        """`(batch, samples)` `log p~(x, z)` in nats."""
        return self._grammar.log_joint(z) + self.target._log_prior(z)

    def collapsed_log_joint(self, z: Trees) -> Tensor:
        """`(batch, samples)` the grammar's, and the prior: it looks at no label."""
        return self._grammar.collapsed_log_joint(z) + self.target._log_prior(z)


class ShapedGrammar(Target[Sentences, Trees]):
    """`log p~(x, z) = log p(x, z) - E(z) / T`: a grammar with a prior over bracketings.

    The model with an energy-based prior of Hu et al. (2023, section 5.2). Parses are drawn to
    bracketings that the prior knows while the grammar is young; as `T` rises the grammar is left to
    itself. The prior has seen the brackets of a treebank's trees, so a grammar trained with it is
    not learned without supervision.

    The M-step trains the grammar alone, on structures of `p~`'s posterior; the energy is fixed.
    `p~` is not normalised: what is reported as the likelihood of `x` is the grammar's own
    (`normalised`), and there is no exact inference for the whole.

    Args:
        prior: file written by `gfnem train-prior`, or the energy itself. A checkpoint holds the
            weights and does not need the file.
        grammar: any model over trees of sentences; `NeuralPCFG` if None. (On the command line one
            of your own must give `vocab_size` the default None, as `NeuralPCFG` does.)
        temperature: the `T`: a number, or an `Anneal` over M-updates. Published is the exponential
            way from 1 to 1000 over 10,000 M-updates.
        vocab_size: words, the unknown word included, for `NeuralPCFG`; from the data if None.
        shortest: fewest words of a sentence, for `NeuralPCFG`; from the data if None.

    Raises:
        UserError: if the prior cannot be read.
    """

    def __init__(
        self,
        prior: str,  # a hint for the command line: a union would have it open the file as YAML
        grammar: Target | None = None,
        temperature: Positive | Anneal = 1.0,
        vocab_size: Count | None = None,
        shortest: Count | None = None,
    ):
        super().__init__()
        self.grammar = NeuralPCFG(vocab_size, shortest=shortest) if grammar is None else grammar
        if not isinstance(self.grammar, Target):
            raise ValueError(f"grammar must be a model, not {type(grammar).__name__}")
        self.prior = prior if isinstance(prior, BracketEnergy) else BracketEnergy.load(prior)
        self.prior.requires_grad_(False)
        self._arguments["prior"] = self.prior  # a checkpoint must not need the file
        self.temperature = temperature
        self.unit = self.grammar.unit
        self.on_step(0)

    def offers(self, hook: str) -> bool:
        """What the grammar offers and the prior leaves true."""
        return super().offers(hook) and self.grammar.offers(hook)

    def potentials(self, x: Sentences) -> Any:
        """The grammar's."""
        return self.grammar.potentials(x)

    def names(self) -> list[str]:
        """The grammar's."""
        return self.grammar.names()

    def log_brackets(self, brackets: Brackets) -> Tensor:
        """The grammar's."""
        return self.grammar.log_brackets(brackets)

    def on_step(self, m_updates: int) -> None:
        """Sets `T` for so many M-updates."""
        self._temperature = value_at(self.temperature, m_updates)
        self.grammar.on_step(m_updates)

    def normalised(self) -> Target:
        """The grammar."""
        return self.grammar.normalised()

    def log_joint(self, x: Sentences, z: Trees) -> Tensor:
        """`(batch, samples)` `log p~(x, z)` in nats."""
        return self.grammar.log_joint(x, z) + self._log_prior(z)

    def collapsed_log_joint(self, x: Sentences, z: Trees) -> Tensor:
        """`(batch, samples)` the grammar's, and the prior: it looks at no label."""
        return self.grammar.collapsed_log_joint(x, z) + self._log_prior(z)

    def given(self, x: Sentences) -> GivenShaped:
        """The grammar and the prior, given sentences."""
        return GivenShaped(self, x)

    @torch.no_grad()
    def _log_prior(self, z: Trees) -> Tensor:
        with full_precision(self.prior.word):
            return -self.prior(z) / self._temperature

    def facts(self) -> dict[str, Any]:
        """The grammar's."""
        return self.grammar.facts()

    def in_support(self, x: Sentences) -> Tensor:
        """The grammar's: the prior is positive everywhere."""
        return self.grammar.in_support(x)

    def units(self, x: Sentences) -> Tensor:
        """The grammar's."""
        return self.grammar.units(x)

"""A prior over the bracketings of trees, learned from a treebank, as a reward."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from gfnem.parsing.bracket_prior.energy import BracketEnergy
from gfnem.parsing.inference.potentials import full_precision
from gfnem.parsing.trees.trees import Trees
from gfnem.ranges import Positive
from gfnem.reward import Reward
from gfnem.schedules import Anneal, value_at


class BracketPrior(Reward[Any, Trees]):
    """`s(x, z) = -E(z)`, weighted by `1 / T`: an energy-based prior over bracketings.

    The model with an energy-based prior of Hu et al. (2023, section 5.2):
    `log p~(x, z) = log p(x, z) - E(z) / T`. Parses are drawn to bracketings that the prior knows
    while the grammar is young; as `T` rises the grammar is left to itself. The prior has seen the
    brackets of a treebank's trees, so a grammar trained with it is not learned without supervision.

    Args:
        prior: file written by `gfnem train-prior`, or the energy itself. A checkpoint holds the
            weights and does not need the file.
        temperature: the `T`: a number, or an `Anneal` over M-updates. Published is the exponential
            way from 1 to 1000 over 10,000 M-updates.

    Raises:
        UserError: if the prior cannot be read.
    """

    of_collapsed = True  # it looks at no label

    def __init__(
        self,
        prior: str,  # a hint for the command line: a union would have it open the file as YAML
        temperature: Positive | Anneal = 1.0,
    ):
        super().__init__()
        self.prior = prior if isinstance(prior, BracketEnergy) else BracketEnergy.load(prior)
        self.prior.requires_grad_(False)
        self._arguments["prior"] = self.prior  # a checkpoint must not need the file
        self.temperature = temperature

    def weight_at(self, m_updates: int) -> float:
        """`1 / T` after so many M-updates."""
        return 1 / value_at(self.temperature, m_updates)

    def forward(self, x: Any, z: Trees) -> Tensor:
        """`(batch, samples)` minus the energy, in nats."""
        with full_precision(self.prior.word):
            return -self.prior(z)

    def summary(self) -> str:
        """A line for people."""
        return f"reward {type(self).__name__}: a prior over bracketings, learned from a treebank"

"""A prior on the rules of a grammar, against fitting a small corpus too closely."""

from __future__ import annotations

import torch
from torch import Tensor

from gfnem.errors import UserError
from gfnem.parsing.grammars.grammar import Grammar
from gfnem.ranges import NotNegative
from gfnem.schedules import Anneal
from gfnem.side import SideInformation
from gfnem.target import Target


class RulePrior(SideInformation):
    """A symmetric Dirichlet prior on what each symbol expands to and which words it emits.

    The M-step climbs `log p(x, z) + weight * s`, where `s` is the mean log probability of a rule
    that is drawn uniformly, for a uniform nonterminal, plus that of a word, for a uniform
    preterminal. With `D` sentences, and `S` symbols that each choose one of `V`, that is maximum a
    posteriori estimation under Dirichlet distributions of concentration `1 + weight * D / (S V)`
    (Kurihara and Sato 2006 have the same prior with other inference). In the words of
    classification it is label smoothing.

    Args:
        weight: see `SideInformation`.
        rules, words: how much either part counts.
    """

    def __init__(
        self,
        weight: NotNegative | Anneal = 1.0,
        rules: NotNegative = 1.0,
        words: NotNegative = 1.0,
    ):
        super().__init__(weight)
        self.rules, self.words = rules, words

    def prepare(self, model: Target) -> str:
        """Checks the model.

        Raises:
            UserError: if it is no grammar, or has rules that cannot be learned to be possible.
        """
        if not isinstance(model, Grammar):
            raise UserError(f"{type(model).__name__} is no grammar, whose rules have a prior")
        with torch.no_grad():
            if not model.by_context().everything():
                raise UserError(
                    f"{type(model).__name__} has rules of probability 0, which a prior on all "
                    "rules forbids"
                )
        return f"a Dirichlet prior on rules ({self.rules:g}) and words ({self.words:g})"

    def log_likelihood(self, model: Target) -> Tensor:
        """`()` nats: mean log probability of uniform rules and of uniform words, weighted."""
        tables = model.by_context()
        rules = sum(table.mean() for table in tables.rules.draws())
        return self.rules * rules + self.words * tables.words.mean()

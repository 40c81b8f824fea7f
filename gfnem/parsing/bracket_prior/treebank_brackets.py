"""The brackets of a treebank's trees as something a grammar learns beside its sentences."""

from __future__ import annotations

from functools import cached_property

import torch
from torch import Tensor

from gfnem.errors import UserError
from gfnem.parsing.bracket_prior.brackets import Brackets, read_brackets
from gfnem.ranges import Count, NotNegative
from gfnem.schedules import Anneal
from gfnem.side import SideInformation
from gfnem.target import Target


class TreebankBrackets(SideInformation):
    """Trees without words: a treebank's brackets, of which words and labels are missing.

    Sentences teach a grammar what its symbols emit, and brackets how they branch: the M-step raises
    `log p(x, z) + weight * log p(brackets)`, maximum likelihood from two incomplete data sets
    (Dempster, Laird and Rubin 1977). Brackets and sentences need not belong together, and are not
    brought together where they do. A grammar trained so has seen trees all the same: it is not
    learned without supervision.

    Args:
        treebank: a file or folder of bracketed trees; labels, words and punctuation are dropped.
        weight: see `SideInformation`.
        batch_size: trees for each update.
        max_length: most tokens of a tree; larger ones are skipped and counted.
    """

    def __init__(
        self,
        treebank: str | None = None,
        weight: NotNegative | Anneal = 1.0,
        batch_size: Count = 32,
        max_length: Count = 20,
    ):
        super().__init__(weight)
        if treebank is None:
            raise ValueError("treebank is needed (or --brackets TREEBANK)")
        self.treebank, self.batch_size, self.max_length = treebank, batch_size, max_length

    @cached_property
    def _read(self) -> tuple[Brackets, str]:
        return read_brackets(self.treebank, self.max_length)

    def prepare(self, model: Target) -> str:
        """Reads the treebank.

        Raises:
            UserError: if it cannot be read, or `model` has no `log_brackets`.
        """
        if not model.offers("log_brackets"):
            raise UserError(
                f"{type(model).__name__} has no exact likelihood of a bracketing (log_brackets), "
                "so it cannot learn from brackets; grammars such as NeuralPCFG can"
            )
        return f"brackets of trees from {self._read[1]}"

    def log_likelihood(self, model: Target) -> Tensor:
        """`()` mean `log p(brackets)`, nats a tree, of a batch of trees of like length."""
        brackets = self._read[0]
        size = min(self.batch_size, len(brackets))
        shuffle = torch.rand(len(brackets), device=brackets.lengths.device)
        order = (brackets.lengths + shuffle).argsort()
        start = int(torch.randint(-(-len(order) // size), ())) * size
        rows = order[start : start + size]
        device = next(model.parameters()).device
        return model.log_brackets(brackets[rows].to(device)).mean()

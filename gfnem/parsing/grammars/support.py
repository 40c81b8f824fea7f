"""Which sentences a trained model has trees for, and what to say of the others."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from gfnem.parsing.text.sentences import Sentences


def derivable(module: Any, x: Sentences) -> Tensor:
    """`(batch,)` bool: which sentences have a tree that a trained module's model can answer for.

    One word alone has none where the training data had no such sentence: nothing was learned of
    them, whatever number a model gives.
    """
    return module.model.in_support(x) & ((x.lengths > 1) | (_shortest(module) == 1))


def mean_uses(grammar: Any, batches: Iterable[Sentences]) -> tuple[Tensor, int]:
    """How often a sentence uses each symbol, over all that a grammar can derive.

    Returns:
        `(K, N + T)` float64 means of `Grammar.expected_uses`, and of how many sentences. The means
        are an empty tensor where there are none.
    """
    total, count = torch.empty(0), 0
    for x in batches:
        possible = grammar.in_support(x)
        if possible.any():
            uses = grammar.expected_uses(x[possible])
            total = total + uses if count else uses
            count += int(possible.sum())
    return total / max(count, 1), count


def why_not_derivable(module: Any, length: int) -> str:
    """For people: why a sentence of so many tokens has no tree."""
    if length == 1 and _shortest(module) > 1:
        return (
            "not derivable: the model was trained on sentences of "
            f"{_shortest(module)} words or more"
        )
    return "not derivable: no tree of the grammar has these words"


def _shortest(module: Any) -> int:
    """Fewest tokens of a training sentence; 1 for runs that do not remember it."""
    return module.metadata.get("min_length", 1)

"""Which sentences a trained model has trees for, and what to say of the others."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from gfnem.parsing.text.sentences import Sentences


def derivable(module: Any, x: Sentences) -> Tensor:
    """`(batch,)` bool: which sentences have a tree that a trained module's model can answer for.

    One word alone has none where the training data had no such sentence: nothing was learned of
    them, whatever number a model gives.
    """
    return module.model.in_support(x) & ((x.lengths > 1) | (_shortest(module) == 1))


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

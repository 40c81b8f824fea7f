"""Which trees a run chooses, and how often their arcs are right."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from gfnem.parsing.dependencies.chart import minimum_risk
from gfnem.parsing.text.data import batches_by_length
from gfnem.parsing.text.sentences import Sentences

#: trees drawn for each sentence where exact inference does not exist
SAMPLES = 64


@torch.no_grad()
def chosen_heads(run: Any, x: Sentences) -> Tensor:
    """`(batch, n)` the tree with the most arcs that are probably right.

    By the model's exact marginals where it has them, else by draws of the sampler.
    """
    if run.model.offers("arc_marginals"):
        marginals = run.model.arc_marginals(x)
    else:
        marginals = drawn_marginals(run.posterior(x).sample(SAMPLES))
    return minimum_risk(marginals, x.lengths)


def drawn_marginals(heads: Tensor) -> Tensor:
    """`(batch, n + 1, n)` the share of trees `(batch, samples, n)` that have each arc."""
    return one_hot(heads, heads.shape[2] + 1).float().mean(1).mT


def attachment(found: Sequence[Sequence[int]], gold: Sequence[Sequence[int]]) -> dict[str, float]:
    """Attachment scores in percent of words.

    Returns:
        `uas`, the share of words with the gold head, and `undirected_uas`, the share whose arc is
        in the gold tree in either direction (Klein and Manning, 2004, section 2).
    """
    words = right = either = 0
    for heads, true in zip(found, gold, strict=True):
        for word, (head, own) in enumerate(zip(heads, true, strict=True), 1):
            words += 1
            right += head == own
            either += head == own or (head > 0 and true[head - 1] == word)
    share = 100 / max(words, 1)
    return {"uas": share * right, "undirected_uas": share * either}


def chains(lengths: Sequence[int]) -> dict[str, list[list[int]]]:
    """What it takes no learning to get: each word under the one before it, or after it."""
    return {
        "previous": [list(range(length)) for length in lengths],
        "next": [[*range(2, length + 1), 0] for length in lengths],
    }


def attachment_scores(
    run: Any,
    encode: Callable[[Sequence[Sequence[str]]], Sentences],
    sentences: Iterable[tuple[Sequence[str], Sequence[int] | None]],
) -> dict[str, Any]:
    """Attachment scores of a run, and of what it takes no learning to get.

    Args:
        run: the trained run.
        encode: numbers the words of sentences.
        sentences: words and gold heads of each; those without heads are left out.

    Returns:
        Nothing where no sentence has gold heads.
    """
    headed = [(words, heads) for words, heads in sentences if heads is not None]
    if not headed:
        return {}
    found, gold = [], []
    for rows in batches_by_length([words for words, _ in headed]):
        x = encode([headed[row][0] for row in rows]).to(run.device)
        for row, heads in zip(rows, chosen_heads(run, x).tolist(), strict=True):
            gold.append(headed[row][1])
            found.append(heads[: len(gold[-1])])
    figures: dict[str, Any] = {"trees": len(headed), **attachment(found, gold)}
    for name, trees in chains([len(heads) for heads in gold]).items():
        figures |= {f"{name}_{key}": value for key, value in attachment(trees, gold).items()}
    return figures

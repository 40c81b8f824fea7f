"""The report of a run on dependency trees."""

from __future__ import annotations

from typing import Any

import torch

from gfnem.page import Block, Choice, Parts, Picture, Posterior, Section, Table, Text
from gfnem.parsing.dependencies.drawing import heads_svg
from gfnem.report import BARS, EXAMPLE_DRAWS, EXAMPLES, STRUCTURES, in_three, others, ranked

#: words whose dependents are listed
_LISTED = 15
MEANING = (
    "uas: the share of words, in percent, under the head that the gold tree has; undirected: whose "
    "arc is in the gold tree in either direction. previous and next: of trees in which each word "
    "hangs from the one before it, or after it. Punctuation is left out."
)


def sections(run: Any, data: Any, samples: int) -> list[Section]:
    """What words take as dependents, sentences with their trees, how good it is.

    Args:
        run: a run on dependency trees.
        data: its data; None where that is not to be had.
        samples: importance samples.
    """

    def shown() -> tuple[list[Block], list[Block]]:
        return _learned(run), [] if data is None else _examples(run, data)

    return in_three(run, data, samples, MEANING, "Held-out sentences and their trees", shown)


def _learned(run: Any) -> list[Block]:
    if not run.model.offers("decisions"):
        return []
    words, counts = run.metadata["vocabulary"], torch.tensor(run.metadata["counts"])
    order = counts[1:].argsort(descending=True)[:_LISTED] + 1
    made = run.model.decisions(order.to(run.device))
    attach, go = made.attach.exp(), made.go.sigmoid()
    rows: list[list[Any]] = []
    for at, word in enumerate(order.tolist()):
        row: list[Any] = [words[word]]
        for side in (0, 1):
            best = attach[at, side].topk(min(4, len(words)))
            likely = zip(best.indices.tolist(), best.values.tolist(), strict=True)
            row += [f"{100 * float(go[at, side, 0]):.0f} %"]
            row += [Parts([(words[child], p) for child, p in likely], "many words")]
        rows.append(row)
    head = ["word", "has one on the left", "which", "has one on the right", "which"]
    about = "The most frequent words as heads: how often they have a dependent on each side, and "
    return [Text(about + "which words those are."), Table(head, rows)]


def _examples(run: Any, data: Any) -> list[Block]:
    corpus = data.held_out()
    middling = [at for at, words in enumerate(corpus.tokens) if 4 <= len(words) <= 12]
    chosen = [corpus.tokens[at] for at in middling[:EXAMPLES]]
    if not chosen or not run.has_policy:
        return []
    x = data.encode(chosen).to(run.device)
    z, log_weights = run.posterior(x).log_weights(EXAMPLE_DRAWS)
    exact = run.model.offers("log_marginal")
    weights = log_weights.softmax(1)
    if exact:
        given = run.model.given(x)
        weights = (given.log_joint(z) - given.log_marginal()[:, None]).exp()
    blocks: list[Block] = [Text(BARS)]
    for row, words in enumerate(chosen):
        heads = z[row, :, : len(words)].tolist()
        ranks = ranked(list(map(tuple, heads)), weights[row].tolist(), exact, run.has_policy)
        choices = [
            Choice(shares, Picture(heads_svg(words, heads[at]), wide=True))
            for at, shares in ranks[:STRUCTURES]
        ]
        rest = others(ranks, STRUCTURES, EXAMPLE_DRAWS)
        blocks.append(Posterior(" ".join(words), choices, rest))
    return blocks

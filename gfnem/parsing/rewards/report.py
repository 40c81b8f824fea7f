"""What a report says of a reward on trees: which substrings it found, and how trees changed."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any

import torch

from gfnem.page import Block, Fold, Row, Share, Table, Text
from gfnem.parsing.grammars.support import derivable
from gfnem.parsing.inference.decoding import minimum_risk
from gfnem.parsing.parser import label_names
from gfnem.parsing.reader import Reader
from gfnem.parsing.rewards.substrings import Substrings
from gfnem.running.run import Run

#: substrings shown, sentences looked at for them, sentences whose trees are shown, most words
SUBSTRINGS, LOOKED_AT, CHANGED, _LONGEST = 24, 2000, 4, 12


@torch.no_grad()
def of_reward(
    run: Run,
    reader: Reader,
    sentences: Sequence[Sequence[str]],
    draw: Callable[[Any, str], Block],
) -> list[Block]:
    """The reward in words, its best substrings, and trees with and without it.

    Args:
        run: a run with a reward.
        reader: encodes sentences as the run's were.
        sentences: of a text that its statistics are likely to know.
        draw: makes a picture of an `nltk` tree and a caption.
    """
    reward = run.reward
    found: list[Block] = [
        Text(
            f"The sampler aims at log p(x, z) + {run.target.weight:g} s(x, z), the model's "
            f"likelihood and a reward on trees: {reward.summary()}. The model learns from such "
            "trees, and likelihoods are its own. Nothing of the reward is needed to parse."
        )
    ]
    if isinstance(reward, Substrings):
        found.append(_substrings(reward, reader, sentences[:LOOKED_AT]))
    if run.model.offers("span_marginals") and run.target.offers("log_marginal"):
        found += _changed(run, reader, sentences, draw)
    return found


def _substrings(reward: Substrings, reader: Reader, sentences: Sequence[Sequence[str]]) -> Block:
    """The repeated substrings that are worth most together."""
    worth: dict[tuple[str, ...], list[float]] = defaultdict(list)
    ordered = sorted(sentences, key=len)
    for start in range(0, len(ordered), 100):
        part = ordered[start : start + 100]
        spans, _ = reward.apart(reader.encode(part))
        for row, left, right in spans.gt(0.05).nonzero().tolist():
            worth[tuple(part[row][left:right])].append(float(spans[row, left, right]))
    best = sorted(worth.items(), key=lambda entry: -sum(entry[1]))[:SUBSTRINGS]
    most = max((max(values) for _, values in best), default=1.0)
    rows = [
        [" ".join(words), len(values), Share(max(values) / most, f"{max(values):.2f}")]
        for words, values in best
    ]
    if not rows:
        return Text("None of these sentences has a substring that the training text repeats.")
    caption = (
        f"Repeated substrings that are worth most as constituents, together, in {len(sentences):,} "
        "sentences; how often they come there, and what one is worth, in nats before the weight."
    )
    return Table(["substring", "times", "worth"], rows, caption)


def _changed(
    run: Run,
    reader: Reader,
    sentences: Sequence[Sequence[str]],
    draw: Callable[[Any, str], Block],
) -> list[Block]:
    """Sentences whose trees the reward changes most, each without and with it."""
    some = [words for words in sentences if 4 <= len(words) <= _LONGEST][:200]
    if not some:
        return []
    x = reader.encode(some)
    fits = derivable(run, x)
    if not fits.any():
        return []
    x, some = x[fits], [some[row] for row in fits.nonzero().flatten().tolist()]
    given = run.target.given(x)
    bare, drawn = (
        minimum_risk(each.span_marginals(), x.lengths)[0] for each in (given.normalised(), given)
    )
    names = label_names(run)
    shared = []
    for row, words in enumerate(some):
        one, other = ({span[:2] for span in trees.spans(row)} for trees in (bare, drawn))
        shared.append((len(one & other) / (len(words) - 1), row))
    mean = sum(share for share, _ in shared) / len(shared)
    found: list[Block] = [
        Text(
            f"Of the spans of {len(some):,} sentences' trees, {100 * mean:.0f} % are the same "
            "whether the grammar parses alone or with the reward. Those that differ most:"
        )
    ]
    pairs: list[Block] = []
    for share, row in sorted(shared)[:CHANGED]:
        if share == 1:
            break
        without = draw(bare.to_nltk(row, some[row], names), "the grammar alone")
        rewarded = draw(drawn.to_nltk(row, some[row], names), "with the reward")
        pairs.append(Row([without, rewarded]))
    return [*found, Fold("Trees without and with the reward", pairs)] if pairs else found

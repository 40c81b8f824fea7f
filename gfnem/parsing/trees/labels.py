"""Labelled F1 where the labels of predicted trees have no names: they are mapped to gold labels."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from nltk import Tree

from gfnem.parsing.trees.scores import proper_spans

LabelledSpans = dict[tuple[int, int], str]

LABEL_CONVENTION = (
    "Labelled F1 in percent, of all sentences together; spans as for unlabelled F1. A span of "
    "several gold phrases has the label of the topmost. Each symbol of the model stands for one "
    "gold label: for the one that it meets most often (many to one), or for the one that the best "
    "pairing of symbols and labels gives it (one to one, Kuhn 1955). The mapping is made on the "
    "sentences that are scored."
)


class LabelF1:
    """Labelled F1 under the best mappings of predicted to gold labels, sentence by sentence.

    The convention is `LABEL_CONVENTION`.
    """

    def __init__(self):
        #: how often a predicted and a gold label have the same span
        self.met: Counter[tuple[int, str]] = Counter()
        self.predicted = self.gold = 0

    def update(
        self,
        predicted: Iterable[Sequence[int]],
        gold: Mapping[tuple[int, int], str],
        length: int,
    ) -> None:
        """Adds one sentence.

        Args:
            predicted: half-open `(left, right, label)` in tokens.
            gold: the label of each gold span.
            length: tokens of the sentence.

        Raises:
            ValueError: if a span does not lie in the sentence.
        """
        wanted = proper_spans(gold, length)
        found = {span: label for *span, label in predicted for span in [tuple(span)]}
        self.gold += len(wanted)
        for span in proper_spans(found, length):
            self.predicted += 1
            if span in wanted:
                self.met[found[span], gold[span]] += 1

    @property
    def many_to_one(self) -> float:
        """F1 in percent where each symbol stands for the label that it meets most often."""
        best: dict[int, int] = {}
        for (symbol, _), count in self.met.items():
            best[symbol] = max(best.get(symbol, 0), count)
        return self._f1(sum(best.values()))

    @property
    def one_to_one(self) -> float:
        """F1 in percent where no two symbols stand for the same label."""
        if not self.met:
            return self._f1(0)
        symbols, labels = (sorted({pair[side] for pair in self.met}, key=str) for side in (0, 1))
        counts = np.array([[self.met[symbol, label] for label in labels] for symbol in symbols])
        return self._f1(int(best_pairing(counts)))

    def _f1(self, matched: int) -> float:
        total = self.predicted + self.gold
        return 200.0 * matched / total if total else float("nan")


def labelled_spans(tree: Tree) -> LabelledSpans:
    """The label of each span of two words or more of a tree, the topmost where there are several.

    Args:
        tree: with words as leaves; a node above a single word is no phrase.
    """
    found: LabelledSpans = {}
    count = 0
    # a stack and not recursion: a tree may be as deep as its sentence is long
    todo: list[tuple[Tree | str, int | None]] = [(tree, None)]
    while todo:
        node, left = todo.pop()
        if isinstance(node, str):
            count += 1
        elif left is None:
            todo.append((node, count))
            todo += [(child, None) for child in reversed(node)]
        elif count - left > 1:
            found[left, count] = node.label()  # those above come later
    return found


def best_pairing(counts: np.ndarray) -> float:
    """The greatest sum of entries of which no two are in one row or in one column.

    The Hungarian algorithm with potentials (Kuhn 1955; Munkres 1957), cubic in the size.

    Args:
        counts: `(rows, columns)` not negative.
    """
    size = max(counts.shape)
    cost = np.zeros((size + 1, size + 1))
    cost[1 : counts.shape[0] + 1, 1 : counts.shape[1] + 1] = -counts
    of_row, of_column = np.zeros(size + 1), np.zeros(size + 1)  # the potentials
    row_at = np.zeros(size + 1, dtype=int)  # of each column; the 0th is outside
    for row in range(1, size + 1):
        row_at[0], column = row, 0
        least = np.full(size + 1, np.inf)
        come_from = np.zeros(size + 1, dtype=int)
        seen = np.zeros(size + 1, dtype=bool)
        while row_at[column]:
            seen[column] = True
            slack = cost[row_at[column]] - of_row[row_at[column]] - of_column
            better = ~seen & (slack < least)
            least[better], come_from[better] = slack[better], column
            open_ones = np.where(seen, np.inf, least)
            open_ones[0] = np.inf
            following = int(open_ones.argmin())
            step = open_ones[following]
            of_row[row_at[seen]] += step
            of_column[seen] -= step
            least[~seen] -= step
            column = following
        while column:  # turn the path round
            row_at[column] = row_at[come_from[column]]
            column = come_from[column]
    return float(-sum(cost[row_at[column], column] for column in range(1, size + 1)))

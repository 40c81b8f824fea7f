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
    """The greatest sum of entries of which no two are in one row or in one column (Kuhn 1955).

    Args:
        counts: `(rows, columns)` not negative.
    """
    import networkx

    graph = networkx.Graph()
    for row, column in zip(*counts.nonzero(), strict=True):
        graph.add_edge(("row", row), ("column", column), weight=counts[row, column])
    pairs = networkx.max_weight_matching(graph)
    return float(sum(graph.edges[pair]["weight"] for pair in pairs))

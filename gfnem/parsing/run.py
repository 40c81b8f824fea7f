"""A trained run on text: sentences in, `nltk` trees out."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence

from nltk.tree import ProbabilisticTree

from gfnem.errors import UserError
from gfnem.parsing.text.characters import clean
from gfnem.parsing.trees.treebank import parse_tree
from gfnem.running.run import Run
from gfnem.running.runs import load_run


class TextRun(Run):
    """A trained run on text."""

    def parser(self) -> TextRun:
        """The run whose model and sampler are of trees: this one.

        Raises:
            UserError: if there is none.
        """
        return self

    def parse(
        self, sentences: str | Sequence[str], k: int = 5, samples: int = 64
    ) -> list[ProbabilisticTree] | list[list[ProbabilisticTree]]:
        """The most probable trees of a sentence, or of each of several.

        Args:
            sentences: one, or a list of them.
            k: most trees of a sentence.
            samples: trees drawn for each, of which the most probable are returned.

        Returns:
            A list of `nltk` trees, the most probable first, with `prob()` the probability
            `p(z|x)` of each given the sentence; of a list of sentences one such list each. A
            sentence that has no tree has an empty list.

        Raises:
            UserError: if the run has no sampler and no exact posterior.
        """
        alone = isinstance(sentences, str)
        texts = [sentences] if alone else list(sentences)
        records = self.inferences(texts, k, samples)
        found = [[_tree(**latent) for latent in record["latents"]] for record in records]
        return found[0] if alone else found


def load_text_run(run: str | os.PathLike) -> TextRun:
    """A trained run on text from its folder or checkpoint; of a sampler of sentences its parser.

    Raises:
        UserError: if it is missing, damaged, or was trained on something else.
    """
    loaded = load_run(run)
    if not isinstance(loaded, TextRun):
        raise UserError(
            f"{run}: this run was not trained on text and its bracketed trees: gfnem infer and "
            "gfnem sample are for runs of every world"
        )
    return loaded.parser()


def _tree(latent: str, log_prob: float, log_joint: float) -> ProbabilisticTree:
    tree = parse_tree(latent)
    for place in tree.treepositions("leaves"):
        tree[place] = clean(tree[place])  # brackets have some characters in another form
    return ProbabilisticTree(tree.label(), list(tree), prob=math.exp(log_prob))

"""The truth behind a corpus that was drawn from a grammar: what nothing can beat but by luck.

Drawn are sentences of some lengths only, and only finite ones. So the distribution they follow is
the grammar's *given* that a sentence is finite and has such a length: the grammar's probabilities
over their sum for these lengths, which is computed exactly.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor

from gfnem.errors import UserError
from gfnem.parsing.grammars.tabular import TabularGrammar
from gfnem.parsing.parser import exact_trees
from gfnem.parsing.text.corpus import Corpus, Preprocessing, read_corpus
from gfnem.parsing.text.sentences import Sentences
from gfnem.parsing.trees.scores import SpanF1

#: a corpus drawn from a grammar is taken as it is: its words are the grammar's, to the letter
AS_DRAWN = Preprocessing(tokenizer="space", lower=False, digits=False, punctuation=True)


class Truth:
    """The distribution that an embedded corpus is drawn from.

    Args:
        name: an embedded grammar's name, or a grammar file.
        min_length, max_length: tokens of the sentences drawn.
        vocabulary: the words behind word indices; the grammar's own if None.

    Attributes:
        grammar: the grammar, whose own probabilities are not conditioned on anything.
        mass: how much probability the grammar gives to sentences of these lengths.

    Raises:
        UserError: if the grammar cannot be read, or no sentence has these lengths.
    """

    def __init__(
        self,
        name: str,
        min_length: int,
        max_length: int,
        vocabulary: Sequence[str] | None = None,
    ):
        if not 1 <= min_length <= max_length:
            raise UserError(
                f"lengths from {min_length} to {max_length} tokens: no sentence has one"
            )
        self.name, self.min_length, self.max_length = name, min_length, max_length
        self.grammar = TabularGrammar(name, vocabulary)
        self.mass = float(self.grammar.length_weights(max_length)[min_length - 1 :].sum())
        if not self.mass > 0:
            raise UserError(
                f"grammar {name!r}: it has no sentence of {min_length} to {max_length} tokens"
            )

    @classmethod
    def of_run(cls, metadata: dict[str, Any]) -> Truth:
        """The truth of a run on an embedded corpus, from what the run remembers of its data.

        Raises:
            UserError: if the run was trained on other data.
        """
        if metadata.get("grammar") is None:
            raise UserError("this run was trained on your own data: name held-out data with --data")
        return cls(
            metadata["grammar"],
            metadata.get("min_length", 2),
            metadata["max_length"],
            metadata["vocabulary"],
        )

    def log_prob(self, x: Sentences) -> Tensor:
        """`(batch,)` float64 exact log probability, in nats, of sentences of these lengths."""
        return self._of_these_lengths(self.grammar.log_marginal(x))

    def _of_these_lengths(self, log_marginal: Tensor) -> Tensor:
        return log_marginal.double() - math.log(self.mass)

    def draw(self, count: int, seed: int) -> Corpus:
        """Draws a corpus with gold trees; draws that are too short are skipped and counted.

        Raises:
            UserError: if fewer than one derivation in a thousand is short enough.
        """
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            try:
                x, z = self.grammar.sample(count, self.max_length)
            except RuntimeError as error:
                raise UserError(f"grammar {self.name!r}: {error}: raise max_length") from error
        trees = []
        for row, tokens in enumerate(x.tokens.tolist()):
            words = [self.grammar.vocabulary[token] for token in tokens[: int(x.lengths[row])]]
            trees.append(z.to_nltk(row, words, self.grammar.names()))
        lengths = {"min_length": self.min_length, "max_length": self.max_length}
        corpus = read_corpus(trees, **asdict(AS_DRAWN), **lengths)
        corpus.source = f"sampled from the grammar {self.name!r}"
        return corpus

    def remarks(self) -> list[str]:
        """Lines for people: what is conditioned on, and symbols that no tree can hold."""
        lengths = f"{self.min_length}-{self.max_length} tokens"
        lines = [f"{100 * self.mass:.1f} % of the grammar's probability is on {lengths}"]
        reasons: dict[str, list[str]] = {}
        for symbol, why in self.grammar.useless.items():
            reasons.setdefault(why, []).append(symbol)
        for why, symbols in reasons.items():
            more = f" and {len(symbols) - 5} more" if len(symbols) > 5 else ""
            lines.append(f"not used, since it {why}: {', '.join(symbols[:5])}{more}")
        return lines

    def figures(
        self,
        encode: Callable[[Sequence[Sequence[str]]], Sentences],
        batches: Iterable[Sequence[int]],
        tokens: Sequence[Sequence[str]],
        gold: Sequence[set[tuple[int, int]]],
        decode: str,
    ) -> dict[str, float]:
        """Exact figures of the truth on drawn sentences, to stand beside a model's.

        Args:
            encode: tokens to word indices.
            batches: rows of `tokens` and `gold` that are taken together.
            tokens, gold: the sentences and the spans of their trees.
            decode: how trees are chosen, as for `parse`.
        """
        score, nll, units = SpanF1(), 0.0, 0
        for rows in batches:
            x = encode([tokens[row] for row in rows])
            trees, log_marginal = exact_trees(self.grammar, x, decode)
            nll -= float(self._of_these_lengths(log_marginal).sum())
            for place, row in enumerate(rows):
                units += len(tokens[row])
                score.update(trees.spans(place), gold[row], len(tokens[row]))
        return {
            "true_nll": nll / units,
            "true_sentence_f1": score.sentence_f1,
            "true_corpus_f1": score.corpus_f1,
        }

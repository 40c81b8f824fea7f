"""Several trained runs that parse together: the tree that agrees best with all of them."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import torch
from nltk import Tree
from torch import Tensor

from gfnem.errors import UserError
from gfnem.parsing.grammars.support import derivable
from gfnem.parsing.inference.decoding import heeding, max_span_tree, span_counts
from gfnem.parsing.parser import Parses, check_pauses, label_names, parse
from gfnem.parsing.reader import Reader
from gfnem.parsing.run import load_text_run
from gfnem.parsing.text.preprocessing import Preprocessing
from gfnem.parsing.trees.scores import SpanF1
from gfnem.parsing.trees.trees import Trees

#: the label of a node of several runs, whose own labels mean different things
LABEL = "X"


class Agreed:
    """The trees that several runs agree on, and how well.

    Attributes:
        trees: one for each sentence, all labels 0.
        f1: `(batch,)` mean F1, in percent, that the runs expect of them. Spans of one word and of
            the whole sentence do not count; a sentence without others has 100.
    """

    def __init__(self, trees: Trees, f1: Tensor):
        self.trees, self.f1 = trees, f1

    def figures(self, row: int) -> list[dict[str, Any]]:
        """What is said of each tree of a sentence beside the tree."""
        return [{"mean_f1": float(self.f1[row])}]


@torch.no_grad()
def average(
    spans: Sequence[Tensor],
    lengths: Tensor,
    votes: Tensor | None = None,
    pauses: Tensor | None = None,
) -> Agreed:
    """The binary trees with the highest F1 that some runs expect in the mean.

    Where a run says how probable each span is, this is the minimum-risk tree (Goodman 1996) under
    the mixture of the runs' posteriors; where it has one tree, it is that of tree averaging
    (Shayegh et al. 2024, arXiv 2310.01717, section 3.2). All binary trees over a sentence have
    equally many spans, so the mean F1 is proportional to the sum of all runs' probabilities of the
    tree's spans: CKY finds the best tree.

    Args:
        spans: of each run `(batch, n, n + 1)`, how probable each span `[i, j)` is; 1 for those of
            its tree.
        lengths: `(batch,)` int64 sentence lengths in tokens.
        votes: `(runs, batch)` what each run counts. Default: 1.
        pauses: see `heeding`; the trees are then the best among what is left of the spans.
    """
    votes = torch.ones(len(spans), len(lengths)) if votes is None else votes
    counts = _voted(spans, votes)
    best = max_span_tree(heeding(counts, pauses, lengths), lengths)
    return Agreed(best, _mean_f1(best, counts, votes.sum(0)))


def _voted(spans: Sequence[Tensor], votes: Tensor) -> Tensor:
    """`(batch, n, n + 1)` the sum over runs; what a run without a vote says may be anything."""
    each = zip(spans, votes[..., None, None], strict=True)
    return sum(torch.where(vote > 0, probable * vote, 0.0) for probable, vote in each)


def _together(found: Sequence[Parses], votes: Tensor, pauses: Tensor) -> Agreed:
    """What several runs make of their `Parses`, with the sentences' `(batch, n)` pauses."""
    spans = [span_counts(each.trees) if each.spans is None else each.spans for each in found]
    lengths = found[0].trees.lengths[:, 0].cpu()
    return average([probable.cpu().float() for probable in spans], lengths, votes, pauses)


def _no_draws(decode: str) -> None:
    if decode not in ("map", "mbr"):
        raise UserError(f"several runs draw no common samples: decode is map or mbr, not {decode}")


def _mean_f1(trees: Trees, counts: Tensor, total: Tensor) -> Tensor:
    """`(batch,)` mean F1 of trees, given the sum of all runs' probabilities and the votes."""
    matched, proper = (span_counts(trees) * counts).sum((1, 2)), trees.lengths[:, 0] - 2
    # the span of the whole sentence is in all trees
    share = (matched - total) / (total * proper).clamp(min=1)
    return 100 * torch.where(proper > 0, share, 1.0)


class Ensemble:
    """Several trained runs on text that parse together.

    Each run says how probable each span of a sentence is ("mbr"), or which tree is the most
    probable ("map"); the sentence gets the tree that agrees best with all of them (see `average`).
    Runs that err in different ways gain most: of other seeds, other models, other rewards. Labels
    of different runs are not the same, so the trees have none. A run that cannot derive a sentence
    has no vote in it.

    Args:
        runs: trained runs, or their folders or checkpoints; one of these, or several.
        pauses: whether spans that cross a pause of the text, at punctuation that the runs do not
            read, count less (see `heeding`). Trees that are found so do not compare with those
            of words alone.

    Raises:
        UserError: if there is no run, one is unusable, or they cut text in different ways.
    """

    def __init__(self, runs: Any, pauses: bool = False):
        paths = (str, os.PathLike)
        runs = runs if isinstance(runs, list | tuple) else [runs]
        self.runs = [load_text_run(run) if isinstance(run, paths) else run for run in runs]
        if not self.runs:
            raise UserError("an ensemble of no run: name one at least")
        self.pauses, self.readers = pauses, [Reader(run) for run in self.runs]
        for run, reader in zip(self.runs, self.readers, strict=True):
            if reader.preprocessing != self.preprocessing:
                raise UserError(
                    f"{self.runs[0].path} and {run.path} cut text in different ways; runs that "
                    "parse together need the same tokenizer, lower, digits and punctuation"
                )

    @property
    def preprocessing(self) -> Preprocessing:
        """How the runs read text."""
        return self.readers[0].preprocessing

    @property
    def names(self) -> list[str]:
        """A name for each label."""
        return label_names(self.runs[0]) if len(self.runs) == 1 else [LABEL]

    @property
    def device(self) -> torch.device:
        """Where the first run is."""
        return self.runs[0].device

    @torch.no_grad()
    def answer(
        self,
        sentences: Sequence[Sequence[str]],
        decode: str = "mbr",
        samples: int | None = None,
        pauses: Sequence[Sequence[int]] = (),
    ) -> tuple[Parses | Agreed, list[bool]]:
        """Trees of tokenised sentences, and which of the sentences have any.

        Args:
            sentences: tokens, as the runs' preprocessing makes them.
            decode, samples: see `parser.parse`.
            pauses: of each sentence behind how many tokens it pauses, where that is known; they are
                heeded if the ensemble heeds pauses.

        Raises:
            UserError: if draws of several runs are asked for, or a run cannot parse.
        """
        if len(self.runs) > 1:
            _no_draws(decode)
        found, votes, heeded = self._parses(sentences, pauses, decode, samples)
        agreed = _together(found, votes, heeded) if len(found) > 1 else found[0]
        return agreed, (votes > 0).any(0).tolist()

    def _parses(
        self,
        sentences: Sequence[Sequence[str]],
        pauses: Sequence[Sequence[int]],
        decode: str,
        samples: int | None = None,
    ) -> tuple[list[Parses], Tensor, Tensor]:
        """What each run makes of tokenised sentences.

        Returns:
            Their parses, `(runs, batch)` their votes, 0 or 1, and `(batch, n)` the pauses heeded.
        """
        if self.pauses:
            check_pauses(decode, self.preprocessing)
        encoded = [
            reader.encode(sentences, pauses if self.pauses else ()) for reader in self.readers
        ]
        found, votes = [], []
        for run, x in zip(self.runs, encoded, strict=True):
            x = x.to(run.device)
            found.append(parse(run, x, decode, samples))
            votes.append(derivable(run, x).cpu())
        return found, torch.stack(votes).float(), encoded[0].pauses

    def parse(self, sentences: str | Sequence[str], decode: str = "mbr") -> Tree | list[Tree]:
        """The tree of a sentence, or of each of several.

        Args:
            sentences: one, or a list of them.
            decode: what each run says, "mbr" for the probability of each span or "map" for its
                most probable tree.

        Returns:
            An `nltk` tree, or a list of them; a tree without leaves for a sentence that has none.
        """
        from gfnem.parsing.answers import Answers
        from gfnem.parsing.text.input_lines import read_sentences

        texts = [sentences] if isinstance(sentences, str) else list(sentences)
        lines = [f"{' '.join(text.split())}\n" for text in texts]
        answers = Answers(self, decode).of(list(read_sentences(lines, self.preprocessing)))
        trees = [next(answer.nltk(), Tree("TOP", [])) for answer in answers]
        return trees[0] if isinstance(sentences, str) else trees

    def evaluate(self, treebank: str, decode: str = "mbr", max_length: int = 150) -> dict[str, Any]:
        """Unlabelled F1 of the ensemble and of each run alone, in percent.

        Args:
            treebank: a file or folder of gold trees.
            decode: as in `parse`; a run alone chooses its tree by it.
            max_length: longer sentences, in tokens, are left out.

        Returns:
            `{"sentences": ..., "sentence_f1": ..., "corpus_f1": ..., "single": [sentence F1 of each
            run], "agreement": mean F1 of the ensemble's trees to those of the runs}`.

        Raises:
            UserError: if the treebank cannot be read or holds no trees, or draws are asked for.
        """
        _no_draws(decode)
        corpus = self.readers[0].read(treebank, max_length)
        rows = [row for row, gold in enumerate(corpus.spans) if gold is not None]
        if not rows:
            raise UserError(f"{treebank}: no gold trees in it to compare with")
        rows.sort(key=lambda row: len(corpus.tokens[row]))
        scores = [SpanF1() for _ in range(len(self.runs) + 1)]
        agreement = 0.0
        for start in range(0, len(rows), 64):
            part = rows[start : start + 64]
            tokens = [corpus.tokens[row] for row in part]
            pauses = [corpus.pauses[row] for row in part]
            found, votes, heeded = self._parses(tokens, pauses, decode)
            together = _together(found, votes, heeded).trees
            single = [each.trees.to("cpu") for each in found]
            own = [span_counts(trees) for trees in single]
            agreement += float(_mean_f1(together, _voted(own, votes), votes.sum(0)).sum())
            for score, trees in zip(scores, [together, *single], strict=True):
                for place, row in enumerate(part):
                    score.update(trees.spans(place), corpus.spans[row], len(tokens[place]))
        return {
            "sentences": len(rows),
            "sentence_f1": scores[0].sentence_f1,
            "corpus_f1": scores[0].corpus_f1,
            "single": [score.sentence_f1 for score in scores[1:]],
            "agreement": agreement / len(rows),
        }

"""The world of dependency trees: sentences are observed, the head of each word is latent."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, ClassVar

from gfnem.parsing.observed_sentences import BATCH, NO_WORD, ObservedText, WorldOfSentences
from gfnem.ranges import Count


class DependenciesWorld(WorldOfSentences):
    """Sentences `x`, and `z` the head of each word in a projective tree."""

    about = "sentences, and the head of each word"
    data = f"FILE.conllu[:form|lemma|upos|xpos], or as for text: {WorldOfSentences.data}"
    parts: ClassVar = {
        "dataset": "gfnem.parsing.dependencies.data.DependencyData",
        "model": "gfnem.parsing.dependencies.model.NeuralDMV",
        "space": "gfnem.parsing.dependencies.space.HeadsSpace",
        "policy": "gfnem.parsing.dependencies.policy.HeadsPolicy",
    }
    modules = (
        "gfnem.parsing.dependencies.data",
        "gfnem.parsing.dependencies.model",
        "gfnem.parsing.dependencies.policy",
        "gfnem.parsing.dependencies.rewards",
        "gfnem.parsing.dependencies.space",
    )
    formats: ClassVar = {"conllu": "CoNLL-U, the most probable tree of each sentence"}

    def read(self, run: Any, source: Any) -> Iterator[ObservedText]:
        """Sentences of a CoNLL-U file, or as of text."""
        from gfnem.parsing.dependencies.conllu import located, read_conllu
        from gfnem.parsing.grammars.support import why_not_derivable
        from gfnem.parsing.reader import Reader

        found = located(str(source), run.metadata["column"]) if isinstance(source, Path) else None
        if found is None:
            yield from super().read(run, source)
            return
        reader, sentences = Reader(run), read_conllu(found[0], found[1])
        while batch := list(islice(sentences, BATCH)):
            without = {
                row: (" ".join(each.forms), why_not_derivable(run, 1) if each.words else NO_WORD)
                for row, each in enumerate(batch)
                if len(each.words) < reader.shortest
            }
            for row, (_, why) in without.items():
                print(f"gfnem: line {batch[row].line}: {why}", file=sys.stderr)
            kept = [each for row, each in enumerate(batch) if row not in without]
            words = [reader.preprocessing.normalise(each.words) for each in kept]
            forms = [each.forms for each in kept]
            shown = [" ".join(each) for each in forms]
            yield ObservedText(
                reader.encode(words) if kept else None, shown, forms, without=without
            )

    def latents(self, run: Any, observed: ObservedText, z: Any) -> list[list[dict[str, Any]]]:
        """`{"words": [...], "heads": [...]}`: 0 for the root, else the head's number from 1."""
        return [
            [{"words": words, "heads": heads[: len(words)]} for heads in trees]
            for words, trees in zip(observed.words, z.tolist(), strict=True)
        ]

    def likely(self, run: Any, x: Any) -> Sequence[Any]:
        """The most probable tree of each sentence, where the model can tell."""
        return [run.model.best_heads(x)[:, None]] if run.model.offers("best_heads") else []

    def written(self, run: Any, record: Mapping[str, Any], form: str) -> str:
        """The most probable tree of a record in CoNLL-U."""
        from gfnem.parsing.dependencies.conllu import written

        if not record["latents"]:
            return f"# text = {record['observation']}\n# {record['why']}\n\n"
        best = record["latents"][0]
        name = "log_prob" if "log_prob" in best else "log_joint"  # a draw of the model has none
        comments = [f"text = {record['observation']}", f"{name} = {best[name]:.4f}"]
        return written(best["latent"]["words"], best["latent"]["heads"], comments)

    def flags(self, verb: str, parser: argparse.ArgumentParser) -> None:
        """`--max-length` of `evaluate`: scores are often given for sentences of up to 10 words."""
        if verb == "evaluate":
            parser.add_argument(
                "--max-length",
                metavar="N",
                type=Count | None,
                help="sentences of more words are left out, punctuation not counted",
            )

    def batches(
        self, run: Any, data: Any, source: str | None, max_length: int | None = None
    ) -> Iterator[Any]:
        """See `World`; without sentences of more than `max_length` words."""
        for x in super().batches(run, data, source):
            if max_length is None:
                yield x
            elif (kept := x.lengths <= max_length).any():
                yield x[kept]

    def scores(
        self, run: Any, data: Any, source: str | None, max_length: int | None = None
    ) -> dict[str, Any]:
        """Attachment scores where there are gold heads, over the sentences of `batches`."""
        from gfnem.parsing.dependencies.conllu import located, read_conllu
        from gfnem.parsing.dependencies.scores import attachment_scores
        from gfnem.parsing.reader import Reader

        reader = Reader(run)
        if source is None:
            corpus = data.held_out()
            pairs = list(zip(corpus.tokens, corpus.heads, strict=True))
        elif (found := located(source, run.metadata["column"])) is None:
            return {}
        else:
            pairs = [
                (reader.preprocessing.normalise(each.words), each.heads)
                for each in read_conllu(found[0], found[1])
                if len(each.words) >= reader.shortest
            ]
        if max_length is not None:
            pairs = [(words, heads) for words, heads in pairs if len(words) <= max_length]
        return attachment_scores(run, reader.encode, pairs)

    def report(self, run: Any, data: Any, samples: int) -> list[Any]:
        """What words take as dependents, sentences with their trees, figures."""
        from gfnem.parsing.dependencies.report import sections

        return sections(run, data, samples)

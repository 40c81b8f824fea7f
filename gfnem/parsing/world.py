"""The world of text: sentences are observed, their trees are latent."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from gfnem.errors import UserError
from gfnem.ranges import Count
from gfnem.world import Observed, World

if TYPE_CHECKING:
    from gfnem.parsing.run import TextRun

#: sentences of a batch
_BATCH = 32


@dataclass
class ObservedText(Observed):
    """Sentences, with the words that trees are printed over.

    Attributes:
        words: of each sentence.
    """

    words: list[list[str]]


class TextWorld(World):
    """Sentences `x` and their labelled binary trees `z`."""

    about = "sentences, and their trees"
    data = (
        "a text file with one sentence a line, a file or folder of bracketed trees (.mrg .ptb "
        ".tree .psd), a folder of .txt files, a column of a table as FILE.csv:COLUMN, or "
        "hf:NAME[/CONFIG]:COLUMN"
    )
    parts: ClassVar = {
        "dataset": "gfnem.parsing.text.data.TextData",
        "model": "gfnem.parsing.grammars.neural_pcfg.NeuralPCFG",
        "space": "gfnem.parsing.spaces.topdown.TopDownSpace",
        "policy": "gfnem.parsing.policies.topdown.TopDownPolicy",
    }
    modules = (
        "gfnem.parsing.text.data",
        "gfnem.parsing.grammars.neural_pcfg",
        "gfnem.parsing.grammars.compound_pcfg",
        "gfnem.parsing.grammars.simple_pcfg",
        "gfnem.parsing.grammars.rnng",
        "gfnem.parsing.grammars.rule_prior",
        "gfnem.parsing.grammars.tabular",
        "gfnem.parsing.bracket_prior.reward",
        "gfnem.parsing.bracket_prior.treebank_brackets",
        "gfnem.parsing.rewards.substrings",
        "gfnem.parsing.rewards.whole",
        "gfnem.parsing.spaces.forest",
        "gfnem.parsing.spaces.shift_reduce",
        "gfnem.parsing.spaces.topdown",
        "gfnem.parsing.policies.forest",
        "gfnem.parsing.policies.shift_reduce",
        "gfnem.parsing.policies.topdown",
    )
    told = frozenset({"vocab_size", "vocabulary", "shortest"})

    def defaults(self, given: Collection[str] = ()) -> dict[str, Any]:
        """For a text of the user's: a reward from the text itself, and an equal M-step.

        Not where a treebank's brackets are given: they say more of trees.
        """
        content = super().defaults(given)
        if "data" in given and "brackets" not in given:
            objective = {"class_path": "gfnem.objectives.BalancedVarGrad"}
            content["recipe"] = {
                "class_path": "gfnem.recipes.gflownet",
                "init_args": {"objective": objective, "m_step": "equal"},
            }
            content["reward"] = {"class_path": "gfnem.parsing.Substrings"}
        return content

    def read(self, run: Any, source: Any) -> Iterator[ObservedText]:
        """Sentences of a file (`-` is standard input), a sentence, or a list of sentences.

        Why a line has no tree is said with it, and of a file's lines that are not blank on standard
        error too.
        """
        from gfnem.parsing.grammars.support import derivable, why_not_derivable
        from gfnem.parsing.reader import Reader
        from gfnem.parsing.text.corpus import read_sentences

        reader, name = Reader(run), "standard input"
        if isinstance(source, Path):
            text = sys.stdin.buffer if str(source) == "-" else source
        else:
            sentences = [source] if isinstance(source, str) else list(source)
            if not all(isinstance(sentence, str) for sentence in sentences):
                raise UserError("a sentence is a string, as in infer('the old man saw a bird')")
            text, name = [f"{' '.join(each.split())}\n" for each in sentences], "sentences"
        lines = read_sentences(text, reader.preprocessing, name)
        while batch := list(islice(lines, _BATCH)):
            why = ["" if line.tokens else "no word in it" for line in batch]
            if some := [row for row, line in enumerate(batch) if line.tokens]:
                x = reader.encode([batch[row].tokens for row in some])
                for row, possible in zip(some, derivable(run, x).tolist(), strict=True):
                    if not possible:
                        why[row] = why_not_derivable(run, len(batch[row].tokens))
            without: dict[int, tuple[str, str]] = {}
            for row, (line, cause) in enumerate(zip(batch, why, strict=True)):
                if cause:
                    without[row] = line.text.strip(), cause
                    if line.text.strip() and isinstance(source, Path):
                        print(f"gfnem: line {line.number}: {cause}", file=sys.stderr)
            kept = [line for line, cause in zip(batch, why, strict=True) if not cause]
            x = reader.encode([line.tokens for line in kept]) if kept else None
            shown, words = [line.text.strip() for line in kept], [line.words for line in kept]
            yield ObservedText(x, shown, words, without=without)

    def observed(self, run: Any, x: Any) -> ObservedText:
        """Sentences that a model has drawn."""
        from gfnem.parsing.reader import Reader

        vocabulary = Reader(run).vocabulary
        words = [
            vocabulary.decode(tokens[:length])
            for tokens, length in zip(x.tokens.tolist(), x.lengths.tolist(), strict=True)
        ]
        shown = [" ".join(sentence) for sentence in words]
        return ObservedText(x, shown, words)

    def latents(self, run: Any, observed: ObservedText, z: Any) -> list[list[str]]:
        """Trees in brackets."""
        from gfnem.parsing.parser import label_names
        from gfnem.parsing.trees.drawing import brackets

        return brackets(z, observed.words, label_names(run))

    def likely(self, run: Any, x: Any) -> Sequence[Any]:
        """The most probable tree of each sentence, where the model can tell."""
        return [run.model.best_trees(x)] if run.model.offers("best_trees") else []

    def evaluate(self, run: Any, source: str | None = None, **flags: Any) -> dict[str, Any]:
        """NLL, the sampler's quality, and scores of trees where there are gold trees."""
        from gfnem.parsing.commands import evaluate

        return evaluate(run, source, **flags)

    def table(self, run: Any, figures: dict[str, Any]) -> str:
        """The figures as tables, with remarks."""
        from gfnem.parsing.commands import report

        return report(figures, run.model.unit)

    def report(self, run: Any, data: Any, samples: int) -> list[Any]:
        """The grammar, sentences with their trees, figures."""
        from gfnem.parsing.report import sections

        return sections(run, data, samples)

    def flags(self, verb: str, parser: argparse.ArgumentParser) -> None:
        """`--brackets` of `train`; of `evaluate` how trees are chosen, and what is left out."""
        if verb == "evaluate":
            _evaluate_flags(parser)
            return
        parser.add_argument(
            "--brackets",
            metavar="TREEBANK",
            type=str | None,
            help="trees whose brackets, without words and labels, a grammar is to learn from "
            "beside the text (short for --recipe.side TreebankBrackets --recipe.side.treebank "
            "TREEBANK, with a weight that falls from 10 to 1 in the first half of the updates)",
        )

    def expand(self, settings: dict[str, Any]) -> dict[str, Any]:
        """The settings with `--brackets` as their `recipe.side`; what that says besides is kept.

        By default brackets come first: a young sampler's trees would teach the grammar otherwise.
        """
        if settings.get("brackets") is None:
            return settings
        recipe = settings["recipe"]
        told = dict(recipe.get("init_args") or {})
        side = told.get("side")
        if side is None:
            half = max(1, settings["max_updates"] // 2)
            weight = {"start": 10.0, "end": 1.0, "updates": half, "shape": "exponential"}
            weight = {"class_path": "gfnem.schedules.Anneal", "init_args": weight}
            side = {"class_path": "gfnem.parsing.TreebankBrackets", "init_args": {"weight": weight}}
        arguments = {**(side.get("init_args") or {}), "treebank": settings["brackets"]}
        told["side"] = {**side, "init_args": arguments}
        return {**settings, "recipe": {**recipe, "init_args": told}}

    def run_class(self) -> type[TextRun]:
        """A run that parses."""
        from gfnem.parsing.run import TextRun

        return TextRun


def _evaluate_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--decode",
        choices=("map", "mbr"),
        default="mbr",
        help="how trees are chosen, as for parse",
    )
    parser.add_argument(
        "--limit", metavar="N", type=Count | None, help="evaluate only the first so many"
    )
    parser.add_argument(
        "--max-length",
        metavar="N",
        type=Count,
        default=150,
        help="longer sentences are left out and counted",
    )

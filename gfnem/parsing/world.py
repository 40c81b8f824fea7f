"""The world of text: sentences are observed, their trees are latent."""

from __future__ import annotations

import argparse
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from gfnem.parsing.observed_sentences import WorldOfSentences
from gfnem.ranges import Count

if TYPE_CHECKING:
    from gfnem.parsing.run import TextRun


class TextWorld(WorldOfSentences):
    """Sentences `x` and their labelled binary trees `z`."""

    about = "sentences, and their trees"
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
        "gfnem.parsing.grammars.energy_grammar",
        "gfnem.parsing.grammars.sentence_chains",
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
        "gfnem.parsing.policies.recursion_policy",
        "gfnem.parsing.policies.shift_reduce",
        "gfnem.parsing.policies.topdown",
    )

    def defaults(self, given: Collection[str] = ()) -> dict[str, Any]:
        """Averaged weights; for a text of the user's a reward from it, and an equal M-step.

        The latter not where a treebank's brackets are given: they say more of trees.
        """
        content = super().defaults(given)
        content["rates"] = {"class_path": "gfnem.rates.Rates", "init_args": {"average": 8.0}}
        if "data" in given and "brackets" not in given:
            objective = {"class_path": "gfnem.objectives.BalancedVarGrad"}
            content["recipe"] = {
                "class_path": "gfnem.recipes.gflownet",
                "init_args": {"objective": objective, "m_step": "equal"},
            }
            content["reward"] = {"class_path": "gfnem.parsing.Substrings"}
        return content

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
        "--pauses",
        type=bool,
        default=False,
        help="as for parse: spans that cross the text's punctuation count less; F1 then does not "
        "compare with that of words alone",
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

"""The world of sentences that are built: words are rewarded, trees are on the way to them."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from gfnem.parsing.observed_sentences import WorldOfSentences

if TYPE_CHECKING:
    from gfnem.parsing.generation.run import SentenceRun

#: held-out sentences that are parsed
_PARSED = 500
#: what the figures of `scores` mean
MEANING = (
    "log z: exact log of the sum of the reward over all sentences; learned and bound: what the "
    "sampler says, and its importance weights. gap: the divergence of the sampler's trajectories "
    "from the reward times the parser. parser kl: the mean divergence of the parser from the "
    "grammar's own posterior over trees. sampler nll: of held-out sentences, exact. total "
    "variation and kl: of the sampler's distribution of sentences from the reward's."
)


class SentencesWorld(WorldOfSentences):
    """Sentences as what is built, trees as how: the parser is the backward policy."""

    about = (
        "sentences that a sampler builds, by a tree or word by word, and a reward of their words"
    )
    parts: ClassVar = {"model": "gfnem.parsing.generation.targets.GrammarTarget"}
    config = "sentences"
    modules = (
        "gfnem.parsing.generation.data",
        "gfnem.parsing.generation.grammar_sampler",
        "gfnem.parsing.generation.language_models",
        "gfnem.parsing.generation.left_to_right",
        "gfnem.parsing.generation.recipes",
        "gfnem.parsing.generation.space",
        "gfnem.parsing.generation.targets",
    )
    told = WorldOfSentences.told | {"longest"}

    def defaults(self, given: Collection[str] = ()) -> dict[str, Any]:
        """For a text of the user's, an n-gram model of it as the reward."""
        content = super().defaults(given)
        if "data" in given:
            content["model"] = {"class_path": "gfnem.parsing.generation.language_models.NGram"}
        return content

    def scores(self, run: Any, data: Any, source: str | None) -> dict[str, Any]:
        """How far the sampler is from its reward, its own NLL, and F1 of its parser."""
        from gfnem.parsing.generation.figures import figures, likelihood, parser_f1
        from gfnem.parsing.reader import Reader

        corpus = data.held_out() if source is None else Reader(run).read(source, run.space.longest)
        found = {**figures(run), "sampler_nll": likelihood(run, data.batches(corpus.tokens))}
        gold = any(spans is not None for spans in corpus.spans[:_PARSED])
        if gold and not run.policy.unique_trajectory(run.space):
            found |= parser_f1(run.parser(), data, corpus, _PARSED)
        return found

    def report(self, run: Any, data: Any, samples: int) -> list[Any]:
        """What it writes, held-out sentences with their trees, figures."""
        from gfnem.parsing.generation.report import sections

        return sections(run, data, samples, MEANING)

    def draw(self, run: Any, data: Any, folder: Path) -> list[str]:
        """Parses, and the grammar."""
        return data.draw(run, folder)

    def run_class(self) -> type[SentenceRun]:
        """A run that writes and parses."""
        from gfnem.parsing.generation.run import SentenceRun

        return SentenceRun

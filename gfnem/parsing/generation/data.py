"""Text for samplers of sentences."""

from __future__ import annotations

from typing import Any

from gfnem.parsing.text.data import TextData


class SentenceData(TextData):
    """Sentences that a sampler of sentences is trained on beside its own (see `TextData`)."""

    world = "sentences"

    def facts(self) -> dict[str, Any]:
        """Also `longest`, most words of a sentence, and the `grammar` of an embedded corpus.

        `shortest` is 1 or 2: a sampler of sentences is not told to write longer ones only.
        """
        facts = {**super().facts(), "longest": self.lengths["max_length"]}
        facts["shortest"] = min(facts["shortest"], 2)
        return facts if self.path is not None else {**facts, "grammar": self.grammar}

    def draw(self, module: Any, folder: Any) -> list[str]:
        """Held-out sentences as `P_B` parses them, and the grammar, where there are trees."""
        from gfnem.parsing.generation.run import as_parser

        parser = as_parser(module)
        if parser is None:
            return []
        return [*self._draw_parses(parser, folder), *self._draw_grammar(module, folder)]

    def _draw_grammar(self, module: Any, folder: Any) -> list[str]:
        from gfnem.parsing.grammars.grammar_file import write_grammar

        counted = self.batches((self._valid or self.train.tokens)[:200])
        return write_grammar(module.policy.grammar, self.vocabulary.to_list(), counted, folder)

"""Text for dependency trees: as any text, or a CoNLL-U file whose heads are for scoring."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields
from itertools import islice
from typing import Any

from gfnem.errors import UserError
from gfnem.files import write_atomically
from gfnem.parsing.dependencies.conllu import COLUMNS, located, read_conllu
from gfnem.parsing.dependencies.drawing import stacked
from gfnem.parsing.dependencies.scores import chosen_heads
from gfnem.parsing.text.corpus import Corpus, read_corpus
from gfnem.parsing.text.data import TextData


@dataclass
class HeadedCorpus(Corpus):
    """Sentences, with gold heads where the source has them.

    Attributes:
        heads: of each sentence, as in `conllu.Headed`; None where they are not known.
    """

    heads: list[list[int] | None] = field(default_factory=list)

    @classmethod
    def of(cls, corpus: Corpus, heads: list[list[int] | None] | None = None) -> HeadedCorpus:
        """A corpus with the heads of its sentences."""
        parts = {part.name: getattr(corpus, part.name) for part in fields(Corpus)}
        return cls(**parts, heads=[None] * len(corpus) if heads is None else heads)


class DependencyData(TextData):
    """Sentences of a text or of a CoNLL-U file (see `TextData`).

    `path` may be `FILE.conllu[:COLUMN]`, where the column is `form`, `lemma`, `upos` or `xpos`:
    what is taken as a sentence's words. Heads are used for scoring alone.
    """

    world = "dependencies"

    def read(self, source: Any) -> HeadedCorpus:
        """Reads a corpus with this module's settings."""
        found = located(str(source), self.reading["column"])
        if found is None:
            return HeadedCorpus.of(super().read(source))
        path, column = found
        read = read_conllu(path, column or self.column, self.reading["encoding"])
        sentences = list(islice(read, self.reading["limit"]))
        if {word for each in sentences for word in each.words} == {"_"}:
            raise UserError(
                f"{path}: its column {column or self.column} is empty; name one of "
                f"{', '.join(COLUMNS)}, as in {path}:form"
            )
        least, most = self.lengths["min_length"], self.lengths["max_length"]
        kept = [each.heads for each in sentences if least <= len(each.words) <= most]
        if not kept:
            raise UserError(
                f"{path}: none of its {len(sentences):,} sentences has {least} to {most} words; "
                "dataset.min_length and dataset.max_length say how many are wanted"
            )
        settings = {**asdict(self.preprocessing), "punctuation": True}  # it is left out already
        corpus = read_corpus([each.words for each in sentences], **settings, **self.lengths)
        corpus.source = str(source)
        return HeadedCorpus.of(corpus, kept)

    def _whole(self, source: Any) -> Corpus:
        """As of any text; of a CoNLL-U file what is learned from, without its punctuation."""
        return super()._whole(source) if located(str(source)) is None else self.read(source)

    @property
    def column(self) -> str:
        """The column that is read where a source names none: that of the training data."""
        found = located(str(self.path), self.reading["column"])
        return (found and found[1]) or "form"

    def sampled(self, count: int, stream: int) -> HeadedCorpus:
        """Sentences of the embedded grammar, which knows no heads."""
        return HeadedCorpus.of(super().sampled(count, stream))

    def held_out(self) -> HeadedCorpus:
        """The sentences that validation runs on, with gold heads where the data has them."""
        corpus, rows = self._held_out
        return HeadedCorpus.of(super().held_out(), [corpus.heads[row] for row in rows])

    def metadata(self) -> dict[str, Any]:
        """As of any text, and which `column` of CoNLL-U files is read."""
        return {**super().metadata(), "column": self.column}

    def draw(self, module: Any, folder: Any) -> list[str]:
        """Trees of a few held-out sentences."""
        middling = [words for words in self._valid if 5 <= len(words) <= 12] or self._valid
        if not middling:
            return []
        x = self.encode(middling[:4]).to(module.device)
        heads = chosen_heads(module, x).tolist()
        write_atomically(
            folder / "trees.svg", stacked(list(zip(middling[:4], heads, strict=False)))
        )
        return ["trees.svg"]

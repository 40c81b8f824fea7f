"""How a source is read, and what is read of it at a time."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from nltk import Tree

from gfnem.errors import UserError
from gfnem.files import decode, encoding_name, no_text
from gfnem.parsing.text.line_reader import ENCODING_HINT
from gfnem.parsing.text.preprocessing import Part, Preprocessing
from gfnem.parsing.trees.treebank import read_tree, tree_spans, tree_words

FORMATS = ("auto", "text", "trees")


@dataclass(frozen=True)
class Reading:
    """How a source is read: plain settings.

    Attributes:
        format: "auto" (a file's name tells: `.mrg .ptb .tree .psd` are bracketed trees, `.csv .tsv
            .jsonl .json .parquet` tables, all others text with one sentence a line; `.gz` may
            follow), "text" or "trees".
        encoding: of files.
        column: of a table or dataset, where the source's name does not say it.
        split: of a public dataset, likewise; "train" if None.
        limit: lines, trees or rows read at most.
        streaming: rows of a public dataset are fetched as they are read; nothing else is stored.

    Raises:
        UserError: for another format, or an unknown encoding.
    """

    format: str = "auto"
    encoding: str = "utf-8"
    column: str | None = None
    split: str | None = None
    limit: int | None = None
    streaming: bool = False

    def __post_init__(self):
        if self.format not in FORMATS:
            raise UserError(f"format {self.format!r}: choose one of {', '.join(FORMATS)}")
        if self.limit is not None and self.limit < 1:
            raise UserError(f"limit {self.limit}: at least 1 is needed")
        encoding_name(self.encoding)


@dataclass
class Entry:
    """One unit of a source on its way in: a text, words that are cut already, or a tree.

    Attributes:
        source, line: where it stands.
        text: a sentence; None where there are `words`.
        words: of a sentence that is cut already.
        spans: of its tree, sorted; None where there is no tree.
        tree: its tree.
        removed: words that have been removed as punctuation.
        pauses: of a tree, behind how many of its words the text pauses.
    """

    source: str
    line: int
    text: str | None = None
    words: Sequence[str] | None = None
    spans: list[tuple[int, int]] | None = None
    tree: Tree | None = None
    removed: int = 0
    pauses: Sequence[int] = ()

    def part(self, preprocessing: Preprocessing) -> Part:
        """What becomes of its words."""
        if self.text is not None:
            return preprocessing.cut(self.text)
        words = list(self.words or ())
        if self.spans is None:
            return preprocessing.cut_already(words)
        # punctuation has gone from the tree already
        return Part(words, preprocessing.normalise(words), self.removed, list(self.pauses))


@dataclass
class Block:
    """Some units of a source, to be read by `entries` in whatever process.

    Attributes:
        source: the file, or whatever it is.
        size: for progress, of the same kind as `Source.size`.
    """

    source: str
    size: int

    def entries(self, keep_punctuation: bool) -> Iterator[Entry]:
        """What is in it."""
        raise NotImplementedError


@dataclass
class TextBlock(Block):
    """Whole lines of a text, the first of them number `first`."""

    first: int
    data: bytes | str

    def entries(self, keep_punctuation: bool) -> Iterator[Entry]:
        """An entry a line; only a line feed, with or without a carriage return, ends a line."""
        text = self.data
        if isinstance(text, bytes):
            text = decode(text, self.source, self.first, hint=ENCODING_HINT)
        for line, row in enumerate(text.removesuffix("\n").split("\n"), start=self.first):
            yield Entry(self.source, line, row.removesuffix("\r"))


@dataclass
class TreeBlock(Block):
    """Bracketed expressions, each with its file and line."""

    expressions: list[tuple[str, int, str]]

    def entries(self, keep_punctuation: bool) -> Iterator[Entry]:
        """An entry a tree."""
        for source, line, expression in self.expressions:
            gold = read_tree(expression, source, line, keep_punctuation)
            yield Entry(
                source,
                line,
                None,
                gold.tokens,
                sorted(gold.spans),
                gold.tree,
                gold.removed,
                gold.pauses,
            )


@dataclass
class RowBlock(Block):
    """Values of a column, or sentences from memory, each with its number.

    Attributes:
        what: what to call a number in an error.
        lines: whether a text may have several lines, each a sentence.
    """

    values: list[tuple[int, Any]]
    what: str
    lines: bool = True

    def entries(self, keep_punctuation: bool) -> Iterator[Entry]:
        """An entry a sentence."""
        for number, value in self.values:
            if value is None or isinstance(value, str):
                value = self._text(number, value or "")
                # Only \n and \r\n end a line, as in a file.
                rows = value.removesuffix("\n").split("\n") if self.lines else [value]
                for text in rows:
                    yield Entry(self.source, number, text.removesuffix("\r"))
            elif isinstance(value, Tree):
                spans = sorted(tree_spans(value))
                words = tree_words(value)
                self._text(number, " ".join(words))
                yield Entry(self.source, number, None, words, spans, value)
            else:
                yield Entry(self.source, number, words=self._words(number, value))

    def _where(self, number: int) -> str:
        return f"{self.source}, {self.what} {number}"

    def _text(self, number: int, text: str) -> str:
        if wrong := no_text(text):
            raise UserError(f"{self._where(number)}: {wrong[0]}, which no text holds")
        return text

    def _words(self, number: int, value: Any) -> list[str]:
        where = self._where(number)
        if isinstance(value, dict):
            columns = " ".join(map(str, value))
            raise UserError(f"{where}: a row of columns, not a sentence: {choose_column(columns)}")
        if not isinstance(value, Iterable) or isinstance(value, (bytes, bytearray)):
            raise UserError(f"{where}: {type(value).__name__}, not text or words")
        words = list(value)
        for word in words:
            if not isinstance(word, str):
                raise UserError(f"{where}: not a word: {word!r}")
            if not self.lines and word.split() != [word]:
                raise UserError(f"{where}: not a word: {word!r}")
        return self._text(number, " ".join(words)).split()


def choose_column(columns: str) -> str:
    """What to do about rows of several columns."""
    return f"name a column, as in column='text' (there are: {columns})"

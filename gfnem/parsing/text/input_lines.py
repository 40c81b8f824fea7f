"""Sentences to be parsed, one by one, with their places in the text."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property

from gfnem.files import decode_lines
from gfnem.parsing.text.blocks import Entry, Reading
from gfnem.parsing.text.line_reader import ENCODING_HINT
from gfnem.parsing.text.preprocessing import Preprocessing
from gfnem.parsing.text.sources import lines_of, open_source


@dataclass
class Line:
    """One input line of `read_sentences`.

    Attributes:
        number: the line, from 1.
        words: its words, punctuation removed unless kept, each in its one spelling (see
            `characters.clean`); empty for a blank line.
        tokens: the same words normalised, for `Vocabulary.encode`; one for each of `words`.
        text: the line itself; of a tree its words with a space between.
        pauses: behind how many of the words the text pauses, see `Part`.
        locate: makes `offsets`.
    """

    number: int
    words: list[str]
    tokens: list[str]
    text: str = ""
    pauses: list[int] = field(default_factory=list)
    locate: Callable[[], list[tuple[int, int]]] = field(default=list, repr=False, compare=False)

    @cached_property
    def offsets(self) -> list[tuple[int, int]]:
        """Where each of `words` stands in `text`, `[start, end)` in characters."""
        return self.locate()


def read_sentences(
    source: str | os.PathLike | Iterable[bytes | str],
    preprocessing: Preprocessing | None = None,
    name: str = "standard input",
) -> Iterator[Line]:
    """Sentences to be parsed: one `Line` for every line of the input, blank ones included.

    Lines are read as they are asked for, so that a pipe is answered line by line.

    Args:
        source: anything named that `read_corpus` reads (of trees, their words), or an open stream
            of lines (such as `sys.stdin.buffer`).
        preprocessing: as the model was trained with; the defaults of `Preprocessing` if None.
        name: what to call a stream in an error.

    Raises:
        UserError: at a line that is not UTF-8 text, or if a file is missing, empty or unreadable.
    """
    preprocessing = preprocessing or Preprocessing()
    if not isinstance(source, (str, os.PathLike)):
        lines = decode_lines(source, name, ENCODING_HINT)
    elif (lines := lines_of(source)) is None:
        blocks = open_source(source, Reading()).blocks()
        entries = (entry for block in blocks for entry in block.entries(preprocessing.punctuation))
        yield from (_line(entry, preprocessing) for entry in entries)
        return
    for number, text in enumerate(lines, start=1):
        yield _line(Entry(name, number, text), preprocessing)


def _line(entry: Entry, preprocessing: Preprocessing) -> Line:
    part, text = entry.part(preprocessing), entry.text

    def locate() -> list[tuple[int, int]]:
        if entry.text is not None:
            return preprocessing.located(entry.text)[1]
        offsets, start = [], 0
        for word in entry.words or ():
            if preprocessing.kept(word, entry.spans is not None):
                offsets.append((start, start + len(word)))
            start += len(word) + 1
        return offsets

    if text is None:
        text = " ".join(entry.words or ())
    return Line(entry.line, part.words, part.tokens, text, part.pauses, locate)

"""Sentences with their heads in the CoNLL-U format (universaldependencies.org/format.html)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from gfnem.errors import UserError
from gfnem.parsing.text.characters import clean, is_word
from gfnem.parsing.text.line_reader import text_lines

#: the columns that may be read as words, and where they stand
COLUMNS = {"form": 1, "lemma": 2, "upos": 3, "xpos": 4}
_ENDINGS = (".conllu", ".conllu.gz")


@dataclass
class Headed:
    """A sentence without its punctuation.

    Attributes:
        line: where it begins.
        forms: the words as they are written.
        words: what the column holds, a word each.
        heads: 0 for the word that hangs from the wall, else the number of the head from 1; None
            where the file has none.
    """

    line: int
    forms: list[str]
    words: list[str]
    heads: list[int] | None


def located(source: str, column: str | None = None) -> tuple[Path, str | None] | None:
    """Path and column of `FILE.conllu[:COLUMN]`; None for what is no such file.

    Args:
        source: as the user names it.
        column: where `source` names none.

    Raises:
        UserError: for a column that there is not.
    """
    path, colon, named = source.rpartition(":")
    if colon and path.lower().endswith(_ENDINGS):
        column = named
    elif source.lower().endswith(_ENDINGS):
        path = source
    else:
        return None
    if column is not None and column not in COLUMNS:
        raise UserError(f"{path}: there is no column {column!r}: {', '.join(COLUMNS)} are read")
    return Path(path), column


def read_conllu(path: Path, column: str = "form", encoding: str = "utf-8") -> Iterator[Headed]:
    """The sentences of a file, as they are asked for.

    Words of several tokens and empty nodes are passed over. Punctuation is left out: what has the
    part of speech PUNCT or no letter and no digit. What hangs from it hangs from its head then, and
    if it was the root, the first of these is the root and has the others.

    Args:
        path: the file.
        column: which of `COLUMNS` the words are.
        encoding: of the file.

    Raises:
        UserError: naming file and line, if the file cannot be read or has no sentence, or a line
            has not ten columns, an ID out of order, or a head that is no word of the sentence or
            leads in a circle.
    """
    rows: list[list[str]] = []
    start = number = 0
    for number, line in enumerate(text_lines(path, encoding), 1):
        line = line.rstrip("\r\n")
        if not line.strip():
            if rows:
                yield _sentence(path, start, rows, column)
            rows = []
            continue
        if line.startswith("#"):
            continue
        fields = line.split("\t")
        if len(fields) != 10:
            raise UserError(
                f"{path}, line {number}: {len(fields)} columns, where CoNLL-U has ten with tabs "
                "between them; plain text needs another ending than .conllu"
            )
        if "-" in fields[0] or "." in fields[0]:
            continue
        if fields[0] != str(len(rows) + 1):
            raise UserError(
                f"{path}, line {number}: the ID is {fields[0]!r}, not {len(rows) + 1}; words are "
                "numbered from 1, with a blank line after each sentence"
            )
        start = start if rows else number
        rows.append([*fields, str(number)])
    if rows:
        yield _sentence(path, start, rows, column)
    elif not start:
        raise UserError(
            f"{path}: no sentence in it; in CoNLL-U each word has a line of ten columns"
        )


def _sentence(path: Path, start: int, rows: list[list[str]], column: str) -> Headed:
    kept = [row[3] != "PUNCT" and is_word(row[1]) for row in rows]
    numbers = {at: new for new, at in enumerate((at for at, keep in enumerate(kept) if keep), 1)}
    forms, words = (
        ["_".join(clean(rows[at][COLUMNS[name]]).split()) or "_" for at in numbers]
        for name in ("form", column)
    )
    if any(row[6] == "_" for row in rows):
        return Headed(start, forms, words, None)
    above: list[int] = []
    for row in rows:
        if not row[6].isdecimal() or int(row[6]) > len(rows):
            raise UserError(
                f"{path}, line {row[10]}: the head {row[6]!r} is none of 0, the root, to "
                f"{len(rows)}; where heads are not known, write _"
            )
        above.append(int(row[6]) - 1)
    heads = []
    for at in numbers:
        head = _kept_above(above, kept, at)
        if head is None:
            raise UserError(
                f"{path}, line {rows[at][10]}: the heads above word {at + 1} lead in a circle and "
                "never to 0, the root"
            )
        heads.append(0 if head < 0 else numbers[head])
    roots = [number for number, head in enumerate(heads, 1) if head == 0]
    for number in roots[1:]:
        heads[number - 1] = roots[0]
    return Headed(start, forms, words, heads)


def _kept_above(above: Sequence[int], kept: Sequence[bool], at: int) -> int | None:
    """The nearest word above that is kept, -1 for the wall; None if there is a circle."""
    found, steps = None, 0
    while at >= 0:
        at, steps = above[at], steps + 1
        if steps > len(above):
            return None
        if found is None and (at < 0 or kept[at]):
            found = at
    return found


def written(words: Sequence[str], heads: Sequence[int], comments: Sequence[str] = ()) -> str:
    """A sentence in CoNLL-U, a blank line after it.

    Args:
        words: of the sentence.
        heads: as in `Headed`.
        comments: lines above it.
    """
    lines = [f"# {comment}" for comment in comments]
    for number, (word, head) in enumerate(zip(words, heads, strict=True), 1):
        relation = "dep" if head else "root"
        lines.append("\t".join([str(number), word, *"____", str(head), relation, "_", "_"]))
    return "\n".join([*lines, "", ""])

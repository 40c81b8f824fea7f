"""The notation of grammar files: NLTK's for PCFGs, in which a left-hand side may name parents.

    %class Verbal VP VPb VPg
    # A subject; an object, of a verb or of a preposition; under all parents not named.
    NP^S         -> Det N [0.3] | 'he' [0.7]
    NP^Verbal,PP -> Det N [0.8] | 'him' [0.2]
    NP           -> Det N [0.9] | NP PP [0.1]

What `nltk.PCFG.fromstring` reads is read, and what NLTK prints of grammars that it has taken from a
treebank: probabilities such as `[1e-05]`, symbols such as `PRP$`, `,` and `NP|<JJ-NN>`, words with
both kinds of quotes, and the line above the rules that names the start symbol.

`^` is the usual mark of parent annotation (Johnson 1998). It names parents in `.ncfg` files alone;
elsewhere it is a letter like others, as in the symbols `NP^<S>` that NLTK makes.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from nltk.grammar import Nonterminal

from gfnem.errors import UserError

#: the parent of the symbol at the top of a tree
TOP = "TOP"
#: files whose rules name no parents, and files whose rules may
ENDINGS = (".pcfg", ".ncfg")

# A right-hand side: symbols as `Nonterminal`s, words as strings.
Side = tuple[Nonterminal | str, ...]


class Production(NamedTuple):
    """One rule of a file.

    Attributes:
        left: the symbol it expands.
        parents: parents, or classes of them, that it is written for; none: all that are not named.
        right: what it expands to.
        p: its probability as written.
    """

    left: str
    parents: tuple[str, ...]
    right: Side
    p: float


class Directive(NamedTuple):
    """`%start SYMBOL`, or `%class NAME SYMBOL ...`: a name for several parents.

    Attributes:
        word: "start" or "class".
        names: what follows it.
    """

    word: str
    names: tuple[str, ...]


def symbols_in(right: Side) -> list[str]:
    """The symbols of a right-hand side."""
    return [str(item) for item in right if isinstance(item, Nonterminal)]


# ---------------------------------------------------------------- reading


# The tags `#` and `%` have rules too, as NLTK prints them; such lines are no comment or directive.
_RULE_OF_MARK = re.compile(r"""[#%]\s*->\s*['"].*\]$""")
# what NLTK prints above a grammar's rules
_HEADER = re.compile(r"Grammar with \d+ productions? \(start state = (\S+)\)")
# `|` is part of a symbol where NLTK's binarisation has put it: NP|<JJ-NN>.
_SYMBOL = r"""(?:''(?=[\s|[]|$)|[^\s'"\[\]|](?:[^\s'"\[\]|]|\|<[^\s>]*>)*)"""
_LEFT = re.compile(rf"({_SYMBOL}?)\s*->\s*")
_PARENT = r"(?:[^\s,^<]|<[^\s>]*>)+"
_ANNOTATED = re.compile(rf"({_SYMBOL})\^({_PARENT}(?:\s*,\s*{_PARENT})*)\s*->\s*")
_NUMBER = r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?"
# A quote inside a word is written \' where Python prints it so; else a backslash is a backslash.
_TOKEN = re.compile(
    rf"""(?:
        (?P<symbol>{_SYMBOL})
      | (?P<word>'[^']*'(?=[\s|[]|$) | "[^"]*"(?=[\s|[]|$))
      | (?P<escaped>'(?:[^'\\]|\\.)*'(?=[\s|[]|$))
      | (?P<close>'[^']*' | "[^"]*")
      | \[\s*(?P<p>{_NUMBER})\s*\]
      | (?P<bar>\|)
    )\s*""",
    re.VERBOSE,
)


def read_lines(path: Path) -> Iterator[tuple[str, Production | Directive]]:
    """What a file says, each with `file:line` before it.

    Raises:
        UserError: if the file cannot be read or is not UTF-8, a line does not parse, or one of its
            rules is none for a grammar of text.
    """
    parents = path.suffix == ".ncfg"
    for number, line in _logical_lines(path):
        where = f"{path}:{number}"
        if (directive := _directive(where, line, parents)) is not None:
            yield where, directive
        else:
            yield from ((where, production) for production in _productions(where, line, parents))


def _logical_lines(path: Path) -> Iterator[tuple[int, str]]:
    """The file's lines with continuations joined and comments left out, with their numbers."""
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise UserError(f"{path}: cannot read the grammar: {error.strerror}") from error
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise UserError(f"{path}:{line}: not UTF-8 text: {error.reason}") from error
    pending, first = "", 1
    for number, raw in enumerate(text.split("\n"), 1):
        if not pending:
            first = number
        line = pending + raw.strip()
        if not line or (line.startswith("#") and not _RULE_OF_MARK.match(line)):
            continue
        if line.endswith("\\"):
            pending = line[:-1].rstrip() + " "
            continue
        pending = ""
        yield first, line
    if pending:
        raise UserError(f"{path}:{first}: the line continues past the end of the file")


def _directive(where: str, line: str, parents: bool) -> Directive | None:
    """The directive that a line is; None if it is none."""
    if header := _HEADER.fullmatch(line):
        return Directive("start", (header[1],))
    if not line.startswith("%") or _RULE_OF_MARK.match(line):
        return None
    word, *names = line[1:].split() or [""]
    if all(re.fullmatch(_SYMBOL, name) for name in names) and (
        (word == "start" and len(names) == 1) or (word == "class" and len(names) > 1 and parents)
    ):
        return Directive(word, tuple(names))
    known = "the only one is '%start SYMBOL'"
    if parents:
        known = "there are '%start SYMBOL' and '%class NAME PARENT PARENT ...'"
    raise UserError(f"{where}: not a directive; {known}: {line[:80]}")


def _left_side(where: str, line: str, parents: bool) -> tuple[str, tuple[str, ...], int]:
    """The symbol on the left, the parents it names, and where the right-hand side begins."""
    if not parents or "^" not in line.split("->")[0]:
        head = _LEFT.match(line)
        if head is None or not head[1]:
            why = "Expected an arrow" if head is None else "Expected a symbol before the arrow"
            raise UserError(f"{where}: not a grammar rule: {why}: {line[:80]}")
        return head[1], (), head.end()
    head = _ANNOTATED.match(line)
    if head is None or "^" in head[1]:
        raise UserError(
            f"{where}: not a grammar rule: with parents it is SYMBOL^PARENT -> ... or "
            f"SYMBOL^PARENT,PARENT -> ...: {line[:40]}"
        )
    named = tuple(re.findall(_PARENT, head[2]))
    if len(set(named)) < len(named):
        raise UserError(f"{where}: a parent of {head[1]} is named twice")
    return head[1], named, head.end()


def _productions(where: str, line: str, parents: bool) -> list[Production]:
    """The rules on one line."""
    left, named, place = _left_side(where, line, parents)
    found, right, p = [], [], None

    def finish() -> None:
        _check(where, left, tuple(right), p, parents)
        found.append(Production(left, named, tuple(right), p))

    while place < len(line):
        token = _TOKEN.match(line, place)
        if token is None or (p is not None and token["bar"] is None):
            why = "Unterminated string" if line[place] in "'\"" else "Expected a symbol or a word"
            if line[place] == "[":
                why = "Expected a probability such as [0.5]"
            elif p is not None:
                why = "Expected the end of the line, or | and another right-hand side"
            raise UserError(f"{where}: not a grammar rule: {why}: {line[place:][:80]}")
        place = token.end()
        if token["symbol"]:
            right.append(Nonterminal(token["symbol"]))
        elif token["p"]:
            p = float(token["p"])
        elif token["bar"]:
            finish()
            right, p = [], None
        elif token["escaped"]:
            right.append(re.sub(r"\\(['\"\\])", r"\1", token["escaped"][1:-1]))
        else:
            right.append((token["word"] or token["close"])[1:-1])
    finish()
    return found


def _check(where: str, left: str, right: Side, p: float | None, parents: bool) -> None:
    if parents and left == TOP:
        raise UserError(f"{where}: {TOP} is the parent of the whole tree: it has no rules")
    if not right:
        raise UserError(f"{where}: {left} has an empty right-hand side")
    for item in right:
        if isinstance(item, str) and item.split() != [item]:
            raise UserError(f"{where}: {left} yields {item!r}, which is not one word")
        if parents and isinstance(item, Nonterminal) and "^" in str(item):
            raise UserError(f"{where}: {item}: only a left-hand side can name a parent")
    if p is None:
        items = " ".join(str(i) if isinstance(i, Nonterminal) else repr(i) for i in right)
        raise UserError(
            f"{where}: {left} -> {items[:60]} has no probability: write one behind it, as in [0.5]"
        )
    if p > 1:
        raise UserError(f"{where}: a production of {left} has probability {p:g}, above 1")
    if not p > 0:
        raise UserError(f"{where}: a production of {left} has probability {p:g}, not above 0")


# ---------------------------------------------------------------- writing


def rule_lines(left: str, sides: Iterable[tuple[str, float]]) -> list[str]:
    """A line for each right-hand side, given as text with its probability."""
    return [f"{left} -> {right} [{_decimal(p)}]" for right, p in sides]


def word_lines(left: str, words: Iterable[tuple[str, float]]) -> list[str]:
    """Lines for words with their probabilities, as many on a line as fit."""
    lines: list[str] = []
    for word, p in words:
        piece = f"{_quoted(word)} [{_decimal(p)}]"
        if lines and len(lines[-1]) + len(piece) < 97:
            lines[-1] += f" | {piece}"
        else:
            lines.append(f"{left} -> {piece}")
    return lines


def _decimal(p: float) -> str:
    """Seven digits of a probability; with an exponent, which NLTK does not read, where tiny."""
    if p < 1e-6:
        return f"{p:.6e}"
    return f"{p:.{6 - math.floor(math.log10(p))}f}".rstrip("0").rstrip(".")


def _quoted(word: str) -> str:
    if "'" not in word:
        return f"'{word}'"
    if '"' not in word:
        return f'"{word}"'
    return "'" + word.replace("'", "\\'") + "'"


def writable(names: Sequence[str]) -> list[str]:
    """Names as symbols that NLTK reads too; those that differ stay different."""
    found: list[str] = []
    for name in names:
        plain = wish = re.sub(r"[^\w/-]", "-", name).lstrip("-") or "X"
        number = 1
        while wish in found or wish == TOP or (wish in names and wish != name):
            number += 1
            wish = f"{plain}-{number}"
        found.append(wish)
    return found

"""Parent-conditioned grammars as text files: NLTK's notation, plus `SYMBOL^PARENT` on the left.

    # A subject; an object, of a verb or of a preposition; under all parents not named.
    NP^S     -> Det N [0.3] | 'he' [0.7]
    NP^VP,PP -> Det N [0.8] | 'him' [0.2]
    NP       -> Det N [0.9] | NP PP [0.1]

`^` is the usual mark of parent annotation (Johnson 1998). A symbol under a parent that is named has
the rules written for it there and no others; under all other parents it has the rules written
without `^`. The parent of the whole tree's symbol is `TOP`. Words are emitted by rules like any
other, so what a preterminal emits depends on its parent in the same way.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from nltk.grammar import Nonterminal

from gfnem.errors import UserError
from gfnem.parsing.grammars.text_format import (
    Production,
    Side,
    check_defined,
    endless,
    find_useless,
    logical_lines,
    normalised,
    read_productions,
    start_directive,
    symbols_in,
)

#: the parent of the symbol at the top of a tree
TOP = "TOP"

_NAME = r"(?:[^\s,^<]|<[^\s>]*>)+"
_ANNOTATED = re.compile(rf"([^\s^]+)\^({_NAME}(?:\s*,\s*{_NAME})*)\s*(->.*)", re.DOTALL)


def _key(symbol: str, parent: str | None) -> str:
    """A block of rules: `SYMBOL^PARENT`, or `SYMBOL^` for all parents not named."""
    return f"{symbol}^{parent or ''}"


class ParentRules:
    """The rules of a parent-conditioned grammar as its file has them.

    Args:
        path: the file.
        start: the symbol at the top.
        blocks: `{(symbol, parent): {right-hand side: probability}}`; parent None for all not named.
        lines: the first line of each block, by `SYMBOL^PARENT` or `SYMBOL^`, and of each symbol.

    Attributes:
        symbols: all symbols, in the file's order.
        pairs: every `(symbol, parent)` that a derivation can have, breadth first.
        useless: symbols that no sentence's tree can hold, or not under a parent, and why.
    """

    def __init__(self, path: Path, start: str, blocks: dict, lines: dict[str, int]):
        self.path, self.start, self._lines = path, start, lines
        self._blocks: dict[tuple[str, str | None], dict[Side, float]] = blocks
        self.symbols = list(dict.fromkeys(symbol for symbol, _ in blocks))
        self.pairs: list[tuple[str, str]] = []
        self._reach()

    def line(self, symbol: str, parent: str) -> int:
        """The first line of the rules that a symbol has under a parent."""
        return self._lines.get(_key(symbol, parent)) or self._lines[_key(symbol, None)]

    def sides(self, symbol: str, parent: str) -> dict[Side, float]:
        """The right-hand sides of a symbol under a parent; none if it has no rules there."""
        return self._blocks.get((symbol, parent)) or self._blocks.get((symbol, None), {})

    def _reach(self) -> None:
        """Finds the pairs, and what is wrong with them."""
        found = {(self.start, TOP): None}
        for symbol, parent in (queue := list(found)):
            sides = self.sides(symbol, parent)
            if not sides:
                raise UserError(
                    f"{self.path}:{self._lines[symbol]}: {symbol} has no rules under {parent}: "
                    f"name it, as in {symbol}^{parent}, or write rules without ^ for all others"
                )
            for right in sides:
                for item in right:
                    pair = (str(item), symbol)
                    if isinstance(item, Nonterminal) and pair not in found:
                        found[pair] = None
                        queue.append(pair)
        for symbol, parent in self._blocks:
            if parent is not None and (symbol, parent) not in found:
                raise UserError(
                    f"{self.path}:{self._lines[_key(symbol, parent)]}: {parent} can never be the "
                    f"parent of {symbol}"
                )
        self.pairs = list(found)
        self._find_useless()

    def _find_useless(self) -> None:
        rules = {pair: [(pair[0], right) for right in self.sides(*pair)] for pair in self.pairs}
        useless = find_useless(
            rules, self.pairs[0], lambda side: [(item, side[0]) for item in symbols_in(side[1])]
        )
        if self.pairs[0] in useless:
            raise endless(self.path, self.line(self.start, TOP), self.start)
        self.useless = {
            f"{symbol} under {parent}": why
            for (symbol, parent), why in useless.items()
            if why.startswith("never")  # one that is not reached costs nothing: it has no index
        }
        met = {symbol for symbol, _ in self.pairs}
        for symbol in self.symbols:
            if symbol not in met:
                self.useless[symbol] = f"is never reached from {self.start}"


def read_parent_rules(path: str | Path) -> ParentRules:
    """Reads a file in the notation of this module.

    Probabilities that miss 1 by no more than `SUM_TOLERANCE` are rescaled.

    Raises:
        UserError: naming file, line and cause, if the file cannot be read or is not UTF-8, a line
            does not parse, a right-hand side is empty, a probability is absent or not in `(0, 1]`,
            those of a symbol under a parent do not sum to 1, a symbol has no production, or none
            under a parent that it may have, a parent is no symbol or one it can never have, or the
            start symbol never ends in words.
    """
    path = Path(path)
    blocks: dict[tuple[str, str | None], dict[Side, float]] = {}
    lines: dict[str, int] = {}
    used: dict[str, int] = {}
    parents_used: dict[str, int] = {}
    start = None
    for number, line in logical_lines(path):
        if (named := start_directive(f"{path}:{number}", line)) is not None:
            start = named
            used.setdefault(start, number)
            continue
        for parent, (left, right, p) in _annotated_productions(path, line, number):
            lines.setdefault(left, number)
            lines.setdefault(_key(left, parent), number)
            if parent is not None:
                parents_used.setdefault(parent, number)
            for item in right:
                if isinstance(item, Nonterminal):
                    used.setdefault(str(item), number)
            sides = blocks.setdefault((left, parent), {})
            sides[right] = sides.get(right, 0.0) + p
    if not blocks:
        raise UserError(f"{path}: the grammar is empty: no rule in the file")
    known = {symbol for symbol, _ in blocks}
    check_defined(path, known, used)
    for parent, number in parents_used.items():
        if parent not in known and parent != TOP:
            raise UserError(f"{path}:{number}: the parent {parent} is no symbol of this grammar")
    for (symbol, parent), sides in blocks.items():
        name = symbol
        if parent is not None:
            name = f"{symbol} under {parent}"
        elif any(other == symbol and at is not None for other, at in blocks):
            name = f"{symbol} under all parents not named"
        where = f"{path}:{lines[_key(symbol, parent)]}"
        blocks[symbol, parent] = normalised(where, name, sides)
    return ParentRules(path, start or next(iter(blocks))[0], blocks, lines)


def _annotated_productions(
    path: Path, line: str, number: int
) -> Iterator[tuple[str | None, Production]]:
    """One line's rules, each with the parent it is written for (None: all not named)."""
    where = f"{path}:{number}"
    parents: list[str | None] = [None]
    if "^" in line.split("->")[0]:
        match = _ANNOTATED.fullmatch(line)
        if match is None:
            raise UserError(
                f"{where}: not a grammar rule: with parents it is SYMBOL^PARENT -> ... or "
                f"SYMBOL^PARENT,PARENT -> ...: {line[:40]}"
            )
        parents = re.findall(_NAME, match[2])
        if len(set(parents)) < len(parents):
            raise UserError(f"{where}: a parent of {match[1]} is named twice")
        line = f"{match[1]} {match[3]}"
    for production in read_productions(path, line, number):
        if production.left == TOP:
            raise UserError(f"{where}: {TOP} is the parent of the whole tree: it has no rules")
        for item in production.right:
            if isinstance(item, Nonterminal) and "^" in str(item):
                raise UserError(f"{where}: {item}: only a left-hand side can name a parent")
        for parent in parents:
            yield parent, production


def annotated_pcfg(path: str | Path) -> str:
    """The same grammar as a PCFG in NLTK's notation, over symbols `SYMBOL^PARENT`.

    Raises:
        UserError: as `read_parent_rules` does.
    """
    rules = read_parent_rules(path)
    lines = [f"%start {rules.start}^{TOP}"]
    for symbol, parent in rules.pairs:
        sides = []
        for right, p in rules.sides(symbol, parent).items():
            items = (f"{i}^{symbol}" if isinstance(i, Nonterminal) else _quoted(i) for i in right)
            sides.append(f"{' '.join(items)} [{p:.20f}]")
        lines.append(f"{symbol}^{parent} -> {' | '.join(sides)}")
    return "\n".join(lines) + "\n"


def _quoted(word: str) -> str:
    return f'"{word}"' if "'" in word else f"'{word}'"

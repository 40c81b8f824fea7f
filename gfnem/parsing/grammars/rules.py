"""The rules of a grammar file, by symbol and parent."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from gfnem.errors import UserError
from gfnem.parsing.grammars.text_format import TOP, Production, Side, read_lines, symbols_in

#: how far from 1 the probabilities of a symbol may add up: room for rounded figures
SUM_TOLERANCE = 1e-3


@dataclass(eq=False)
class Block:
    """The rules that a symbol has under some parents.

    Attributes:
        symbol: the symbol.
        parent: the parent, or class of parents, that is named; None: all that are not.
        where: file and line of the first rule.
        sides: the right-hand sides with their probabilities.
    """

    symbol: str
    parent: str | None
    where: str
    sides: dict[Side, float]

    @property
    def name(self) -> str:
        """The left-hand side."""
        return self.symbol if self.parent is None else f"{self.symbol}^{self.parent}"

    @property
    def in_words(self) -> str:
        """For people, where the symbol has other rules too."""
        return f"{self.symbol} under {self.parent or 'all parents not named'}"


# By symbol, and the parent or class that is named.
_Blocks = dict[tuple[str, str | None], Block]


class GrammarRules:
    """The rules of a grammar file.

    A symbol under a parent that is named has the rules written for it there and no others; else
    those written for the parent's class; else those written without a parent. A context-free
    grammar is one that names no parent.

    Args:
        path: the file.
        start: the symbol at the top, whose parent is `TOP`.
        blocks: the rules by symbol and the parent or class named.
        classes: the class of each parent that is in one.

    Attributes:
        symbols: all symbols, in the file's order.
        children: `{block: {right-hand side: blocks of its symbols}}`; of blocks with equal rules,
            the first stands for all.
        live: the blocks that end in words.
        useless: symbols that no sentence's tree can hold, or not under some parent, and why
            (Hopcroft and Ullman 1979, section 4.4).

    Raises:
        UserError: naming file, line and cause, if a symbol has no rules under a parent that it may
            have, a parent is one it can never have, unary rules form a loop that is never left, or
            the start symbol never ends in words.
    """

    def __init__(self, path: Path, start: str, blocks: _Blocks, classes: dict[str, str]):
        self.path, self.start = path, start
        self._blocks, self._classes = blocks, classes
        self.symbols = list(dict.fromkeys(symbol for symbol, _ in blocks))
        self._check_parents()
        equal: dict[tuple, Block] = {}
        for key, block in blocks.items():
            blocks[key] = equal.setdefault((key[0], frozenset(block.sides.items())), block)
        self.children = {
            block: {right: self._below(block, right) for right in block.sides}
            for block in equal.values()
        }
        # the symbols whose rules depend on the parent: these alone tell parents apart
        looking = [
            symbol
            for (symbol, parent), block in blocks.items()
            if parent is not None and block is not blocks.get((symbol, None))
        ]
        self._looking = list(dict.fromkeys(looking))
        self._kinds: dict[str, int] = {}
        self._kind_of: dict[tuple[Block | None, ...], int] = {}
        leaving = self._least(lambda right, below, found: len(right) > 1 or found >= set(below))
        for block in self.children:
            if block not in leaving:
                raise UserError(
                    f"{block.where}: the unary rules of {block.name} form a loop that never "
                    "reaches a word"
                )
        self.live = self._least(lambda right, below, found: found >= set(below))
        self.useless = self._find_useless()

    def block(self, symbol: str, parent: str) -> Block | None:
        """The rules of a symbol under a parent; None if it has none there."""
        named = self._blocks.get((symbol, parent))
        if named is None and parent in self._classes:
            named = self._blocks.get((symbol, self._classes[parent]))
        return named or self._blocks.get((symbol, None))

    def found(self, symbol: str, parent: str) -> Block:
        """The rules of a symbol under a parent that it may have.

        Raises:
            UserError: if it has none there.
        """
        block = self.block(symbol, parent)
        if block is None:
            where = next(b.where for (other, _), b in self._blocks.items() if other == symbol)
            raise UserError(
                f"{where}: {symbol} has no rules under {parent}: name it, as in "
                f"{symbol}^{parent}, or write rules without ^ for all others"
            )
        return block

    def kind(self, parent: str) -> int:
        """A number that parents share under which all symbols have the same rules."""
        if parent not in self._kinds:
            under = tuple(self.block(symbol, parent) for symbol in self._looking)
            self._kinds[parent] = self._kind_of.setdefault(under, len(self._kind_of))
        return self._kinds[parent]

    def _below(self, block: Block, right: Side) -> list[Block]:
        return [self.found(symbol, block.symbol) for symbol in symbols_in(right)]

    def _check_parents(self) -> None:
        """Refuses parents that a symbol can never have, as far as the start symbol leads."""
        met: set[tuple[str, str]] = {(self.start, TOP)}
        reached = {self.found(self.start, TOP): None}
        for block in (queue := list(reached)):
            for right in block.sides:
                met |= {(symbol, block.symbol) for symbol in symbols_in(right)}
                new = [child for child in self._below(block, right) if child not in reached]
                reached |= dict.fromkeys(new)
                queue += new
        met |= {(symbol, self._classes.get(parent, parent)) for symbol, parent in met}
        for (symbol, parent), block in self._blocks.items():
            if parent is not None and (symbol, parent) not in met:
                raise UserError(f"{block.where}: {parent} can never be the parent of {symbol}")

    def _least(self, holds: Callable[[Side, list[Block], set[Block]], bool]) -> set[Block]:
        """The least set of blocks that holds each with a right-hand side of which `holds` says so.

        Args:
            holds: given a right-hand side, the blocks of its symbols, and the set so far.
        """
        found: set[Block] = set()
        while more := {
            block
            for block, sides in self.children.items()
            if block not in found and any(holds(*side, found) for side in sides.items())
        }:
            found |= more
        return found

    def _find_useless(self) -> dict[str, str]:
        top = self.found(self.start, TOP)
        if top not in self.live:
            raise UserError(
                f"{top.where}: this grammar has no finite sentence: the start symbol {self.start} "
                "never ends in words"
            )
        reached = {top: None}
        dead: dict[Block, None] = {}
        for block in (queue := list(reached)):
            for below in self.children[block].values():
                dead |= dict.fromkeys(child for child in below if child not in self.live)
                if self.live.issuperset(below):
                    new = [child for child in below if child not in reached]
                    reached |= dict.fromkeys(new)
                    queue += dict.fromkeys(new)
        never = "never ends in words"
        living, met = ({block.symbol for block in blocks} for blocks in (self.live, reached))
        useless = {symbol: never for symbol in self.symbols if symbol not in living}
        for symbol in self.symbols:
            if symbol not in met:
                useless.setdefault(symbol, f"is never reached from {self.start}")
        return useless | {block.in_words: never for block in dead if block.symbol in living}


def read_rules(path: str | Path) -> GrammarRules:
    """Reads a grammar file (see `gfnem.parsing.grammars.text_format`).

    The start symbol is the first left-hand side, or `%start X`'s. Probabilities that miss 1 by no
    more than `SUM_TOLERANCE` are rescaled.

    Raises:
        UserError: naming file, line and cause, if the file cannot be read or is not UTF-8, a line
            does not parse, a right-hand side is empty, a probability is absent or not in `(0, 1]`,
            those of a symbol under a parent do not sum to 1, a symbol has no production, a parent
            is no symbol, or as `GrammarRules` does.
    """
    path = Path(path)
    blocks: _Blocks = {}
    classes: dict[str, str] = {}
    start = None
    # symbols that need rules, parents, and classes, with the line that names them first
    used: dict[str, str] = {}
    parents: dict[str, str] = {}
    named: dict[str, str] = {}
    for where, line in read_lines(path):
        if isinstance(line, Production):
            used |= {symbol: where for symbol in symbols_in(line.right) if symbol not in used}
            parents |= {parent: where for parent in line.parents if parent not in parents}
            for parent in line.parents or (None,):
                new = Block(line.left, parent, where, {})
                sides = blocks.setdefault((line.left, parent), new).sides
                sides[line.right] = sides.get(line.right, 0.0) + line.p
        elif line.word == "start":
            start = line.names[0]
            used.setdefault(start, where)
        else:
            name, *members = line.names
            named.setdefault(name, where)
            for parent in members:
                parents.setdefault(parent, where)
                if classes.setdefault(parent, name) != name:
                    both = f"{classes[parent]} and {name}"
                    raise UserError(f"{where}: {parent} is in two classes, {both}")
    if not blocks:
        raise UserError(f"{path}: the grammar is empty: no rule in the file")
    symbols = {symbol for symbol, _ in blocks}
    for symbol, where in used.items():
        if symbol not in symbols:
            if symbol == "''":
                raise UserError(f"{where}: '' is not one word, and no symbol of the grammar")
            raise UserError(f"{where}: the symbol {symbol} has no production")
    for name, where in named.items():
        if name in symbols or name == TOP:
            raise UserError(f"{where}: the class {name} has the name of a symbol")
    for parent, where in parents.items():
        if not (parent in symbols or parent in named or parent == TOP):
            raise UserError(f"{where}: the parent {parent} is no symbol of this grammar")
    looking = {symbol for symbol, parent in blocks if parent is not None}
    for block in blocks.values():
        total = sum(block.sides.values())
        if abs(total - 1) > SUM_TOLERANCE:
            name = block.in_words if block.symbol in looking else block.symbol
            raise UserError(f"{block.where}: the probabilities of {name} sum to {total:.6g}, not 1")
        block.sides = {right: p / total for right, p in block.sides.items()}
    return GrammarRules(path, start or next(iter(blocks))[0], blocks, classes)

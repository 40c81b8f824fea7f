"""Grammars of text files in binary form, as tables."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import NamedTuple

import torch
from nltk.grammar import Nonterminal
from torch import Tensor

from gfnem.errors import UserError
from gfnem.parsing.grammars.rules import Block, GrammarRules, read_rules
from gfnem.parsing.grammars.text_format import TOP, Side

# Cells of the dense rule table (float32: 2 GiB); a larger grammar is refused before allocation.
MAX_RULE_CELLS = 2**29


@dataclass
class GrammarTables:
    """A grammar as probabilities of binary and lexical rules, by the context a symbol stands under.

    Symbols are indexed nonterminals first, then preterminals; `N`, `T` and `W` count nonterminals,
    preterminals and words. The nonterminals fall into `G` classes of `N / G` neighbours, under
    which all symbols have the same rules. There is a context for each class and, last, one for the
    top of the tree: `K = G + 1`. A grammar that names no parent has `G = K = 1`.

    Log probabilities in nats, `-inf` for what cannot be. Distributions sum to 1, or to less where
    symbols that never end in words were left out. A symbol under a context that it never has gets
    its distribution under another one.

    Attributes:
        nonterminals: `N` names; they span two words or more.
        preterminals: `T` names; they span one word.
        words: `W` word forms, sorted.
        root: `(N + T,)` float32, each symbol at the top; the preterminal part serves one-word
            sentences.
        rules: `(K, N, N + T, N + T)` float32, `[k, A, B, C]` of `A -> B C` under a context.
        emissions: `(K, T, W)` float32, of a word for a preterminal under a context.
        useless: what no sentence's tree can hold, and why.
    """

    nonterminals: list[str]
    preterminals: list[str]
    words: list[str]
    root: Tensor
    rules: Tensor
    emissions: Tensor
    useless: dict[str, str] = field(default_factory=dict)


def read_grammar(path: str | Path) -> GrammarTables:
    """Reads a grammar file (see `gfnem.parsing.grammars.text_format`) and converts it exactly.

    The distribution over sentences is kept, and every symbol goes on seeing the parent that it has
    in the file (the steps are those of Lange & Leiss 2009, "To CNF or not to CNF?", with the unary
    closure of Stolcke 1995, section 4.5.1, in place of unary rules):

    - a word in a longer right-hand side gets a preterminal of its own, named like `'word'`;
    - a right-hand side of three or more is binarised, `A -> B A|C-D` and `A|C-D -> C D`; what is
      under `A|C-D` expands as under `A`;
    - unary rules `U` are summed out, by `(I - U)^-1`, when a symbol is chosen: what is chosen is
      the last symbol of the chain. It is named `B^M` where it expands as under `M`, its parent in
      the chain, and that is not how it expands under the node it now hangs from;
    - whether a symbol yields a word or more is decided when it is chosen too; one that may do both
      is split in a nonterminal `A` and a preterminal `A|1`.

    Symbols that are purely binary or purely lexical keep their names and probabilities. Symbols
    that never end in words and symbols that the start symbol never leads to are left out. With the
    former, rules of others go: the probabilities of all sentences then sum to less than 1.

    Parents under which all symbols have the same rules are one class. A class that is smaller than
    the others is filled up with copies of a label, which nothing leads to, or a large one is
    divided, whichever makes smaller tables.

    Raises:
        UserError: naming file, line and cause, as `read_rules` does, and if unary rules have
            infinite weight, or there is no rule of two symbols.
    """
    return _Conversion(read_rules(path)).tables()


class _Label(NamedTuple):
    """A symbol of the binary form.

    Attributes:
        kind: "phrase" and "tail" (nonterminals), "word" and "literal" (preterminals).
        symbol: the file's symbol that it is, or whose right-hand side it is the rest of; what hangs
            from it has that symbol for parent.
        block: the rules that it has wherever it stands; None for those under the parent it has.
        items: the rest of a right-hand side, or the word.
    """

    kind: str
    symbol: str
    block: Block | None = None
    items: Side = ()

    @property
    def phrase(self) -> bool:
        """Whether it spans two words or more."""
        return self.kind in ("phrase", "tail")


_Choice = dict[_Label, float]


class _Conversion:
    """The binary form of a file's rules."""

    def __init__(self, rules: GrammarRules):
        self.rules = rules
        self.closure = _unary_closure(rules)
        #: of each block, right-hand sides of several items and those of a word, if they end
        self.long: dict[Block, dict[Side, float]] = {}
        self.words: dict[Block, dict[Side, float]] = {}
        for block, sides in rules.children.items():
            long, words = self.long.setdefault(block, {}), self.words.setdefault(block, {})
            for right, below in sides.items():
                if rules.live.issuperset(below) and (len(right) > 1 or not below):
                    (long if len(right) > 1 else words)[right] = block.sides[right]
        self.chosen: dict[tuple[str, int], _Choice] = {}
        #: what a symbol's rules are under parents of a kind
        self.own: dict[tuple[str, int], Block] = {}

    def choices(self, item: Nonterminal | str, parent: str) -> _Choice:
        """How often an item of a rule of `parent` comes out as each label."""
        if not isinstance(item, Nonterminal):
            return {_Label("literal", "", None, (item,)): 1.0}
        symbol, kind = str(item), self.rules.kind(parent)
        if (symbol, kind) not in self.chosen:
            found = self.chosen[symbol, kind] = {}
            for last, chains in self.closure[self.rules.found(symbol, parent)].items():
                # where the file never has the symbol under the parent, its rules there are free
                own = self.rules.block(last.symbol, parent) or last
                own = self.own.setdefault((last.symbol, kind), own)
                for name, sides in (("phrase", self.long[last]), ("word", self.words[last])):
                    if sides:
                        label = _Label(name, last.symbol, None if own is last else last)
                        mass = chains * sum(sides.values())
                        found[label] = found.get(label, 0.0) + mass
        return self.chosen[symbol, kind]

    def sides(self, label: _Label, kind: int) -> dict[Side, float]:
        """What a label expands to under parents of a kind, and how probably."""
        if label.kind in ("tail", "literal"):
            return {label.items: 1.0}
        block = label.block or self.own[label.symbol, kind]
        sides = (self.long if label.kind == "phrase" else self.words)[block]
        total = sum(sides.values())
        return {right: p / total for right, p in sides.items()}

    def pair(self, label: _Label, items: Side) -> tuple[_Choice, _Choice]:
        """The children that a right-hand side of a label has."""
        left = self.choices(items[0], label.symbol)
        if len(items) == 2:
            return left, self.choices(items[1], label.symbol)
        return left, {_Label("tail", label.symbol, None, items[1:]): 1.0}

    def reached(self) -> dict[_Label, dict[int, dict[Side, float]]]:
        """What each label expands to, under the kinds of parents that it has."""
        found: dict[_Label, dict[int, dict[Side, float]]] = {}
        top = self.rules.kind(TOP)
        for label, kind in (queue := [(label, top) for label in self.root()]):
            rows = found.setdefault(label, {})
            if kind in rows:
                continue
            rows[kind] = self.sides(label, kind)
            if label.phrase:
                below = self.rules.kind(label.symbol)
                for items in rows[kind]:
                    for choice in self.pair(label, items):
                        queue += [(child, below) for child in choice]
        return found

    def root(self) -> _Choice:
        """The labels at the top."""
        return self.choices(Nonterminal(self.rules.start), TOP)

    def arranged(self, labels: list[_Label], leaves: int) -> tuple[list[_Label], list[int]]:
        """Nonterminals in classes of one size, and the kind of parents that each context is."""
        top = self.rules.kind(TOP)
        classes: dict[int, list[_Label]] = {}
        for label in labels:
            classes.setdefault(self.rules.kind(label.symbol), []).append(label)
        if classes.keys() == {top}:
            return labels, [top]

        def cells(size: int) -> int:
            groups = sum(math.ceil(len(members) / size) for members in classes.values())
            return (groups + 1) * groups * size * (groups * size + leaves) ** 2

        size = min(range(max(map(len, classes.values())), 0, -1), key=cells)
        found: list[_Label] = []
        contexts: list[int] = []
        for kind, members in classes.items():
            for at in range(0, len(members), size):
                part = members[at : at + size]
                found += part + part[-1:] * (size - len(part))
                contexts.append(kind)
        return found, [*contexts, top]

    def tables(self) -> GrammarTables:
        """The dense tables."""
        path, reached = self.rules.path, self.reached()
        order = {symbol: at for at, symbol in enumerate(self.rules.symbols)}
        # the file's own symbols in its order, then what was made for long rules
        labels = sorted(
            reached,
            key=lambda label: (label.kind in ("tail", "literal"), order.get(label.symbol, 0)),
        )
        inner = [label for label in labels if label.phrase]
        leaves = [label for label in labels if not label.phrase]
        if not inner:
            raise UserError(f"{path}: no rule puts two symbols together, so no sentence has a tree")
        inner, contexts = self.arranged(inner, len(leaves))
        n, t = len(inner), len(leaves)
        if (cells := len(contexts) * n * (n + t) ** 2) > MAX_RULE_CELLS:
            raise UserError(
                f"{path}: too large: {n} nonterminals and {t} preterminals after binarisation need "
                f"{cells} rule weights; the limit is {MAX_RULE_CELLS}"
            )
        # of a label and its copies, rules lead to the first
        index = {label: at for at, label in reversed([*enumerate((*inner, *leaves))])}
        words = sorted(
            {right[0] for label in leaves for row in reached[label].values() for right in row}
        )
        column = {word: at for at, word in enumerate(words)}

        def expansion(label: _Label, sides: dict[Side, float]) -> dict[tuple[int, ...], float]:
            cells: dict[tuple[int, ...], float] = {}
            for items, p in sides.items():
                left, right = self.pair(label, items)
                for (first, a), (second, b) in product(left.items(), right.items()):
                    cell = index[first], index[second]
                    cells[cell] = cells.get(cell, 0.0) + p * a * b
            return cells

        def emission(_: _Label, sides: dict[Side, float]) -> dict[tuple[int, ...], float]:
            return {(column[right[0]],): p for right, p in sides.items()}

        def filled(labels: list[_Label], make: Callable[..., dict], *shape: int) -> Tensor:
            table = torch.full((len(contexts), len(labels), *shape), -torch.inf)
            for at, label in enumerate(labels):
                rows = {kind: make(label, sides) for kind, sides in reached[label].items()}
                for context, kind in enumerate(contexts):
                    _fill(table[context, at], rows.get(kind) or next(iter(rows.values())))
            return table

        root = torch.full((n + t,), -torch.inf)
        _fill(root, {(index[label],): p for label, p in self.root().items()})
        return GrammarTables(
            nonterminals=_names(inner, []),
            preterminals=_names(leaves, inner),
            words=words,
            root=root,
            rules=filled(inner, expansion, n + t, n + t),
            emissions=filled(leaves, emission, len(words)),
            useless=self.rules.useless,
        )


def _fill(table: Tensor, cells: dict[tuple[int, ...], float]) -> None:
    """Writes logarithms of probabilities into a table."""
    logs = torch.tensor(list(cells.values()), dtype=torch.float64).log().float()
    table[tuple(torch.tensor(list(cells)).T)] = logs


def _names(labels: list[_Label], phrases: list[_Label]) -> list[str]:
    """Names of labels; where one is named like one of `phrases`, `|1` sets it apart."""
    names: dict[str, None] = {}
    for label in labels:
        name = label.symbol if label.block is None else f"{label.symbol}^{label.block.parent or ''}"
        if label.kind == "tail":
            items = (str(i) if isinstance(i, Nonterminal) else f"'{i}'" for i in label.items)
            name = f"{label.symbol}|{'-'.join(items)}"
        elif label.kind == "literal":
            name = f"'{label.items[0]}'"
        elif label._replace(kind="phrase") in phrases and label.kind == "word":
            name += "|1"
        while name in names:  # `-` may stand inside a symbol, so two tails can wish for one name
            name += "'"
        names[name] = None
    return list(names)


def _unary_closure(rules: GrammarRules) -> dict[Block, dict[Block, float]]:
    """`{A: {B: (I - U)^-1[A, B]}}`, the total probability of all unary chains from `A` to `B`.

    Raises:
        UserError: if unary rules have infinite weight.
    """
    unary: dict[Block, dict[Block, float]] = {}
    for block, sides in rules.children.items():
        for right, below in sides.items():
            if len(right) == 1 and below:
                unary.setdefault(block, {})[below[0]] = block.sides[right]
    linked = list(dict.fromkeys(block for a, steps in unary.items() for block in (a, *steps)))
    where = {block: at for at, block in enumerate(linked)}
    step = torch.zeros(len(linked), len(linked), dtype=torch.float64)
    for block, steps in unary.items():
        for below, p in steps.items():
            step[where[block], where[below]] = p
    if linked and torch.linalg.eigvals(step).abs().max() > 1 - 1e-12:
        looping = max(unary, key=lambda block: sum(unary[block].values()))
        raise UserError(
            f"{looping.where}: the unary rules around {looping.name} have infinite total weight"
        )
    solved = torch.linalg.inv(torch.eye(len(linked), dtype=torch.float64) - step).clamp(min=0)
    # Reachability decides which chains exist: the inverse may hold rounding dust elsewhere.
    closure: dict[Block, dict[Block, float]] = {block: {block: 1.0} for block in rules.children}
    for block in linked:
        reached = {block: None}
        for one in (queue := [block]):
            new = [below for below in unary.get(one, ()) if below not in reached]
            reached |= dict.fromkeys(new)
            queue += new
        closure[block] = {last: float(solved[where[block], where[last]]) for last in reached}
    return closure

"""Parent-conditioned grammars of text files in binary form, as tables."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import NamedTuple

import torch
from nltk.grammar import Nonterminal
from torch import Tensor

from gfnem.errors import UserError
from gfnem.parsing.grammars.parent_text_format import TOP, ParentRules, read_parent_rules
from gfnem.parsing.grammars.text_format import MAX_RULE_CELLS, Side, unary_closure


@dataclass
class ParentGrammarTables:
    """A parent-conditioned grammar as probabilities of binary and lexical rules.

    Symbols are indexed nonterminals first, then preterminals; `N`, `T` and `W` count nonterminals,
    preterminals and words. A parent is a nonterminal or, last (index `N`), the top of the tree.
    Log probabilities in nats, `-inf` for what cannot be; every distribution sums to 1. A symbol
    under a parent that it never has gets its distribution under another one.

    Attributes:
        nonterminals: `N` names; they span two words or more.
        preterminals: `T` names; they span one word.
        words: `W` word forms, sorted.
        root: `(N + T,)` float32, each symbol at the top.
        rules: `(N + 1, N, N + T, N + T)` float32, `[P, A, B, C]` of `A -> B C` under `P`.
        emissions: `(N + 1, T, W)` float32, of a word for a preterminal under `P`.
        useless: what no sentence's tree can hold, and why. A symbol that never ends in words keeps
            its index; the sentences' probabilities then sum to less than 1.
    """

    nonterminals: list[str]
    preterminals: list[str]
    words: list[str]
    root: Tensor
    rules: Tensor
    emissions: Tensor
    useless: dict[str, str] = field(default_factory=dict)


def read_parent_grammar(path: str | Path) -> ParentGrammarTables:
    """Reads a parent-conditioned grammar and converts it to binary form, exactly.

    The notation is that of `parent_grammar_text`. The distribution over sentences is kept, and
    every symbol goes on seeing the parent it has in the file:

    - a word in a longer right-hand side gets a preterminal of its own, named like `'word'`;
    - a right-hand side of three or more is binarised, `A -> B A|C-D` and `A|C-D -> C D`; what is
      under `A|C-D` expands as under `A`;
    - unary rules are summed out, as in `read_grammar`, when a symbol is chosen: what is chosen is
      the last symbol of the chain. It is named `B^M` where it expands as under `M`, its parent in
      the chain, and that is not how it expands under the node it now hangs from;
    - whether a symbol yields a word or more is decided when it is chosen too; one that may do both
      is split in a nonterminal `A` and a preterminal `A|1`.

    Raises:
        UserError: naming file, line and cause, as `read_parent_rules` does, and if unary rules form
            a loop that is never left, or there is no rule of two symbols.
    """
    return _Conversion(read_parent_rules(path)).tables()


class _Label(NamedTuple):
    """A symbol of the binary form.

    Attributes:
        kind: "phrase" and "tail" (nonterminals), "word" and "literal" (preterminals).
        symbol: the file's symbol that it is, or whose right-hand side it is the rest of; what hangs
            from it has that symbol for parent.
        parent: the parent it expands under wherever it stands; None for the one it has.
        items: the rest of a right-hand side, or the word.
    """

    kind: str
    symbol: str
    parent: str | None = None
    items: Side = ()


_Choice = dict[_Label, float]


class _Conversion:
    """The binary form of a file's rules."""

    def __init__(self, rules: ParentRules):
        self.rules = rules
        unary: dict[str, dict[str, float]] = {}
        ends: set[str] = set()
        lines = {}
        for symbol, parent in rules.pairs:
            state = f"{symbol}^{parent}"
            lines[state] = rules.line(symbol, parent)
            for right, p in rules.sides(symbol, parent).items():
                if len(right) == 1 and isinstance(right[0], Nonterminal):
                    unary.setdefault(state, {})[f"{right[0]}^{symbol}"] = p
                else:
                    ends.add(state)
        self.closure = unary_closure(rules.path, list(lines), unary, ends, (), lines)
        self.chosen: dict[tuple[str, str], _Choice] = {}

    def choices(self, item: Nonterminal | str, parent: str) -> _Choice:
        """How often an item of a rule of `parent` comes out as each label; sums to 1."""
        if not isinstance(item, Nonterminal):
            return {_Label("literal", "", None, (item,)): 1.0}
        symbol = str(item)
        if (symbol, parent) in self.chosen:
            return self.chosen[symbol, parent]
        found: _Choice = {}
        for state, chains in self.closure[f"{symbol}^{parent}"].items():
            last, above = state.split("^")
            sides = self.rules.sides(last, above)
            above = None if self.rules.sides(last, parent) == sides else above
            for kind, wanted in (("phrase", _is_long), ("word", _is_word)):
                mass = chains * sum(p for right, p in sides.items() if wanted(right))
                if mass > 0:
                    label = _Label(kind, last, above)
                    found[label] = found.get(label, 0.0) + mass
        self.chosen[symbol, parent] = found
        return found

    def children(self, label: _Label, parent: str) -> list[tuple[_Choice, _Choice, float]]:
        """The expansions of a nonterminal under a parent: left child, right child, probability."""
        if label.kind == "tail":
            return [(*self._pair(label.symbol, label.items), 1.0)]
        sides = self._share(label, parent, _is_long)
        return [(*self._pair(label.symbol, right), p) for right, p in sides.items()]

    def words(self, label: _Label, parent: str) -> dict[str, float]:
        """What a preterminal emits under a parent."""
        if label.kind == "literal":
            return {label.items[0]: 1.0}
        sides = self._share(label, parent, _is_word)
        return {right[0]: p for right, p in sides.items()}

    def _share(self, label: _Label, parent: str, wanted) -> dict[Side, float]:
        sides = self.rules.sides(label.symbol, label.parent or parent)
        total = sum(p for right, p in sides.items() if wanted(right))
        return {right: p / total for right, p in sides.items() if wanted(right)}

    def _pair(self, symbol: str, items: Side) -> tuple[_Choice, _Choice]:
        if len(items) == 2:
            return self.choices(items[0], symbol), self.choices(items[1], symbol)
        return self.choices(items[0], symbol), {_Label("tail", symbol, None, items[1:]): 1.0}

    def reached(self) -> dict[tuple[_Label, str], None]:
        """Every label under every parent that it may have."""
        found = {(label, TOP): None for label in self.choices(Nonterminal(self.rules.start), TOP)}
        for label, parent in (queue := list(found)):
            if label.kind not in ("phrase", "tail"):
                continue
            for left, right, _ in self.children(label, parent):
                for child in (*left, *right):
                    pair = (child, label.symbol)
                    if pair not in found:
                        found[pair] = None
                        queue.append(pair)
        return found

    def tables(self) -> ParentGrammarTables:
        """The dense tables."""
        path, reached = self.rules.path, self.reached()
        order = {symbol: at for at, symbol in enumerate(self.rules.symbols)}
        # the file's own symbols in its order, then what was made for long rules
        labels = sorted(
            dict.fromkeys(label for label, _ in reached),
            key=lambda label: (label.kind in ("tail", "literal"), order.get(label.symbol, 0)),
        )
        inner = [label for label in labels if label.kind in ("phrase", "tail")]
        leaves = [label for label in labels if label.kind in ("word", "literal")]
        n, t = len(inner), len(leaves)
        if n == 0:
            raise UserError(f"{path}: no rule puts two symbols together, so no sentence has a tree")
        if (n + 1) * n * (n + t) ** 2 > MAX_RULE_CELLS:
            raise UserError(
                f"{path}: too large: {n} nonterminals and {t} preterminals after binarisation need "
                f"{(n + 1) * n * (n + t) ** 2} rule weights; the limit is {MAX_RULE_CELLS}"
            )
        index = {label: at for at, label in enumerate((*inner, *leaves))}
        rows: dict[_Label, dict[str, dict]] = {label: {} for label in index}
        for label, parent in reached:
            make = self.children if index[label] < n else self.words
            rows[label][parent] = make(label, parent)
        words = sorted({word for label in leaves for row in rows[label].values() for word in row})
        column = {word: at for at, word in enumerate(words)}

        def vector(choice: _Choice) -> Tensor:
            row = torch.zeros(n + t, dtype=torch.float64)
            for label, p in choice.items():
                row[index[label]] += p
            return row

        def expansion(children: list) -> Tensor:
            table = torch.zeros(n + t, n + t, dtype=torch.float64)
            for left, right, p in children:
                for (first, a), (second, b) in product(left.items(), right.items()):
                    table[index[first], index[second]] += p * a * b
            return table.log().float()

        def emission(sides: dict[str, float]) -> Tensor:
            row = torch.zeros(len(words), dtype=torch.float64)
            for word, p in sides.items():
                row[column[word]] = p
            return row.log().float()

        def stacked(labels: list[_Label], make) -> Tensor:
            """`(N + 1, labels, ...)`: each label under each parent, or else under any it has."""
            tables = [{parent: make(row) for parent, row in rows[x].items()} for x in labels]
            return torch.stack(
                [
                    torch.stack([table.get(parent, next(iter(table.values()))) for table in tables])
                    for parent in (*(label.symbol for label in inner), TOP)
                ]
            )

        return ParentGrammarTables(
            nonterminals=_names(inner, []),
            preterminals=_names(leaves, inner),
            words=words,
            root=vector(self.choices(Nonterminal(self.rules.start), TOP)).log().float(),
            rules=stacked(inner, expansion),
            emissions=stacked(leaves, emission),
            useless=self.rules.useless,
        )


def _is_long(right: Side) -> bool:
    return len(right) > 1


def _is_word(right: Side) -> bool:
    return len(right) == 1 and not isinstance(right[0], Nonterminal)


def _names(labels: list[_Label], phrases: list[_Label]) -> list[str]:
    """Names of labels; where one is named like one of `phrases`, `|1` sets it apart."""
    names: list[str] = []
    for label in labels:
        name = label.symbol if label.parent is None else f"{label.symbol}^{label.parent}"
        if label.kind == "tail":
            items = (str(i) if isinstance(i, Nonterminal) else f"'{i}'" for i in label.items)
            name = f"{label.symbol}|{'-'.join(items)}"
        elif label.kind == "literal":
            name = f"'{label.items[0]}'"
        elif label._replace(kind="phrase") in phrases and label.kind == "word":
            name += "|1"
        while name in names:  # `-` may stand inside a symbol, so two tails can wish for one name
            name += "'"
        names.append(name)
    return names

"""Grammars as text files: NLTK's PCFG notation, turned into the tables the chart wants.

What `nltk.PCFG.fromstring` reads is read, and what NLTK prints of grammars that it has taken from a
treebank: probabilities such as `[1e-05]`, symbols such as `PRP$`, `,` and `NP|<JJ-NN>`, words with
both kinds of quotes, and the line above the rules that names the start symbol.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple, TypeVar

import torch
from nltk.grammar import Nonterminal
from torch import Tensor

from gfnem.errors import UserError

# How far from 1 a left-hand side's probabilities may add up: room for rounded figures.
SUM_TOLERANCE = 1e-3
# Cells of the dense rule table (float32: 2 GiB); a larger grammar is refused before allocation.
MAX_RULE_CELLS = 2**29
# Grammar files: context-free, and with rules that depend on the parent.
ENDINGS = (".pcfg", ".ncfg")


@dataclass
class GrammarTables:
    """A PCFG as weights over binary and lexical rules.

    Symbols are indexed nonterminals first, then preterminals; `N`, `T` and `W` count nonterminals,
    preterminals and words. Absent rules weigh `-inf`. The weight of a sentence (the sum over its
    trees) is its probability under the file's grammar, in nats; the weights of one left-hand side
    need not sum to 1 where a symbol of the file was split by width (see `read_grammar`).

    Attributes:
        nonterminals: `N` names; they span two words or more.
        preterminals: `T` names; they span one word.
        words: `W` word forms, sorted.
        root: `(N + T,)` float32, log weight of each symbol at the top; the preterminal part serves
            one-word sentences.
        rules: `(N, N + T, N + T)` float32, log weight of `A -> B C`.
        emissions: `(T, W)` float32, log weight of `A -> word`.
        useless: the file's symbols that are in no sentence's tree, and why; they have no index.
    """

    nonterminals: list[str]
    preterminals: list[str]
    words: list[str]
    root: Tensor
    rules: Tensor
    emissions: Tensor
    useless: dict[str, str] = field(default_factory=dict)


def read_grammar(path: str | Path) -> GrammarTables:
    """Reads a PCFG in NLTK's notation (`nltk.PCFG.fromstring`) and converts it exactly.

    The start symbol is the first left-hand side, or `%start X`'s. Probabilities that miss 1 by no
    more than `SUM_TOLERANCE` are rescaled. The distribution over sentences is kept (the steps are
    Lange & Leiss 2009, "To CNF or not to CNF?", with the unary closure of Stolcke 1995, section
    4.5.1, in place of unary rules):

    - a word in a longer right-hand side gets a preterminal of its own, named like `'word'`;
    - a right-hand side of three or more is binarised, `A -> B A|C-D` and `A|C-D -> C D`;
    - unary rules `U` are summed out: the other rules are multiplied by `(I - U)^-1`;
    - a symbol that yields one word as well as more is split in a nonterminal `A` (two words or
      more) and a preterminal `A|1`.

    Symbols that are purely binary or purely lexical keep their names and probabilities. Symbols
    that never end in words and symbols that the start symbol never leads to are left out. With the
    former, rules of others go: the weights of all sentences then sum to less than 1.

    Raises:
        UserError: naming file, line and cause, if the file cannot be read or is not UTF-8, a line
            does not parse, a right-hand side is empty, a probability is absent or not in `(0, 1]`,
            a left-hand side's do not sum to 1, a symbol has no production, unary rules form a loop
            that is never left, the start symbol never ends in words, or there is no rule of two
            symbols.
    """
    path = Path(path)
    rules, lines, start = _parse(path)
    symbols, lexical, binary, unary = _binarise(rules)
    unary_closure(path, symbols, unary, lexical, binary, lines)  # a loop is named wherever it is
    useless = find_useless(rules, start, symbols_in)
    if start in useless:
        raise endless(path, lines[start], start)
    kept = {
        left: {
            right: p for right, p in sides.items() if useless.keys().isdisjoint(symbols_in(right))
        }
        for left, sides in rules.items()
        if left not in useless
    }
    symbols, lexical, binary, unary = _binarise(kept)
    closure = unary_closure(path, symbols, unary, lexical, binary, lines)
    tables = _tabulate(path, start, symbols, lexical, binary, closure)
    tables.useless = useless
    return tables


def find_grammar(name: str) -> Path:
    """The path of a grammar: a file, or one shipped with the package, such as "english".

    A shipped grammar may be named with its ending. They lie in the installed package, or in a
    source checkout's top-level `grammars/`. Any other name with an ending is taken for a path.

    Raises:
        UserError: listing the shipped grammars, if `name` has no ending and is none of them.
    """
    path = Path(name)
    if path.is_file():
        return path
    package = Path(__file__).resolve().parents[2]
    shipped: dict[str, Path] = {}
    for folder in (package / "grammars", package.parent / "grammars"):
        for ending in ENDINGS:
            for file in sorted(folder.glob(f"*{ending}")):
                shipped.setdefault(file.stem, file)
                shipped.setdefault(file.name, file)
    if name in shipped:
        return shipped[name]
    if path.suffix:
        return path
    known = ", ".join(sorted({file.stem for file in shipped.values()})) or "none"
    raise UserError(f"no grammar is named {name!r}; the grammars shipped are: {known}")


# A right-hand side: symbols as `Nonterminal`s, words as strings.
Side = tuple[Nonterminal | str, ...]
_Rules = dict[str, dict[Side, float]]


class Production(NamedTuple):
    """One rule of a file.

    Attributes:
        left: the symbol it expands.
        right: what it expands to.
        p: its probability as written.
    """

    left: str
    right: Side
    p: float


def logical_lines(path: Path) -> Iterable[tuple[int, str]]:
    """The file's lines with continuations joined and comments left out, with their numbers."""
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise UserError(f"{path}: cannot read the grammar: {error.strerror}") from error
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise UserError(f"{path}:{line}: not UTF-8 text: {error.reason}") from error
    pending = ""
    first = number = 1
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


# The tags `#` and `%` have rules too, as NLTK prints them; such lines are no comment or directive.
_RULE_OF_MARK = re.compile(r"""[#%]\s*->\s*['"].*\]$""")
# what NLTK prints above a grammar's rules
_HEADER = re.compile(r"Grammar with \d+ productions? \(start state = (\S+)\)")
# `|` is part of a symbol where NLTK's binarisation has put it: NP|<JJ-NN>.
_SYMBOL = r"""(?:''(?=[\s|[]|$)|[^\s'"\[\]|](?:[^\s'"\[\]|]|\|<[^\s>]*>)*)"""
_LEFT = re.compile(rf"({_SYMBOL}?)\s*->\s*")
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


def read_productions(path: Path, line: str, number: int) -> list[Production]:
    """The rules on one line of a file in NLTK's notation.

    Raises:
        UserError: if the line does not parse, or one of its rules is none for a grammar of text.
    """
    where = f"{path}:{number}"
    head = _LEFT.match(line)
    if head is None or not head[1]:
        why = "Expected an arrow" if head is None else "Expected a symbol before the arrow"
        raise UserError(f"{where}: not a grammar rule: {why}: {line[:80]}")
    left, place = head[1], head.end()
    found, right, p = [], [], None

    def finish() -> None:
        _check_production(where, left, tuple(right), p)
        found.append(Production(left, tuple(right), p))

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


def normalised(where: str, left: str, sides: dict[Side, float]) -> dict[Side, float]:
    """One left-hand side's probabilities, rescaled to sum to 1.

    Raises:
        UserError: if they miss it by more than `SUM_TOLERANCE`.
    """
    total = sum(sides.values())
    if abs(total - 1) > SUM_TOLERANCE:
        raise UserError(f"{where}: the probabilities of {left} sum to {total:.6g}, not 1")
    return {right: p / total for right, p in sides.items()}


def _parse(path: Path) -> tuple[_Rules, dict[str, int], str]:
    """The file's rules, the first line of each left-hand side, and the start symbol."""
    rules: _Rules = {}
    lines: dict[str, int] = {}
    used: dict[str, int] = {}
    start = None
    for number, line in logical_lines(path):
        if (named := start_directive(f"{path}:{number}", line)) is not None:
            start = named
            used.setdefault(start, number)
            continue
        for left, right, p in read_productions(path, line, number):
            lines.setdefault(left, number)
            for item in right:
                if isinstance(item, Nonterminal):
                    used.setdefault(str(item), number)
            sides = rules.setdefault(left, {})
            sides[right] = sides.get(right, 0.0) + p
    if not rules:
        raise UserError(f"{path}: the grammar is empty: no rule in the file")
    check_defined(path, rules, used)
    for left, sides in rules.items():
        rules[left] = normalised(f"{path}:{lines[left]}", left, sides)
    return rules, lines, start or next(iter(rules))


def check_defined(path: Path, rules: Iterable[str], used: dict[str, int]) -> None:
    """Raises a `UserError` for a symbol that is used (first on line `used[symbol]`) without rules.

    Args:
        path: the file.
        rules: the symbols that have rules.
        used: the symbols that need some.
    """
    for symbol, number in used.items():
        if symbol not in rules:
            if symbol == "''":
                raise UserError(
                    f"{path}:{number}: '' is not one word, and no symbol of the grammar"
                )
            raise UserError(f"{path}:{number}: the symbol {symbol} has no production")


def start_directive(where: str, line: str) -> str | None:
    """The symbol that a line names as the start symbol; None if the line is none of that kind."""
    if header := _HEADER.fullmatch(line):
        return header[1]
    if not line.startswith("%") or _RULE_OF_MARK.match(line):
        return None
    parts = line[1:].split()
    if len(parts) != 2 or parts[0] != "start" or not re.fullmatch(_SYMBOL, parts[1]):
        raise UserError(f"{where}: not a directive; the only one is '%start SYMBOL': {line[:80]}")
    return parts[1]


def _check_production(where: str, left: str, right: Side, p: float | None) -> None:
    if not right:
        raise UserError(f"{where}: {left} has an empty right-hand side")
    for item in right:
        if isinstance(item, str) and item.split() != [item]:
            raise UserError(f"{where}: {left} yields {item!r}, which is not one word")
    if p is None:
        items = " ".join(str(i) if isinstance(i, Nonterminal) else repr(i) for i in right)
        raise UserError(
            f"{where}: {left} -> {items[:60]} has no probability: write one behind it, as in [0.5]"
        )
    if p > 1:
        raise UserError(f"{where}: a production of {left} has probability {p:g}, above 1")
    if not p > 0:
        raise UserError(f"{where}: a production of {left} has probability {p:g}, not above 0")


_Key = TypeVar("_Key")


def symbols_in(right: Side) -> list[str]:
    """The symbols of a right-hand side."""
    return [str(item) for item in right if isinstance(item, Nonterminal)]


def find_useless(
    rules: dict[_Key, Iterable[Side]], start: _Key, children: Callable[..., list[_Key]]
) -> dict[_Key, str]:
    """Symbols that are in no sentence's tree, and why (Hopcroft and Ullman 1979, section 4.4).

    Args:
        rules: the right-hand sides of each symbol.
        start: the symbol at the top.
        children: given a right-hand side, the symbols that it holds.
    """
    ending: set[_Key] = set()
    grew = True
    while grew:
        more = {
            left
            for left, sides in rules.items()
            if left not in ending and any(ending.issuperset(children(side)) for side in sides)
        }
        ending |= more
        grew = bool(more)
    useless = {left: "never ends in words" for left in rules if left not in ending}
    reached = {start}
    frontier = [start]
    while frontier:
        for side in rules[frontier.pop()]:
            found = set(children(side))
            if found <= ending:
                frontier += found - reached
                reached |= found
    for left in rules:
        if left not in reached:
            useless.setdefault(left, f"is never reached from {start}")
    return useless


def endless(path: Path, line: int, start: str) -> UserError:
    """The error that a grammar has no finite sentence."""
    return UserError(
        f"{path}:{line}: this grammar has no finite sentence: the start symbol {start} never ends "
        "in words"
    )


def _binarise(rules: _Rules):
    """Splits the rules into lexical, binary and unary ones, each `{left: {right: p}}`.

    Returns all symbols in order (the file's own first), and the three tables.
    """
    fresh: dict[tuple, str] = {}
    taken = set(rules)
    lexical: dict[str, dict[str, float]] = {}
    binary: dict[str, dict[tuple[str, str], float]] = {}
    unary: dict[str, dict[str, float]] = {}

    def name(key: tuple, wish: str) -> tuple[str, bool]:
        """The fresh symbol for `key`, and whether it is new."""
        if key in fresh:
            return fresh[key], False
        while wish in taken:  # `-` may stand inside a symbol, so two keys can wish for one name
            wish += "'"
        taken.add(wish)
        fresh[key] = wish
        return wish, True

    def symbol(item: Nonterminal | str) -> str:
        if isinstance(item, Nonterminal):
            return str(item)
        preterminal, new = name(("word", item), f"'{item}'")
        if new:
            lexical[preterminal] = {item: 1.0}
        return preterminal

    def tail(left: str, items: tuple[str, ...]) -> str:
        # from the right, and without recursion: there may be thousands of items
        rest = items[-1]
        for at in range(len(items) - 2, -1, -1):
            made, new = name(("tail", left, items[at:]), f"{left}|{'-'.join(items[at:])}")
            if new:
                binary[made] = {(items[at], rest): 1.0}
            rest = made
        return rest

    def add(table: dict, left: str, right, p: float) -> None:
        sides = table.setdefault(left, {})
        sides[right] = sides.get(right, 0.0) + p

    for left, sides in rules.items():
        for right, p in sides.items():
            if len(right) > 1:
                items = tuple(symbol(item) for item in right)
                add(binary, left, (items[0], tail(left, items[1:])), p)
            elif isinstance(right[0], str):
                add(lexical, left, right[0], p)
            else:
                add(unary, left, str(right[0]), p)
    return [*rules, *fresh.values()], lexical, binary, unary


def unary_closure(path, symbols, unary, lexical, binary, lines) -> dict[str, dict[str, float]]:
    """`{A: {B: (I - U)^-1[A, B]}}`, the total probability of all unary chains from `A` to `B`.

    Args:
        path: the file, for errors.
        symbols: all symbols.
        unary: `{A: {B: p}}`, the unary rules.
        lexical, binary: containers of the symbols with other rules.
        lines: the line of each symbol in the file, for errors.

    Raises:
        UserError: if unary rules form a loop that is never left.
    """
    # A symbol whose chains never meet a word or a binary rule loops for ever: the series diverges.
    ending = set(lexical) | set(binary)
    grew = True
    while grew:
        more = {a for a, sides in unary.items() if a not in ending and ending & set(sides)}
        ending |= more
        grew = bool(more)
    linked = [a for a in symbols if a in unary or any(a in sides for sides in unary.values())]
    where = {a: i for i, a in enumerate(linked)}
    for a in symbols:
        if a not in ending:
            raise UserError(
                f"{path}:{lines[a]}: the unary rules of {a} form a loop that never reaches a word"
            )
    step = torch.zeros(len(linked), len(linked), dtype=torch.float64)
    for a, sides in unary.items():
        for b, p in sides.items():
            step[where[a], where[b]] = p
    if linked and torch.linalg.eigvals(step).abs().max() > 1 - 1e-12:
        looping = max(unary, key=lambda a: sum(unary[a].values()))
        raise UserError(
            f"{path}:{lines[looping]}: the unary rules around {looping} have infinite total weight"
        )
    solved = torch.linalg.inv(torch.eye(len(linked), dtype=torch.float64) - step).clamp(min=0)
    # Reachability decides which chains exist: the inverse may hold rounding dust elsewhere.
    closure: dict[str, dict[str, float]] = {a: {a: 1.0} for a in symbols}
    for a in linked:
        reached, frontier = {a}, [a]
        while frontier:
            new = set(unary.get(frontier.pop(), ())) - reached
            reached |= new
            frontier += new
        closure[a] = {b: float(solved[where[a], where[b]]) for b in linked if b in reached}
    return closure


def _tabulate(path, start, symbols, lexical, binary, closure) -> GrammarTables:
    """Applies the unary closure, splits symbols by width, and fills the dense tables."""
    nonterminals = [a for a in symbols if any(b in binary for b in closure[a])]
    preterminals = [a for a in symbols if any(b in lexical for b in closure[a])]
    n, t = len(nonterminals), len(preterminals)
    if n == 0:
        raise UserError(f"{path}: no rule puts two symbols together, so no sentence has a tree")
    if n * (n + t) ** 2 > MAX_RULE_CELLS:
        raise UserError(
            f"{path}: too large: {n} nonterminals and {t} preterminals after binarisation need "
            f"{n * (n + t) ** 2} rule weights; the limit is {MAX_RULE_CELLS}"
        )
    row = {a: i for i, a in enumerate(nonterminals)}
    leaf = {a: i for i, a in enumerate(preterminals)}
    words = sorted({word for sides in lexical.values() for word in sides})
    column = {word: i for i, word in enumerate(words)}
    # Where a symbol stands in the joint order: once, or twice if it was split by width.
    places: dict[str, list[int]] = {a: [] for a in symbols}
    for a in nonterminals:
        places[a].append(row[a])
    for a in preterminals:
        places[a].append(n + leaf[a])

    root = {(place,): 1.0 for place in places[start]}
    # few of the cells are filled: a dense table in double precision would take gigabytes
    rules: dict[tuple[int, ...], float] = {}
    emissions: dict[tuple[int, ...], float] = {}

    def add(table: dict[tuple[int, ...], float], cell: tuple[int, ...], p: float) -> None:
        table[cell] = table.get(cell, 0.0) + p

    for a in symbols:
        for b, chains in closure[a].items():
            for (first, second), p in binary.get(b, {}).items():
                for i in places[first]:
                    for j in places[second]:
                        add(rules, (row[a], i, j), chains * p)
            for word, p in lexical.get(b, {}).items():
                add(emissions, (leaf[a], column[word]), chains * p)
    return GrammarTables(
        nonterminals=nonterminals,
        preterminals=[f"{a}|1" if a in row else a for a in preterminals],
        words=words,
        root=_log_table(root, (n + t,)),
        rules=_log_table(rules, (n, n + t, n + t)),
        emissions=_log_table(emissions, (t, len(words))),
    )


def _log_table(cells: dict[tuple[int, ...], float], shape: tuple[int, ...]) -> Tensor:
    """The logarithms of some cells, float32; minus infinity in all others."""
    table = torch.full(shape, -torch.inf)
    if cells:
        values = torch.tensor(list(cells.values()), dtype=torch.float64).log().float()
        table[tuple(torch.tensor(list(cells)).T)] = values
    return table

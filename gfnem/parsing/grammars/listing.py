"""What a grammar has learned, for people: as a file of rules, and as a few lines for each symbol.

Both weigh rules by how often they are used. A symbol's uses are those expected in given sentences,
over all of their trees by the posterior; a rule has the share of them that its probability says.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from gfnem.errors import UserError
from gfnem.files import write_atomically
from gfnem.parsing.grammars.grammar import Grammar
from gfnem.parsing.grammars.language import ContextTables
from gfnem.parsing.grammars.parent_text_format import TOP
from gfnem.parsing.inference.potentials import groups_of
from gfnem.parsing.text.sentences import Sentences
from gfnem.target import Target

#: a file leaves out what is used less than once in so many sentences
RAREST = 10_000
#: ... except that a word keeps the preterminals that have this share of it
SHARE_OF_WORD = 0.01
#: uses in a sentence below which a symbol is named and not described
RARE = 1e-3


@dataclass
class UsedGrammar:
    """A grammar's probabilities, and how often its symbols are used.

    `N` nonterminals, `S` symbols, `T` of them preterminals; `K` contexts that a symbol may stand
    under: one if the grammar is context-free, else the classes of parents and, last, the top.

    Attributes:
        root: `(S,)` float64 probability of each symbol at the top.
        rules: `(K, N, S, S)` of each nonterminal's children.
        words: `(K, T, vocabulary)` of each preterminal's words.
        uses: `(K, S)` expected uses of each symbol in a sentence.
        names: of the `S` symbols.
        sentences: how many sentences the uses were counted in.
    """

    root: Tensor
    rules: Tensor
    words: Tensor
    uses: Tensor
    names: list[str]
    sentences: int

    @classmethod
    def of(cls, grammar: Grammar, batches: Iterable[Sentences]) -> UsedGrammar:
        """Counts the uses of a grammar's symbols in sentences.

        Raises:
            UserError: if the grammar can derive none of them.
        """
        counted, uses = 0, 0.0
        for x in batches:
            possible = grammar.in_support(x)
            if possible.any():
                uses = uses + grammar.expected_uses(x[possible])
                counted += int(possible.sum())
        if not counted:
            raise UserError("none of the sentences is derivable, so no symbol is used in them")
        with torch.no_grad():
            tables = ContextTables.of(*grammar.production_probabilities())
        return cls(
            _shares(tables.root.double(), 1),
            _shares(tables.rules.double(), 2),
            _shares(tables.words.double(), 1),
            uses / counted,
            [*grammar.names(), *grammar.preterminal_names()],
            counted,
        )

    @property
    def labels(self) -> int:
        """The number `N` of nonterminals."""
        return self.rules.shape[1]

    @property
    def context_free(self) -> bool:
        """Whether a symbol has the same rules whatever it stands under."""
        return len(self.rules) == 1

    def under(self, label: int) -> int:
        """The context of a nonterminal's children."""
        return label // (self.labels // groups_of(len(self.rules)))

    def parents(self, context: int) -> list[int]:
        """The nonterminals whose children stand under a context; none for that of the top."""
        return [label for label in range(self.labels) if self.under(label) == context]


def _shares(table: Tensor, axes: int) -> Tensor:
    """A table whose last axes sum to 1."""
    last = tuple(range(-axes, 0))
    return table / table.sum(last, keepdim=True).clamp(min=torch.finfo(table.dtype).tiny)


# ---------------------------------------------------------------- a file of rules


def grammar_file(used: UsedGrammar, vocabulary: Sequence[str], title: str) -> tuple[str, str]:
    """A grammar as a text file that `load_grammar` reads.

    Left out are rules and words that are used less than once in `RAREST` sentences; what remains of
    a symbol is scaled to sum to 1. A symbol keeps its most probable rule and one of those that end
    soonest; a word keeps the preterminals that have `SHARE_OF_WORD` of it. Symbols that nothing
    leads to then are not written.

    Args:
        used: the grammar.
        vocabulary: the word at each index.
        title: what the head of the file says first.

    Returns:
        The file's name and its text.
    """
    names = _symbols(used.names)
    start = next(
        name for name in ("S", "ROOT", *(f"S{i}" for i in range(10**6))) if name not in names
    )
    pruned = _Pruned(used)
    top = pruned.root()
    # what is written of each symbol under each context, and the parents that it is met under there
    sides: dict[tuple[int, int], list] = {}
    met = {(len(used.rules) - 1, symbol): {start: None} for symbol, _ in top}
    queue = list(met)
    for context, symbol in queue:  # grows while it is gone through
        if symbol >= used.labels:
            found = [(_quoted(vocabulary[at]), p) for at, p in pruned.words(context, symbol)]
        else:
            rules = pruned.rules(context, symbol)
            found = [(f"{names[a]} {names[b]}", p) for (a, b), p in rules]
            below = used.under(symbol)
            for pair in [(below, child) for rule, _ in rules for child in rule]:
                if pair not in met:
                    queue.append(pair)
                met.setdefault(pair, {})[names[symbol]] = None
        sides[context, symbol] = found
    body = _rule_lines(
        start if used.context_free else f"{start}^{TOP}",
        [(names[symbol], p) for symbol, p in top],
    )
    for context, symbol in queue:
        left = names[symbol]
        if not used.context_free:
            left += f"^{','.join(met[context, symbol])}"
        lines = _rule_lines if symbol < used.labels else _word_lines
        body += ["", *lines(left, sides[context, symbol])]
    notation = "NLTK's PCFG notation"
    if not used.context_free:
        notation += "; SYMBOL^PARENT has the rules of a symbol under a parent, or under several"
    head = [
        title,
        f"Notation: {notation}. The most probable rules stand first.",
        f"Left out is what is used less than once in {RAREST:,} sentences, by the uses expected in",
        f"{used.sentences:,} sentences: {100 * pruned.lost():.2g} % of all uses. The rest of each "
        "symbol is scaled to sum to 1.",
    ]
    text = "\n".join([*(f"# {line}" for line in head), "", *body]) + "\n"
    return "grammar.pcfg" if used.context_free else "grammar.ncfg", text


class _Pruned:
    """What a grammar file keeps of each symbol, as `(what, probability)`, most probable first."""

    def __init__(self, used: UsedGrammar):
        self.used = used
        self._kept = self._all = 0.0
        self._ending = _ending_rules(used)
        by_word = used.uses[:, used.labels :, None] * used.words
        least = (SHARE_OF_WORD * by_word.sum((0, 1))).clamp(max=1 / RAREST)
        self._frequent = (by_word >= least) & (by_word > 0)

    def root(self) -> list[tuple[int, float]]:
        """Symbols at the top."""
        p = self.used.root
        keep = p >= 1 / RAREST
        keep[p[: self.used.labels].argmax()] = True  # a grammar needs a rule of two symbols
        return self._chosen(p, keep, 1.0)

    def rules(self, context: int, label: int) -> list[tuple[tuple[int, int], float]]:
        """Pairs of children of a nonterminal."""
        p, uses = self.used.rules[context, label].flatten(), self.used.uses[context, label]
        keep = uses * p >= 1 / RAREST
        keep[p.argmax()] = keep[self._ending[context, label]] = True
        symbols = self.used.rules.shape[2]
        return [(divmod(at, symbols), share) for at, share in self._chosen(p, keep, float(uses))]

    def words(self, context: int, symbol: int) -> list[tuple[int, float]]:
        """Words of a preterminal."""
        p = self.used.words[context, symbol - self.used.labels]
        keep = self._frequent[context, symbol - self.used.labels].clone()
        keep[p.argmax()] = True
        return self._chosen(p, keep, float(self.used.uses[context, symbol]))

    def _chosen(self, p: Tensor, keep: Tensor, uses: float) -> list[tuple[int, float]]:
        keep = keep & (p > 0)
        mass = float(p[keep].sum())
        self._all += uses
        self._kept += uses * mass
        places = keep.nonzero().squeeze(1)
        places = places[p[places].argsort(descending=True, stable=True)]
        return [(at, float(p[at]) / mass) for at in places.tolist()]

    def lost(self) -> float:
        """The share of the uses that was left out of what has been asked for."""
        return max(0.0, 1 - self._kept / self._all)


def _ending_rules(used: UsedGrammar) -> Tensor:
    """`(K, N)` a rule of each nonterminal; a derivation by these rules alone comes to an end."""
    done = torch.zeros_like(used.uses, dtype=torch.bool)
    done[:, used.labels :] = True
    found = torch.zeros(used.rules.shape[:2], dtype=torch.long, device=done.device)
    below = [used.under(label) for label in range(used.labels)]
    while True:
        ends = done[below]  # (N, S): which children of each nonterminal are done
        weight, rule = (used.rules * (ends[:, :, None] & ends[:, None])).flatten(2).max(2)
        new = (weight > 0) & ~done[:, : used.labels]
        if not new.any():
            return found
        found[new] = rule[new]
        done[:, : used.labels] |= new


def _rule_lines(left: str, sides: list[tuple[str, float]]) -> list[str]:
    return [f"{left} -> {right} [{_decimal(p)}]" for right, p in sides]


def _word_lines(left: str, words: list[tuple[str, float]]) -> list[str]:
    """Several words on a line, as many as fit."""
    lines: list[str] = []
    for word, p in words:
        piece = f"{word} [{_decimal(p)}]"
        if lines and len(lines[-1]) + len(piece) < 97:
            lines[-1] += f" | {piece}"
        else:
            lines.append(f"{left} -> {piece}")
    return lines


def _decimal(p: float) -> str:
    """A probability; with an exponent, which NLTK does not read, only where it is tiny."""
    return f"{p:.9f}".rstrip("0").rstrip(".") if p >= 1e-6 else f"{p:.4e}"


def _quoted(word: str) -> str:
    if "'" not in word:
        return f"'{word}'"
    if '"' not in word:
        return f'"{word}"'
    return "'" + word.replace("'", "\\'") + "'"


def _symbols(names: Sequence[str]) -> list[str]:
    """Names as NLTK reads them; those that differ stay different."""
    found: list[str] = []
    for name in names:
        plain = wish = re.sub(r"[^\w/-]", "-", name).lstrip("-") or "X"
        number = 1
        while wish in found or wish == TOP or (wish in names and wish != name):
            number += 1
            wish = f"{plain}-{number}"
        found.append(wish)
    return found


def write_grammar(
    model: Target, vocabulary: Sequence[str], batches: Iterable[Sentences], folder: Path
) -> list[str]:
    """Writes the grammar that a model is, or has, into a folder; returns the names of files.

    None, for a model without a table of rules or one that derives none of the sentences.

    Args:
        model: any model.
        vocabulary: the word at each index.
        batches: sentences to count uses in.
        folder: where to.
    """
    grammar = grammar_of(model)
    if grammar is None:
        return []
    try:
        used = UsedGrammar.of(grammar, batches)
    except UserError:
        return []
    title = (
        f"The {type(grammar).__name__} of this run: {grammar.nonterminals} nonterminals, "
        f"{grammar.preterminals} preterminals."
    )
    name, text = grammar_file(used, vocabulary, title)
    write_atomically(folder / name, text)
    return [name]


def grammar_of(model: Target) -> Grammar | None:
    """The grammar that a model is, or multiplies by something; None if there is no such thing."""
    likely = model.normalised()
    return likely if isinstance(likely, Grammar) else None


# ---------------------------------------------------------------- a few lines for each symbol


@dataclass(frozen=True)
class Described:
    """What a symbol is.

    Attributes:
        name: of the symbol.
        phrase: whether it is a nonterminal; a preterminal otherwise.
        uses: expected in a sentence.
        parents: what it stands under with which share of its uses; empty if context-free.
        makes: its most probable rules or words, with their probabilities.
    """

    name: str
    phrase: bool
    uses: float
    parents: list[tuple[str, float]]
    makes: list[tuple[str, float]]


def described(used: UsedGrammar, vocabulary: Sequence[str], most: int = 5) -> list[Described]:
    """All symbols: phrases first, and of these the most used first.

    Args:
        used: the grammar.
        vocabulary: the word at each index.
        most: how many rules or words of a symbol.
    """
    total, found = used.uses.sum(0), []
    for symbol in sorted(range(len(total)), key=lambda s: (s >= used.labels, -float(total[s]))):
        weight = used.uses[:, symbol] / total[symbol].clamp(min=1e-30)
        parents = []
        if not used.context_free:
            above = [
                "/".join(used.names[label] for label in used.parents(context)) or "the top"
                for context in range(len(used.rules))
            ]
            parents = [(above[at], p) for at, p in _largest(weight, most)]
        if symbol < used.labels:
            p = torch.einsum("k,kbc->bc", weight, used.rules[:, symbol]).flatten()
            sides = [(divmod(at, len(total)), share) for at, share in _largest(p, most)]
            makes = [(f"{used.names[a]} {used.names[b]}", q) for (a, b), q in sides]
        else:
            p = weight @ used.words[:, symbol - used.labels]
            makes = [(vocabulary[at], q) for at, q in _largest(p, most)]
        phrase, uses = symbol < used.labels, float(total[symbol])
        found.append(Described(used.names[symbol], phrase, uses, parents, makes))
    return found


def at_the_top(used: UsedGrammar, most: int = 5) -> list[tuple[str, float]]:
    """The symbols that sentences are, with their probabilities, the most probable first."""
    return [(used.names[symbol], p) for symbol, p in _largest(used.root, most)]


def listing(used: UsedGrammar, vocabulary: Sequence[str], most: int = 5) -> list[str]:
    """Lines that say what each symbol is: its uses, its most probable rules or words.

    Args:
        used: the grammar.
        vocabulary: the word at each index.
        most: how many rules or words of a symbol.
    """
    symbols = described(used, vocabulary, most)
    rare = [symbol.name for symbol in symbols if symbol.uses < RARE]
    lines = [f"{_share(p)} of sentences are {name}" for name, p in at_the_top(used, most)]
    for title, phrase in (("Phrases", True), ("Words", False)):
        lines += ["", f"{title}, with their uses in a sentence on average:"]
        for symbol in symbols:
            if symbol.uses < RARE or symbol.phrase != phrase:
                continue
            lines.append(f"{symbol.name}  {symbol.uses:.3f}")
            if symbol.parents:
                lines.append(f"    under {_shared(symbol.parents)}")
            lines.append(f"    -> {_shared(symbol.makes)}")
    if rare:
        lines += ["", f"used less than once in 1,000 sentences: {', '.join(rare)}"]
    return lines


def _shared(parts: list[tuple[str, float]]) -> str:
    return ", ".join(f"{name} {_share(p)}" for name, p in parts)


def _largest(p: Tensor, most: int) -> list[tuple[int, float]]:
    """The places of the largest entries that would not be shown as 0."""
    values, places = p.topk(min(most, len(p)))
    return [(at, q) for at, q in zip(places.tolist(), values.tolist(), strict=True) if q >= 5e-4]


def _share(p: float) -> str:
    return f"{100 * p:.1f} %"

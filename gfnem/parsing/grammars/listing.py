"""What a grammar has learned, for people: a few lines for each symbol, the most used first.

A symbol's uses are those expected in given sentences, over all of their trees by the posterior; a
rule has the share of them that its probability says.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from gfnem.errors import UserError
from gfnem.parsing.grammars.energy_grammar import EnergyGrammar
from gfnem.parsing.grammars.grammar import Grammar
from gfnem.parsing.grammars.language import ContextTables
from gfnem.parsing.grammars.rule_tables import Rules
from gfnem.parsing.grammars.support import mean_uses
from gfnem.parsing.inference.potentials import groups_of
from gfnem.parsing.text.sentences import Sentences
from gfnem.target import Target

#: uses in a sentence below which a symbol is named and not described
RARE = 1e-3


@dataclass
class UsedGrammar:
    """A grammar's probabilities, and how often its symbols are used.

    `N` nonterminals, `S` symbols, `T` of them preterminals; `K` contexts that a symbol may stand
    under: one if the grammar is context-free, else the classes of parents and, last, the top.

    Attributes:
        root: `(S,)` float64 probability of each symbol at the top.
        rules: of each nonterminal's children.
        words: `(K, T, vocabulary)` of each preterminal's words.
        uses: `(K, S)` expected uses of each symbol in a sentence.
        names: of the `S` symbols.
        sentences: how many sentences the uses were counted in.
    """

    root: Tensor
    rules: Rules
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
        uses, counted = mean_uses(grammar, batches)
        if not counted:
            raise UserError("none of the sentences is derivable, so no symbol is used in them")
        with torch.no_grad():
            tables = ContextTables.of(*grammar.production_probabilities()).normalised()
        return cls(
            tables.root,
            tables.rules,
            tables.words,
            uses,
            [*grammar.names(), *grammar.preterminal_names()],
            counted,
        )

    @property
    def labels(self) -> int:
        """The number `N` of nonterminals."""
        return self.rules.labels

    @property
    def context_free(self) -> bool:
        """Whether a symbol has the same rules whatever it stands under."""
        return self.rules.contexts == 1

    def under(self, label: int) -> int:
        """The context of a nonterminal's children."""
        return label // (self.labels // groups_of(self.rules.contexts))

    def parents(self, context: int) -> list[int]:
        """The nonterminals whose children stand under a context; none for that of the top."""
        return [label for label in range(self.labels) if self.under(label) == context]


def grammar_of(model: Target) -> Grammar | None:
    """The grammar that a model is, or is a multiple of; None if there is none."""
    if isinstance(model, EnergyGrammar):
        return model.grammar
    return model if isinstance(model, Grammar) else None


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
                for context in range(used.rules.contexts)
            ]
            parents = [(above[at], p) for at, p in _largest(weight, most)]
        if symbol < used.labels:
            p = torch.einsum("k,kbc->bc", weight, used.rules.pairs(symbol)).flatten()
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

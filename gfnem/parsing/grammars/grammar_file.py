"""A grammar as a text file that `TabularGrammar` reads, without what is hardly ever used."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import chain, count
from pathlib import Path

import torch
from torch import Tensor

from gfnem.errors import UserError
from gfnem.files import write_atomically
from gfnem.parsing.grammars.listing import UsedGrammar, grammar_of
from gfnem.parsing.grammars.text_format import TOP, rule_lines, word_lines, writable
from gfnem.parsing.text.sentences import Sentences
from gfnem.target import Target

#: a file leaves out what is used less than once in so many sentences
RAREST = 10_000
#: ... except that a word keeps the preterminals that have this share of it
SHARE_OF_WORD = 0.01


def grammar_file(used: UsedGrammar, vocabulary: Sequence[str], title: str) -> tuple[str, str]:
    """A grammar as a text file that `TabularGrammar` reads.

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
    names, pruned = writable(used.names), _Pruned(used)
    top, at_top = pruned.root(), used.rules.contexts - 1
    # what is written of each symbol under each context
    sides: dict[tuple[int, int], list] = {}
    # where children are chosen apart: symbols of their own for the left and the right one
    apart: dict[int, list[tuple[str, list]]] = {}
    for context, symbol in (queue := [(at_top, symbol) for symbol, _ in top]):
        if (context, symbol) in sides:
            continue
        if symbol >= used.labels:
            words = pruned.words(context, symbol)
            sides[context, symbol] = [(vocabulary[word], p) for word, p in words]
            continue
        if used.rules.sides:
            name, children = names[symbol], pruned.sides(symbol)
            parts = _fresh(names, f"{name}-left"), _fresh(names, f"{name}-right")
            sides[context, symbol] = [(" ".join(parts), 1.0)]
            apart[symbol] = [
                (part, [(names[child], p) for child, p in found])
                for part, found in zip(parts, children, strict=True)
            ]
            queue += [(context, child) for found in children for child, _ in found]
            continue
        rules = pruned.rules(context, symbol)
        sides[context, symbol] = [(f"{names[a]} {names[b]}", p) for (a, b), p in rules]
        queue += [(used.under(symbol), child) for pair, _ in rules for child in pair]
    start, classes = _fresh(names, "S", "ROOT"), []
    written = {symbol for _, symbol in sides}
    # under what a symbol stands: a parent, or a class of them
    above = {at_top: start}
    for context in range(at_top):
        members = [names[label] for label in used.parents(context) if label in written]
        above[context] = " ".join(members)
        if len(members) > 1:
            above[context] = _fresh([*names, start], f"C{context + 1}")
            classes.append(f"%class {above[context]} {' '.join(members)}")
    mark = "" if used.context_free else f"^{TOP}"
    body = [*classes, *rule_lines(f"{start}{mark}", [(names[symbol], p) for symbol, p in top])]
    for (context, symbol), found in sides.items():
        mark = "" if used.context_free else f"^{above[context]}"
        lines = rule_lines if symbol < used.labels else word_lines
        body += ["", *lines(f"{names[symbol]}{mark}", found)]
        for part, children in apart.get(symbol, ()):
            body += rule_lines(part, children)
    head = [title, "Notation: NLTK's PCFG notation. The most probable rules stand first."]
    if not used.context_free:
        head.append(
            "SYMBOL^PARENT has a symbol's rules under a parent, or under a %class of parents."
        )
    if apart:
        head.append(
            "A symbol chooses its children apart: SYMBOL-left the left one, -right the other."
        )
    head += [
        f"Left out is what is used less than once in {RAREST:,} sentences, by the uses expected in",
        f"{used.sentences:,} sentences: {100 * pruned.lost():.2g} % of all uses. The rest of each "
        "symbol is scaled to sum to 1.",
    ]
    text = "\n".join([*(f"# {line}" for line in head), "", *body]) + "\n"
    return "grammar.pcfg" if used.context_free else "grammar.ncfg", text


def _fresh(names: Sequence[str], *wishes: str) -> str:
    """The first wish that is no name yet; where all are, the last with a number."""
    numbered = (f"{wishes[-1]}-{number}" for number in count(2))
    return next(wish for wish in chain(wishes, numbered) if wish not in names)


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
        p, uses = self.used.rules.pairs(label)[context].flatten(), self.used.uses[context, label]
        keep = uses * p >= 1 / RAREST
        keep[p.argmax()] = keep[self._ending[context, label]] = True
        symbols = self.used.rules.symbols
        return [(divmod(at, symbols), share) for at, share in self._chosen(p, keep, float(uses))]

    def sides(self, label: int) -> list[list[tuple[int, float]]]:
        """Left and right children of a nonterminal that chooses them apart."""
        uses, found = self.used.uses[0, label], []
        ending = divmod(int(self._ending[0, label]), self.used.rules.symbols)
        for table, child in zip(self.used.rules.sides, ending, strict=True):
            keep = uses * table[label] >= 1 / RAREST
            keep[table[label].argmax()] = keep[child] = True
            found.append(self._chosen(table[label], keep, float(uses)))
        return found

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
    found = torch.zeros_like(used.uses[:, : used.labels], dtype=torch.long)
    below = [used.under(label) for label in range(used.labels)]
    while True:
        ends = done[below]  # (N, S): which children of each nonterminal are done
        weight, rule = used.rules.best(ends)
        new = (weight > 0) & ~done[:, : used.labels]
        if not new.any():
            return found
        found[new] = rule[new]
        done[:, : used.labels] |= new


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

"""Grammars with fixed, written-down probabilities."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from gfnem.errors import UserError
from gfnem.parsing.grammars.binary_form import read_grammar
from gfnem.parsing.grammars.grammar import Grammar
from gfnem.parsing.grammars.text_format import ENDINGS
from gfnem.parsing.inference.potentials import groups_of
from gfnem.parsing.text.characters import clean
from gfnem.parsing.text.vocabulary import UNKNOWN, Vocabulary

#: most unknowns of equations that are solved at once
_NEWTON = 2000


class TabularGrammar(Grammar):
    """The grammar of a file; it is not trained.

    Args:
        grammar: a file in the notation of `gfnem.parsing.grammars.text_format`, or the name of an
            embedded grammar such as "english" or "english_context".
        vocabulary: the words behind word indices, `<unk>` first. The unknown word gets the mass of
            the grammar's words that are not in it. If None: `<unk>` and all words of the grammar.

    Raises:
        UserError: if the file is missing or malformed.
    """

    def __init__(self, grammar: str = "english", vocabulary: Sequence[str] | None = None):
        tables = read_grammar(find_grammar(grammar))
        if vocabulary is None:
            words = [word for word in tables.words if clean(word) != UNKNOWN]
            vocabulary = Vocabulary(words).to_list()
        super().__init__(len(tables.nonterminals), len(tables.preterminals), len(vocabulary))
        self.contexts = len(tables.rules)
        self.vocabulary = list(vocabulary)
        self._names, self._leaves = tables.nonterminals, tables.preterminals
        self.useless = tables.useless
        self.register_buffer("root", tables.root)
        self.register_buffer("rules", tables.rules)
        # the first entry, the unknown word, gets the mass of the words not in the vocabulary
        column = {word: index for index, word in enumerate(self.vocabulary)}
        target = torch.tensor([column.get(word, 0) for word in tables.words])
        words = tables.emissions.double().exp()  # what float32 takes for 0 is there
        emissions = words.new_zeros(*words.shape[:-1], len(vocabulary))
        emissions.index_add_(-1, target, words)
        self.register_buffer("emissions", emissions.log().to(tables.emissions))

    def names(self) -> list[str]:
        """The nonterminals' names in the file."""
        return self._names

    def preterminal_names(self) -> list[str]:
        """The preterminals' names in the file."""
        return self._leaves

    def tables(self) -> tuple[Tensor, Tensor, Tensor]:
        """The file's log probabilities: of the root, of rules, of words."""
        return self.root, self.rules, self.emissions

    def production_probabilities(self) -> tuple[Tensor, Tensor, Tensor]:
        """The tables, given that derivations end (Chi 1999, section 4).

        Each rule is weighted by the probabilities that its children end.
        """
        root, rules, words = (table.double().exp() for table in self.tables())
        # few of the rules are there: the rest is not gone through again and again
        context, label, left, right = rules.nonzero().T
        below = label // (self.nonterminals // groups_of(self.contexts))
        p = rules[context, label, left, right]
        ending = words.new_zeros(self.contexts, len(root))
        ending[:, self.nonterminals :] = words.sum(2)
        children = (below * len(root) + left, below * len(root) + right)
        ending = _least_solution(p, context * len(root) + label, children, ending)
        rules[context, label, left, right] = p * ending[below, left] * ending[below, right]
        return root * ending[-1], rules, words


def _least_solution(
    p: Tensor, parent: Tensor, children: tuple[Tensor, Tensor], known: Tensor
) -> Tensor:
    """The least solution of `known[parent] = sum of p known[left] known[right]`, from below.

    A few turns of substitution (Nederhof and Satta 2008) suffice where derivations are short. They
    approach slowly where derivations are long, which Newton's method does not (Etessami and
    Yannakakis 2009, section 6).

    Args:
        p: `(rules,)` probabilities.
        parent, children: `(rules,)` places of the symbols in `known`, flattened.
        known: what does not depend on others, 0 for parents.
    """
    value, (left, right) = known.flatten(), children
    asked = parent.unique()
    place = torch.full_like(value, -1, dtype=torch.long)
    place[asked] = torch.arange(len(asked), device=value.device)
    row, small = place[parent], len(asked) <= _NEWTON
    for turn in range(200 if small else 10_000):
        sums = value.new_zeros(len(asked)).index_add_(0, row, p * value[left] * value[right])
        change = sums - value[asked]
        if torch.all(change.abs() <= 1e-12 * sums):
            break
        if small and turn >= 100:
            change, singular = torch.linalg.solve_ex(_slope(p, row, children, place, value), change)
            if singular:  # there, to the last digit
                break
        value[asked] += change.clamp(min=0)  # roundings near the end
    return value.reshape_as(known)


def _slope(
    p: Tensor, row: Tensor, children: tuple[Tensor, Tensor], place: Tensor, value: Tensor
) -> Tensor:
    """One less the derivatives of the sums of `_least_solution`, by what is asked for."""
    slope = torch.eye(int(row.max()) + 1, dtype=value.dtype, device=value.device)
    for child, other in (children, children[::-1]):
        moves = place[child] >= 0
        entry = (row[moves], place[child[moves]])
        slope.index_put_(entry, -p[moves] * value[other[moves]], accumulate=True)
    return slope


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

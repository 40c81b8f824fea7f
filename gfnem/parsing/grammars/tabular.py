"""Grammars with fixed, written-down probabilities."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from gfnem.parsing.grammars.binary_form import read_parent_grammar
from gfnem.parsing.grammars.grammar import Grammar
from gfnem.parsing.grammars.text_format import find_grammar, read_grammar
from gfnem.parsing.text.vocabulary import UNKNOWN, Vocabulary


class Tabulated(Grammar):
    """What grammars that are read from files share: it is not trained.

    Args:
        tables: as read from a file.
        vocabulary: the words behind word indices, `<unk>` first. The unknown word gets the mass of
            the grammar's words that are not in it. If None: `<unk>` and all words of the grammar.
    """

    def __init__(self, tables: Any, vocabulary: Sequence[str] | None):
        if vocabulary is None:
            words = [word for word in tables.words if word != UNKNOWN]
            vocabulary = Vocabulary(words).to_list()
        super().__init__(len(tables.nonterminals), len(tables.preterminals), len(vocabulary))
        self.contexts = len(tables.rules) if tables.rules.dim() == 4 else 1
        self.vocabulary = list(vocabulary)
        self._names, self._leaves = tables.nonterminals, tables.preterminals
        self.useless = tables.useless
        self.register_buffer("root", tables.root)
        self.register_buffer("rules", tables.rules)
        # the first entry, the unknown word, gets the mass of the words not in the vocabulary
        column = {word: index for index, word in enumerate(self.vocabulary)}
        target = torch.tensor([column.get(word, 0) for word in tables.words])
        emissions = tables.emissions.new_zeros(*tables.emissions.shape[:-1], len(vocabulary))
        emissions.index_add_(-1, target, tables.emissions.exp())
        self.register_buffer("emissions", emissions.log())

    def names(self) -> list[str]:
        """The nonterminals' names in the file."""
        return self._names

    def preterminal_names(self) -> list[str]:
        """The preterminals' names in the file."""
        return self._leaves

    def tables(self) -> tuple[Tensor, Tensor, Tensor]:
        """The file's log probabilities: of the root, of rules, of words."""
        return self.root, self.rules, self.emissions


class TabularPCFG(Tabulated):
    """The grammar of a file in NLTK's PCFG notation; it is not trained.

    Args:
        grammar: a file, or the name of an embedded grammar such as "english".
        vocabulary: the words behind word indices, `<unk>` first. The unknown word gets the mass of
            the grammar's words that are not in it. If None: `<unk>` and all words of the grammar.

    Raises:
        UserError: if the file is missing or malformed.
    """

    def __init__(self, grammar: str = "english", vocabulary: Sequence[str] | None = None):
        super().__init__(read_grammar(find_grammar(grammar)), vocabulary)

    def production_probabilities(self) -> tuple[Tensor, Tensor, Tensor]:
        """The tables, renormalised by each symbol's total weight (Chi 1999, section 4).

        A grammar that was converted to binary form has weights that need not sum to 1.
        """
        root, rules, emissions = (table.double().exp() for table in self.tables())
        words = emissions.sum(1)
        mass = rules.new_zeros(self.nonterminals)
        for _ in range(1000):  # the least fixed point, from below (Nederhof and Satta 2008)
            symbols = torch.cat([mass, words])
            larger = rules @ symbols @ symbols
            if torch.allclose(larger, mass, rtol=1e-12, atol=0):
                break
            mass = larger
        symbols = torch.cat([mass, words])
        return root * symbols, rules * symbols[:, None] * symbols, emissions


class TabularParentGrammar(Tabulated):
    """The grammar of a file whose rules may name parents; it is not trained.

    Args:
        grammar: a file in the notation of `gfnem.parsing.grammars.parent_text_format`, or the name
            of an embedded grammar such as "english_context".
        vocabulary: the words behind word indices, `<unk>` first. The unknown word gets the mass of
            the grammar's words that are not in it. If None: `<unk>` and all words of the grammar.

    Raises:
        UserError: if the file is missing or malformed.
    """

    def __init__(self, grammar: str = "english_context", vocabulary: Sequence[str] | None = None):
        super().__init__(read_parent_grammar(find_grammar(grammar)), vocabulary)


def load_grammar(
    grammar: str, vocabulary: Sequence[str] | None = None
) -> TabularPCFG | TabularParentGrammar:
    """The grammar of a file or an embedded one; `.ncfg` files are parent-conditioned.

    Args:
        grammar: a file or an embedded grammar's name.
        vocabulary: see `TabularPCFG`.

    Raises:
        UserError: if the file is missing or malformed.
    """
    path = find_grammar(grammar)
    kind = TabularParentGrammar if path.suffix == ".ncfg" else TabularPCFG
    return kind(str(path), vocabulary)

"""A PCFG with fixed, written-down probabilities."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from gfnem.parsing.grammar import Grammar
from gfnem.parsing.grammar_text import find_grammar, read_grammar
from gfnem.parsing.vocabulary import Vocabulary


class TabularPCFG(Grammar):
    """The grammar of a file in NLTK's PCFG notation; it is not trained.

    Args:
        grammar: a file, or the name of an embedded grammar such as "english".
        vocabulary: the words behind word indices, `<unk>` first. The unknown word gets the mass of
            the grammar's words that are not in it. If None: `<unk>` and all words of the grammar.

    Raises:
        UserError: if the file is missing or malformed.
    """

    def __init__(self, grammar: str = "english", vocabulary: Sequence[str] | None = None):
        tables = read_grammar(find_grammar(grammar))
        if vocabulary is None:
            vocabulary = Vocabulary(tables.words).to_list()
        super().__init__(len(tables.nonterminals), len(tables.preterminals), len(vocabulary))
        self.vocabulary = list(vocabulary)
        self._names = tables.nonterminals
        self.register_buffer("root", tables.root)
        self.register_buffer("rules", tables.rules)
        emissions = emissions_over(self.vocabulary, tables.words, tables.emissions)
        self.register_buffer("emissions", emissions)

    def names(self) -> list[str]:
        """The nonterminals' names in the file."""
        return self._names

    def tables(self) -> tuple[Tensor, Tensor, Tensor]:
        """The file's log probabilities (see `Grammar.tables`)."""
        return self.root, self.rules, self.emissions

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


def emissions_over(vocabulary: Sequence[str], words: Sequence[str], emissions: Tensor) -> Tensor:
    """Log emissions `(..., words)` of a grammar over another vocabulary, `(..., vocabulary)`.

    Its first entry, the unknown word, gets the mass of the words that are not in it.
    """
    column = {word: index for index, word in enumerate(vocabulary)}
    target = torch.tensor([column.get(word, 0) for word in words])
    over = emissions.new_zeros(*emissions.shape[:-1], len(vocabulary))
    return over.index_add_(-1, target, emissions.exp()).log()

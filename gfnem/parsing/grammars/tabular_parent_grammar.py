"""A parent-conditioned grammar with fixed, written-down probabilities."""

from __future__ import annotations

from collections.abc import Sequence

from gfnem.parsing.grammars.binary_form import read_parent_grammar
from gfnem.parsing.grammars.parent_grammar import ParentGrammar
from gfnem.parsing.grammars.tabular_pcfg import TabularPCFG, Tabulated
from gfnem.parsing.grammars.text_format import find_grammar


class TabularParentGrammar(Tabulated, ParentGrammar):
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
        self._adopt(read_parent_grammar(find_grammar(grammar)), vocabulary)


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

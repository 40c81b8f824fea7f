"""The best context-free fit of a parent-conditioned grammar: exact expectations against samples."""

import math
from collections import Counter

import pytest
import torch
from nltk import Nonterminal, Tree, induce_pcfg
from parent_grammar_files import BINARY, GRAMMARS, write

from gfnem.parsing import Sentences, TabularGrammar
from gfnem.parsing.grammars.context_free_fit import FixedPCFG, context_free_fit, expected_uses


def test_expected_uses_are_those_of_sampled_trees(tmp_path):
    grammar = TabularGrammar(write(tmp_path, BINARY))
    torch.manual_seed(0)
    x, _ = grammar.sample(20_000, max_length=60)
    uses = expected_uses(grammar)
    assert grammar.names() == ["S"] and uses.shape == (2, 3)
    per_sentence = (x.lengths - 1).double()
    # the root S is under the top, all others under S
    assert float(uses[1, 0]) == pytest.approx(1)
    error = float(per_sentence.std()) / 20_000**0.5
    assert float(uses[0, 0]) == pytest.approx(float(per_sentence.mean()) - 1, abs=4 * error)
    assert float(uses[:, 1:].sum()) == pytest.approx(
        float(x.lengths.double().mean()), abs=4 * error
    )


@pytest.mark.slow
def test_the_fit_is_the_relative_frequency_estimate(tmp_path):
    """NLTK induces a PCFG from sampled trees with their preterminals: the same, in the limit."""
    grammar = TabularGrammar(write(tmp_path, BINARY))
    fit = context_free_fit(grammar)
    torch.manual_seed(0)
    rules, emissions = grammar.rules.exp(), grammar.emissions.exp()

    def derive(symbol: int, parent: int) -> Tree | str:
        if symbol == 0:
            pair = int(rules[parent, 0].flatten().multinomial(1))
            return Tree("S", [derive(pair // 3, 0), derive(pair % 3, 0)])
        word = int(emissions[parent, symbol - 1].multinomial(1))
        return Tree("AB"[symbol - 1], [grammar.vocabulary[word]])

    trees = [derive(0, 1) for _ in range(3000)]
    induced = induce_pcfg(Nonterminal("S"), [p for tree in trees for p in tree.productions()])
    tables = {str(p.lhs()): {} for p in induced.productions()}
    for p in induced.productions():
        tables[str(p.lhs())][p.rhs()] = p.prob()
    symbols = [Nonterminal(name) for name in "SAB"]
    for a in range(3):
        for b in range(3):
            expected = tables["S"].get((symbols[a], symbols[b]), 0.0)
            assert float(fit.grammar.rules[0, a, b].exp()) == pytest.approx(expected, abs=0.03)
    for t, name in enumerate("AB"):
        for w, word in enumerate(grammar.vocabulary):
            expected = tables[name].get((word,), 0.0)
            assert float(fit.grammar.emissions[t, w].exp()) == pytest.approx(expected, abs=0.03)
    counts = Counter(p for tree in trees for p in tree.productions())
    cost = -sum(count * math.log(tables[str(p.lhs())][p.rhs()]) for p, count in counts.items())
    assert cost / 3000 == pytest.approx(fit.cross_entropy, rel=0.05)


@pytest.mark.parametrize("text", [BINARY, *GRAMMARS.values()])
def test_no_context_free_grammar_near_it_fits_derivations_better(tmp_path, text):
    grammar = TabularGrammar(write(tmp_path, text))
    fit = context_free_fit(grammar)
    assert fit.cross_entropy > fit.entropy + 1e-3
    uses = expected_uses(grammar)
    rules = grammar.rules.double().exp()
    counts = torch.einsum("pa,pabc->abc", uses[:, : grammar.nonterminals], rules)

    def cost(log_rules):
        return -float(torch.where(counts > 0, counts * log_rules, 0).sum())

    best = cost(fit.grammar.rules.double())
    torch.manual_seed(0)
    for _ in range(5):
        noise = fit.grammar.rules.double() + 0.3 * torch.randn(fit.grammar.rules.shape)
        noise = noise.flatten(1).log_softmax(1).view_as(noise)
        assert cost(noise) > best - 1e-6


def test_entropy_is_that_of_sampled_sentences_where_each_has_one_derivation(tmp_path):
    grammar = TabularGrammar(
        write(
            tmp_path,
            "S -> A S [0.6] | A B [0.4]\nA^S -> 'a' [1]\nB^S -> 'b' [0.5] | 'c' [0.5]\n"
            "S^S -> A S [0.3] | B S [0.2] | A B [0.5]",
        )
    )
    fit = context_free_fit(grammar)
    torch.manual_seed(0)
    x, _ = grammar.sample(5000, max_length=60)
    for model, figure in ((grammar, fit.entropy), (fit.grammar, fit.cross_entropy)):
        sample = -model.log_marginal(x).double()
        assert float(sample.mean()) == pytest.approx(
            figure, abs=4 * float(sample.std()) / 5000**0.5
        )


def test_a_grammar_that_never_looks_at_parents_is_its_own_fit(tmp_path):
    text = "S -> A S [0.4] | A A [0.6]\nA -> 'a' [0.5] | 'b' [0.5]"
    grammar = TabularGrammar(write(tmp_path, text))
    fit = context_free_fit(grammar)
    assert fit.cross_entropy == pytest.approx(fit.entropy, abs=1e-6)
    assert isinstance(fit.grammar, FixedPCFG) and fit.grammar.names() == ["S"]
    x = Sentences.from_lists([[1, 2, 2], [2, 1]])
    torch.testing.assert_close(fit.grammar.log_marginal(x), grammar.log_marginal(x))


def test_infinitely_long_sentences_are_refused(tmp_path):
    text = "S -> S S [0.5] | A A [0.5]\nA -> 'a' [1]"
    with pytest.raises(ValueError, match="infinitely long"):
        context_free_fit(TabularGrammar(write(tmp_path, text)))


def test_derivations_that_never_end_do_not_count(tmp_path):
    """`D` never ends: the divergence is that of the rules without it."""
    dead = """S -> X Y [0.5] | Y X [0.5]
X^S -> 'a' [0.5] | D D [0.3] | X Y [0.2]
X -> 'a' [0.8] | Y Y [0.2]
Y -> 'b' [0.5] | X X [0.2] | D Y [0.3]
D -> D D [1.0]
"""
    fit = context_free_fit(TabularGrammar(write(tmp_path, dead)))
    assert fit.cross_entropy > fit.entropy

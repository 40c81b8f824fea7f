"""Lengths and derivability, against sums over all sentences and over all trees."""

import itertools

import pytest
import torch
from grammar_files import GRAMMARS
from grammar_files import inside as plain_inside
from parent_grammar_files import GRAMMARS as PARENT_GRAMMARS

from gfnem.parsing import NeuralPCFG, Sentences, TabularGrammar
from gfnem.parsing.grammars.binary_form import read_grammar

ENDLESS = "S -> A A [0.25] | B A [0.75]\nB -> B A [0.5] | 'b' B [0.5]\nA -> 'a' [0.5] | 'b' [0.5]\n"
HEAVY = "S -> S S [0.6] | 'a' [0.3] | 'b' [0.1]\n"
PLAIN = {**GRAMMARS, "endless": ENDLESS, "half its mass is infinite": HEAVY}
PARENT = {**PARENT_GRAMMARS, "endless": ENDLESS, "half its mass is infinite": HEAVY}


def load(tmp_path, text, ending="pcfg"):
    file = tmp_path / f"toy.{ending}"
    file.write_text(text)
    return TabularGrammar(str(file))


def everything(grammar, longest):
    """Every sentence of up to so many tokens, a batch for each length."""
    words = range(1, grammar.vocab_size)
    for length in range(1, longest + 1):
        yield Sentences.from_lists(list(itertools.product(words, repeat=length)))


@pytest.mark.parametrize(
    "ending,text",
    [("pcfg", text) for text in PLAIN.values()] + [("ncfg", text) for text in PARENT.values()],
    ids=[*PLAIN, *(f"parent: {name}" for name in PARENT)],
)
def test_how_probable_each_length_is(ending, text, tmp_path):
    grammar = load(tmp_path, text, ending)
    weights = grammar.length_weights(4)
    for length, x in enumerate(everything(grammar, 4), start=1):
        summed = float(grammar.log_marginal(x).double().exp().sum())
        assert float(weights[length - 1]) == pytest.approx(summed, rel=1e-5, abs=1e-9), length
    assert float(weights.sum()) > 0.01


@pytest.mark.parametrize("text", PLAIN.values(), ids=PLAIN.keys())
def test_what_can_be_derived(text, tmp_path):
    grammar = load(tmp_path, text)
    tables = read_grammar(tmp_path / "toy.pcfg")
    seen = set()
    for x in everything(grammar, 4):
        found = grammar.in_support(x)
        for row in range(len(x)):
            words = tuple(grammar.vocabulary[token] for token in x.tokens[row])
            assert bool(found[row]) == (plain_inside(tables, words) > 0), words
        assert torch.equal(found, grammar.log_marginal(x) > -torch.inf)
        seen |= set(found.tolist())
    assert True in seen


@pytest.mark.parametrize("text", PARENT.values(), ids=PARENT.keys())
def test_what_can_be_derived_under_parents(text, tmp_path):
    grammar = load(tmp_path, text, "ncfg")
    for x in everything(grammar, 4):
        exact = grammar.log_marginal(x)
        assert torch.equal(grammar.in_support(x), exact > -torch.inf)
        assert (exact[exact > -torch.inf] > -1000).all()


def test_sentences_of_several_lengths_stand_in_one_batch(tmp_path):
    grammar = load(tmp_path, "S -> A S [0.5] | A B [0.5]\nA -> 'a' [1]\nB -> 'b' [1]")
    a, b = grammar.vocabulary.index("a"), grammar.vocabulary.index("b")
    x = Sentences.from_lists([[a, b], [a], [a, a, a, b], [b, a], [a, b, a, b], [a, a, b]])
    assert grammar.in_support(x).tolist() == [True, False, True, False, False, True]


@pytest.mark.slow
def test_improbable_is_not_impossible(tmp_path):
    # three hundred words are less probable than what charts call impossible
    text = "S -> A S [0.00000000000000001] | A A [1.0]\nA -> 'a' [1.0]\n"
    grammar = load(tmp_path, text)
    x = Sentences.from_lists([[1] * 300])
    assert float(grammar.log_marginal(x)) == pytest.approx(298 * -39.143946, rel=1e-4)
    assert bool(grammar.in_support(x))


def test_training_on_what_cannot_be_derived_is_said(tmp_path, caplog):
    class Masked(NeuralPCFG):
        """A grammar that never has word 3."""

        def tables(self):
            root, rules, emissions = super().tables()
            never = torch.arange(self.vocab_size) == 3
            return root, rules, emissions.masked_fill(never, -torch.inf)

    grammar = Masked(5, 2, 3, 8)
    x = Sentences.from_lists([[1, 2, 4], [1, 3, 4]])
    log_marginal = grammar.log_marginal(x)
    assert "cannot derive 1 of 2 sentences" in caplog.text
    assert log_marginal.isfinite().tolist() == [True, False]
    log_marginal.mean().backward()
    alone = [parameter.grad.clone() for parameter in grammar.parameters()]
    grammar.zero_grad()
    (grammar.log_marginal(Sentences.from_lists([[1, 2, 4]])).sum() / 2).backward()
    for parameter, gradient in zip(grammar.parameters(), alone, strict=True):
        torch.testing.assert_close(parameter.grad, gradient)
    grammar.eval()
    caplog.clear()
    grammar.log_marginal(x)
    assert not caplog.text

"""The shipped English-like grammar is what its header promises."""

import math
from collections import Counter, defaultdict

import pytest
import torch
from nltk import PCFG
from nltk.grammar import Nonterminal

from gfnem.parsing.grammars.binary_form import read_grammar
from gfnem.parsing.grammars.tabular import find_grammar


@pytest.fixture(scope="module")
def grammar() -> PCFG:
    return PCFG.fromstring(find_grammar("english").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def tables():
    return read_grammar(find_grammar("english"))


def test_probabilities_sum_to_one(grammar):
    total = defaultdict(float)
    for production in grammar.productions():
        assert production.prob() > 0
        total[production.lhs()] += production.prob()
    assert all(abs(value - 1) < 1e-6 for value in total.values())


def test_every_rule_is_binary_or_lexical_and_no_symbol_is_both(grammar):
    kinds = defaultdict(set)
    for production in grammar.productions():
        right = production.rhs()
        lexical = len(right) == 1 and isinstance(right[0], str)
        assert lexical or (len(right) == 2 and all(isinstance(b, Nonterminal) for b in right))
        kinds[production.lhs()].add(lexical)
    assert all(len(kind) == 1 for kind in kinds.values())


def test_no_rule_is_written_twice_and_every_symbol_is_reachable(grammar):
    rules = Counter((p.lhs(), p.rhs()) for p in grammar.productions())
    assert [rule for rule, count in rules.items() if count > 1] == []
    reached, frontier = {grammar.start()}, [grammar.start()]
    while frontier:
        for production in grammar.productions(lhs=frontier.pop()):
            new = {b for b in production.rhs() if isinstance(b, Nonterminal)} - reached
            reached |= new
            frontier += new
    assert reached == {p.lhs() for p in grammar.productions()}


def test_tables_hold_the_file_unchanged(grammar, tables):
    assert tables.nonterminals[0] == str(grammar.start())
    rows = tables.nonterminals + tables.preterminals
    index = {name: i for i, name in enumerate(rows)}
    assert int(tables.rules.isfinite().sum() + tables.emissions.isfinite().sum()) == len(
        grammar.productions()
    )
    for production in grammar.productions():
        left, right = str(production.lhs()), production.rhs()
        if len(right) == 2:
            weight = tables.rules[0, index[left], index[str(right[0])], index[str(right[1])]]
        else:
            row = index[left] - len(tables.nonterminals)
            weight = tables.emissions[0, row, tables.words.index(right[0])]
        assert float(weight) == pytest.approx(math.log(production.prob()), abs=1e-5)


def test_sizes(tables):
    assert 20 <= len(tables.nonterminals) <= 40
    assert 20 <= len(tables.preterminals) <= 60
    assert 400 <= len(tables.words) <= 600
    assert all(word == word.lower() and word.strip("'").isalpha() for word in tables.words)
    # Words in two categories or more are a source of ambiguity.
    assert int((tables.emissions[0].isfinite().sum(0) > 1).sum()) > 50


def test_subcritical_with_sentences_of_eight_to_ten_words(tables):
    rules = tables.rules[0].double().exp()
    n = len(tables.nonterminals)
    children = rules.sum(2) + rules.sum(1)  # expected children of each kind, (N, N + T)
    assert float(torch.linalg.eigvals(children[:, :n]).abs().max()) < 1
    words = children[:, n:].sum(1)
    mean = torch.linalg.solve(torch.eye(n, dtype=torch.float64) - children[:, :n], words)
    assert 8 <= float(mean[0]) <= 10


def test_nine_sentences_in_ten_have_three_to_twenty_words(tables):
    rules = tables.rules[0].double().exp()
    n, longest = len(tables.nonterminals), 20
    # length[l, A]: probability that A yields exactly l words.
    length = torch.zeros(longest + 1, rules.shape[1], dtype=torch.float64)
    length[1, n:] = 1
    for total in range(2, longest + 1):
        for first in range(1, total):
            length[total, :n] += torch.einsum(
                "abc,b,c->a", rules, length[first], length[total - first]
            )
    assert float(length[3:, 0].sum()) >= 0.9

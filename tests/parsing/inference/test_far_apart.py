"""Labels of one span whose probabilities differ by more than float32 holds: none is lost."""

import math

import pytest
import torch

from gfnem.parsing.grammars.tabular import TabularGrammar
from gfnem.parsing.inference.by_sentence import SentencePotentials
from gfnem.parsing.inference.draws import sample_trees
from gfnem.parsing.inference.factored import FactoredPotentials
from gfnem.parsing.inference.inside import inside, log_partition, span_marginals
from gfnem.parsing.text.sentences import Sentences

#: `P` reads a run of `x` a hundred times as easily as `Q`, word by word; what follows tells them
#: apart in the end
RUNS = """S -> Q E [0.5] | P F [0.5]
Q -> W Q [0.5] | W W [0.5]
P -> V P [0.5] | V V [0.5]
W -> 'x' [0.01] | 'y' [0.99]
V -> 'x' [1.0]
E -> 'e' [1.0]
F -> 'f' [1.0]
"""


@pytest.fixture
def grammar(tmp_path):
    (tmp_path / "runs.pcfg").write_text(RUNS)
    return TabularGrammar(tmp_path / "runs.pcfg")


def sentences(grammar, *lengths):
    words = [grammar.vocabulary.index(word) for word in "xe"]
    return Sentences.from_lists([[words[0]] * (length - 1) + [words[1]] for length in lengths])


def true_value(length):
    return (length - 1) * math.log(0.5) + (length - 1) * math.log(0.01)


def test_sums_draws_and_posteriors(grammar):
    lengths = (6, 23, 25, 41)
    x, true = sentences(grammar, *lengths), pytest.approx([*map(true_value, lengths)], rel=1e-5)
    given = grammar.given(x)
    assert given.log_marginal().tolist() == true
    trees = given.sample_posterior(3)
    assert grammar.log_joint(x, trees)[:, 2].tolist() == true
    assert given.collapsed_log_joint(trees)[:, 2].tolist() == true
    assert given.span_marginals().sum((1, 2, 3)).tolist() == pytest.approx(
        [length - 1 for length in lengths]
    )


def test_gradients(grammar):
    """Each of a run's words is one use of `W`, whose weights are learned."""
    x = sentences(grammar, 25)
    uses = grammar.expected_uses(x)[0]
    leaf = grammar.nonterminals + grammar.preterminal_names().index("W")
    assert float(uses[leaf]) == pytest.approx(24, rel=1e-5)


@pytest.mark.parametrize("kind", ["by sentence", "factored"])
def test_other_kinds_of_rules(grammar, kind):
    x = sentences(grammar, 25, 6)
    root, rules, emissions = grammar.tables()
    words = emissions[0].T[x.tokens]
    if kind == "by sentence":
        tables = (root.expand(2, -1), rules.expand(2, -1, -1, -1), words)
        potentials = SentencePotentials.from_tables(*tables, x.lengths)
    else:  # a child on the left says as good as nothing of that on the right
        left, right = (rules[0].logsumexp(axis) for axis in (2, 1))
        potentials = FactoredPotentials.from_tables(root, left, right, words, x.lengths)
    found = log_partition(potentials)
    exact = log_partition(potentials.double())
    assert found.tolist() == pytest.approx(exact.tolist(), rel=1e-5)
    assert exact[0] > -500 and found.dtype == torch.float32
    trees, scores = sample_trees(potentials, inside(potentials), 3)
    assert torch.isfinite(scores).all() and trees.samples == 3
    marginals = span_marginals(potentials)
    assert marginals.sum((1, 2, 3)).tolist() == pytest.approx([24, 5], rel=1e-4)


#: each as improbable as float32 can hold, not so their product
TINY = """S -> A Q [1e-16] | X X [1]
A -> 'a' [1e-16] | 'b' [1]
Q -> 'q' [1e-16] | 'r' [1]
X -> 'x' [1e-50] | 'a' [0.5] | 'y' [0.5]
"""


def test_improbable_rules_and_words(tmp_path):
    (tmp_path / "tiny.pcfg").write_text(TINY)
    grammar = TabularGrammar(tmp_path / "tiny.pcfg")
    index = grammar.vocabulary.index
    x = Sentences.from_lists([[index("a"), index("q")], [index("x"), index("y")]])
    true = pytest.approx([3 * math.log(1e-16), math.log(0.5e-50)], rel=1e-5)
    assert grammar.log_marginal(x).tolist() == true
    given = grammar.given(x)
    trees = given.best_trees()
    assert grammar.log_joint(x, trees)[:, 0].tolist() == true
    assert grammar.given(x).collapsed_log_joint(trees)[:, 0].tolist() == true
    assert grammar.span_marginals(x).sum((1, 2, 3)).tolist() == pytest.approx([1, 1])
    assert grammar.in_support(x).all()

"""The top-down policy of rules that choose their children apart."""

import pytest
import torch
from brute import all_trees
from sharp_grammar import LABELS, SENTENCES, WORDS, compare, e_train
from tree_space_cases import TestTopDown as TopDownCase
from tree_space_cases import shake

from gfnem.objectives import VarGrad
from gfnem.parsing import Sentences, SimplePCFG, TopDownPolicy, TopDownSpace
from gfnem.parsing.inference.factored import FactoredPotentials
from gfnem.parsing.inference.inside import inside
from gfnem.parsing.inference.look_ahead import ChartLookAhead


class SharpSimplePCFG(SimplePCFG):
    """Rule probabilities far from uniform."""

    def tables(self):
        root, rules, emissions = super().tables()
        rules = rules.each(lambda side: (side * 6).log_softmax(1))
        return (root * 4).log_softmax(0), rules, (emissions * 6).log_softmax(1)


class TestSamplerOfChildrenApart(TopDownCase):
    """Sampling, scores and flows with the grammar's weights, by the shipped test case."""

    def make_policy(self):
        sampler = shake(TopDownPolicy(6, LABELS, dim=8, corners=True))
        torch.manual_seed(3)
        grammar = SimplePCFG(6, LABELS, 3, dim=8)
        encode = sampler.encode
        sampler.encode = lambda x, given=None: encode(x, given or grammar.given(x))
        return sampler


def test_with_the_inside_values_it_is_the_posterior(monkeypatch):
    torch.manual_seed(0)
    model = SharpSimplePCFG(WORDS, LABELS, 3, dim=16)
    sampler, space = TopDownPolicy(WORDS, LABELS, dim=8, corners=True).eval(), TopDownSpace(LABELS)
    x = Sentences.from_lists([SENTENCES[3]])
    given = model.given(x)

    def exact(spans, level, potentials, *_):
        return ChartLookAhead(inside(potentials))

    monkeypatch.setattr(sampler.value, "rows", exact)
    with torch.no_grad():
        context = sampler.encode(x, given)
        trees = all_trees(5, LABELS)
        scores = sampler.score(context, space, sampler.retrace(context, x, space, trees))
        log_p = given.log_joint(trees) - given.log_marginal()[:, None]
    torch.testing.assert_close(scores.log_pf.sum(2), log_p)
    torch.testing.assert_close(scores.log_z, given.log_marginal())


@pytest.mark.slow
def test_the_sampler_becomes_the_posterior_of_children_apart():
    torch.manual_seed(0)
    model = SharpSimplePCFG(WORDS, LABELS, 3, dim=16)
    sampler, space = TopDownPolicy(WORDS, LABELS, dim=32, corners=True).eval(), TopDownSpace(LABELS)
    x = Sentences.from_lists(SENTENCES)
    before = compare(sampler, space, model, x, 3)["distance"]
    e_train(sampler, space, model, x, VarGrad(), 150)
    found = compare(sampler, space, model, x, 3)
    assert found["distance"] < 0.05 < before
    assert abs(found["vargrad_log_z"]) < 0.03


def test_no_table_grows_with_the_square_of_the_symbols(monkeypatch):
    def refused(*_):
        raise AssertionError("a table with a cell for each pair of children")

    for name in ("rules", "leaf_tables"):
        monkeypatch.setattr(FactoredPotentials, name, property(refused), raising=False)
    torch.manual_seed(0)
    model = SimplePCFG(WORDS, 40, 50, dim=8)
    x = Sentences.from_lists(SENTENCES)
    sampler, space = TopDownPolicy(WORDS, 40, dim=8, corners=True), TopDownSpace(40)
    given = model.given(x)
    context = sampler.encode(x, given)
    drawn = sampler.sample(context, x, space, 4)
    scores = sampler.score(context, space, drawn, flows=True)
    scores.log_pf.sum().backward()
    given.log_marginal().sum().backward()
    given.best_trees(), given.span_marginals(), given.collapsed_log_joint(drawn.latent)
    model.expected_uses(x), model.length_weights(5), model.in_support(x), model.sample(5)

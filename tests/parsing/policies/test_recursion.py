"""The look-ahead that is built from narrow spans to wide ones, against the inside algorithm."""

import pytest
import torch
from tree_space_cases import TestTopDown as TopDownCase
from tree_space_cases import shake

from gfnem.parsing import (
    RNNG,
    NeuralPCFG,
    RecursionPolicy,
    Sentences,
    SimplePCFG,
    TopDownPolicy,
    TopDownSpace,
)
from gfnem.parsing.inference.inside import inside
from gfnem.parsing.policies.recursion import Recursion
from gfnem.posterior import Posterior

LABELS, TAGS, WORDS, RANK = 4, 3, 6, 2
X = Sentences.from_lists([[1, 2, 3, 4, 5, 1, 2], [3, 1], [2, 4, 4, 1, 5], [1]])


def low_rank(recursion):
    """A grammar whose rules with two phrases are such products."""
    torch.manual_seed(0)
    grammar = NeuralPCFG(WORDS, LABELS, TAGS, 8).eval().requires_grad_(False)
    root, rules, words = grammar.tables()
    parent, left, right = (
        (8.0 * part).softmax(1)
        for part in (recursion.of_parent, recursion.of_left, recursion.of_right)
    )
    mass = torch.linspace(0.2, 0.6, LABELS)
    phrases = torch.einsum("ar,rb,rc,a->abc", parent, left, right, mass)
    rules = rules.exp()
    rules[:, :LABELS, :LABELS] = 0
    rules = rules / rules.sum((1, 2), keepdim=True) * (1 - mass)[:, None, None]
    rules[:, :LABELS, :LABELS] = phrases
    grammar.tables = lambda: (root, rules.log(), words)
    return grammar


def test_it_is_the_inside_algorithm_where_rules_are_such_products():
    torch.manual_seed(1)
    recursion = Recursion(LABELS, RANK)
    potentials = low_rank(recursion).potentials(X)
    spans, weights = torch.randn(2, len(X), X.max_length, X.max_length + 1)
    for extra in (None, spans):
        added = None if extra is None else extra[..., None].expand(-1, -1, -1, LABELS)
        charts = inside(potentials, added).squeeze(3), recursion(potentials, extra)
        possible = charts[0] > -1e3
        exact, found = (chart[possible] for chart in charts)
        torch.testing.assert_close(found, exact, atol=1e-4, rtol=1e-4)
        assert (charts[1][~possible] <= -1e3).all()
        weighted = weights[..., None].expand_as(possible)[possible]
        for right, own in zip(
            torch.autograd.grad(
                (exact * weighted).sum(), recursion.parameters(), retain_graph=True
            ),
            torch.autograd.grad((found * weighted).sum(), recursion.parameters()),
            strict=True,
        ):
            torch.testing.assert_close(own, right, atol=1e-4, rtol=1e-3)


def test_it_is_the_inside_algorithm_of_children_that_are_chosen_apart():
    """Such rules are products of as many ranks as there are labels."""
    torch.manual_seed(2)
    potentials = SimplePCFG(WORDS, LABELS, TAGS, dim=8).potentials(X)
    recursion = Recursion(LABELS, LABELS)
    parts = recursion.of_parent, recursion.of_left, recursion.of_right
    rules = 4.0 * torch.eye(LABELS), *(table / 8.0 for table in potentials.inner)
    for part, table in zip(parts, rules, strict=True):
        part.data.copy_(table)
    exact, found = inside(potentials).squeeze(3), recursion(potentials)
    possible = exact > -1e3
    torch.testing.assert_close(found[possible], exact[possible], atol=1e-4, rtol=1e-4)
    assert (found[~possible] <= -1e3).all()


class TestRecursionPolicy(TopDownCase):
    """Sampling, scores and flows, by the shipped test case."""

    def make_policy(self):
        sampler = shake(RecursionPolicy(2, rank=RANK))
        torch.manual_seed(3)
        grammar = NeuralPCFG(6, 2, TAGS, 8)
        encode = sampler.encode
        sampler.encode = lambda x, given=None: encode(x, given or grammar.given(x))
        return sampler


@pytest.mark.parametrize("network", [True, False])
def test_marginals_of_spans_are_then_exact(network):
    torch.manual_seed(1)
    policy = RecursionPolicy(LABELS, rank=RANK)
    if network:
        policy = TopDownPolicy(WORDS, LABELS, dim=8, recursion=RANK).eval()
    grammar = low_rank(policy.recursion)
    policy.serve(grammar)
    found = Posterior(grammar, TopDownSpace(LABELS), policy, X).marginal()
    exact = grammar.span_marginals(X).sum(3)
    torch.testing.assert_close(found, exact, atol=1e-4, rtol=0)


def test_all_its_weights_learn_and_padding_does_not_matter():
    torch.manual_seed(1)
    policy = TopDownPolicy(WORDS, LABELS, dim=8, dropout=0.0, recursion=RANK)
    grammar = NeuralPCFG(WORDS, LABELS, TAGS, 8)
    policy.serve(grammar)
    grammar.requires_grad_(False)
    given = grammar.given(X)
    context = policy.encode(X, given)
    policy.log_z(context).sum().backward()
    for parameter in policy.recursion.parameters():
        assert parameter.grad.abs().sum() > 0
    alone = policy.log_z(policy.encode(X[2:3], grammar.given(X[2:3])))
    torch.testing.assert_close(policy.log_z(context)[2:3], alone)


def test_where_the_rules_are_not_followed_there_is_none():
    with pytest.raises(ValueError, match="do not look at parents"):
        TopDownPolicy(WORDS, LABELS, contexts=3, recursion=RANK)
    assert TopDownPolicy(WORDS, LABELS, use_prior=False, recursion=RANK).recursion is None
    with pytest.raises(ValueError, match="do not look at parents"):
        RecursionPolicy(LABELS, contexts=3)
    with pytest.raises(ValueError, match="offers no potentials"):
        RecursionPolicy(LABELS).serve(RNNG(WORDS, dim=8))

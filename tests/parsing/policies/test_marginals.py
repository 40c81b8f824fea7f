"""Marginals of spans from the top-down sampler's flows, against every tree and inside-outside."""

import pytest
import torch
from sharp_grammar import LABELS, SENTENCES, WORDS
from tree_space_cases import shake

from gfnem.enumeration import enumerate_states, enumerate_trajectories
from gfnem.offers import NotOffered
from gfnem.parsing import NeuralPCFG, Sentences, SimplePCFG, TopDownPolicy, TopDownSpace
from gfnem.parsing.inference.choices import RuleChoices
from gfnem.parsing.inference.inside import inside
from gfnem.posterior import Posterior

SPACE = TopDownSpace(LABELS)


def parts(kind=NeuralPCFG):
    torch.manual_seed(0)
    grammar = kind(WORDS, LABELS, 3, dim=8).eval()
    policy = TopDownPolicy(WORDS, LABELS, dim=8).eval()
    policy.serve(grammar)
    return grammar, policy


@pytest.mark.parametrize("kind", [NeuralPCFG, SimplePCFG])
def test_they_are_those_of_every_tree_that_may_be_drawn(kind):
    grammar, policy = parts(kind)
    shake(policy)
    x = Sentences.from_lists(SENTENCES)
    posterior = Posterior(grammar, SPACE, policy, x)
    found = posterior.marginal()
    every = enumerate_trajectories(SPACE, x)
    trees = every.trajectories.latent
    with torch.no_grad():
        log_pf = policy.score(posterior.context, SPACE, every.trajectories).log_pf.sum(2)
    chance = log_pf.exp() * every.valid
    expected = torch.zeros_like(found)
    for row, node in torch.cartesian_prod(
        torch.arange(len(x)), torch.arange(trees.left.shape[2])
    ).tolist():
        there = trees.mask()[row, :, node]
        place = trees.left[row, there, node], trees.right[row, there, node]
        expected[row].index_put_(place, chance[row, there], accumulate=True)
    assert torch.allclose(found, expected, atol=1e-5)
    assert torch.allclose(found.sum((1, 2)), (x.lengths - 1).float(), atol=1e-4)


@pytest.mark.parametrize("kind", [NeuralPCFG, SimplePCFG])
def test_with_the_inside_chart_they_are_the_grammars(kind):
    grammar, policy = parts(kind)
    x = Sentences.from_lists(SENTENCES)
    posterior = Posterior(grammar, SPACE, policy, x)

    potentials = posterior.given.potentials
    posterior.context = RuleChoices.from_chart(potentials, inside(potentials).detach())
    exact = grammar.span_marginals(x).sum(3)
    assert torch.allclose(posterior.marginal(), exact, atol=1e-4)


@pytest.mark.parametrize("sentence", [[1, 2, 3], [3, 1, 2, 4]])
def test_flows_of_partial_trees_are_sums_over_derivations(sentence):
    # what a partial derivation has used, times the inside values of its open nodes
    grammar, policy = parts()
    x = Sentences.from_lists([sentence])
    graph = enumerate_states(SPACE, x)
    with torch.no_grad():
        log_reward = grammar.log_joint(x, graph.latents())[0].double()
    flow = graph.log_flow(log_reward)
    assert len(graph.parent) == len(graph) - 1, "it is a tree: P_B is 1"
    assert flow[0].item() == pytest.approx(grammar.log_marginal(x).item(), abs=1e-4)

    potentials = grammar.given(x).potentials
    context = RuleChoices.from_chart(potentials, inside(potentials).detach())
    with torch.no_grad():
        learned = policy(context, graph.states).log_flow[0].double()
    assert torch.allclose(learned, flow, atol=1e-3)


def test_where_rules_depend_on_the_context_they_are_not_offered():
    policy = TopDownPolicy(WORDS, LABELS, dim=8, contexts=2)
    assert not policy.offers("marginals") and parts()[1].offers("marginals")
    with pytest.raises(NotOffered, match="depend on the context"):
        policy.marginals(None)

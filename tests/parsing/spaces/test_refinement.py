"""Refinement of trees: chains from one tree reach the exact posterior with a shaken policy."""

from collections import Counter

import pytest
import torch
from brute import all_trees, keys
from statistics_of_chains import chi_square

from gfnem.parsing import (
    ForestPolicy,
    ForestSpace,
    NeuralPCFG,
    Sentences,
    TopDownPolicy,
    TopDownSpace,
)
from gfnem.refinement import refine

LABELS, WORDS, CHAINS = 2, 8, 800


class SharperPCFG(NeuralPCFG):
    """Rule probabilities squared, so that some trees are much better than others."""

    def tables(self):
        root, rules, emissions = super().tables()
        rules = (rules * 2).flatten(1).log_softmax(1).view_as(rules)
        return (root * 2).log_softmax(0), rules, (emissions * 2).log_softmax(1)


def chains(space, policy, back, proposals, exact=False):
    """Of chains from one improbable tree, or exact samples: chi-square statistic and quantile.

    Third, the share of proposals that were accepted.
    """
    torch.manual_seed(0)
    model, x = SharperPCFG(WORDS, LABELS, 3, dim=16), Sentences.from_lists([[7, 3, 2, 6]])
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter.add_(0.15 * torch.randn_like(parameter))
        context = policy.encode(x, model.given(x))
        trees = all_trees(4, LABELS)
        log_joint = model.log_joint(x, trees)
        first = log_joint[0].argmin().expand(CHAINS)
        if exact:
            first = log_joint[0].softmax(0).multinomial(CHAINS, replacement=True)
        start = trees.take(first[None])
        z, value, accepted = refine(policy, context, model.given(x), space, start, proposals, back)
        assert torch.allclose(value, model.log_joint(x, z), atol=1e-4)
    probabilities = dict(zip(keys(trees), log_joint[0].softmax(0).tolist(), strict=True))
    return *chi_square(Counter(keys(z)), probabilities), accepted.mean()


@pytest.mark.slow
@pytest.mark.parametrize("back", [3, 1.0])
def test_forest_chains_reach_the_posterior(back):
    policy = ForestPolicy(WORDS, LABELS, dim=8)
    statistic, quantile, accepted = chains(ForestSpace(LABELS), policy, back, 60)
    assert statistic < quantile
    assert 0 < accepted < 1


@pytest.mark.slow
@pytest.mark.parametrize("back", [1, 2, 0.6])
def test_forest_chains_leave_the_posterior_as_it_is(back):
    """Short ways back mix slowly, so these chains start where they ought to stay."""
    policy = ForestPolicy(WORDS, LABELS, dim=8)
    statistic, quantile, accepted = chains(ForestSpace(LABELS), policy, back, 15, exact=True)
    assert statistic < quantile
    assert 0 < accepted < 1


@pytest.mark.slow
def test_top_down_chains_reach_the_posterior():
    policy = TopDownPolicy(WORDS, LABELS, dim=8).eval()
    statistic, quantile, accepted = chains(TopDownSpace(LABELS), policy, 1.0, 60)
    assert statistic < quantile
    assert 0 < accepted < 1


@pytest.mark.slow
def test_forest_chains_without_the_backward_ratio_do_not(monkeypatch):
    """The same chains, told that there is one way back: found out."""
    policy = ForestPolicy(WORDS, LABELS, dim=8)
    monkeypatch.setattr(
        "gfnem.refinement._log_probability_of", lambda a, w, m: torch.zeros(a.shape)
    )
    statistic, quantile, accepted = chains(ForestSpace(LABELS), policy, 1.0, 60)
    assert statistic > quantile
    assert accepted > 0

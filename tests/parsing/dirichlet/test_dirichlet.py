"""Trees whose rules are unknown: the shipped proofs, and the evidence by other means."""

import math

import pytest
import torch

from gfnem.em import EM
from gfnem.objectives import BalancedVarGrad, TrajectoryBalance
from gfnem.parsing.dirichlet.ahead import log_ahead
from gfnem.parsing.dirichlet.model import DirichletGrammar
from gfnem.parsing.dirichlet.policy import AnalysesPolicy
from gfnem.parsing.dirichlet.space import AnalysesSpace
from gfnem.posterior import Posterior
from gfnem.rates import Descent, Rates
from gfnem.recipes import posterior
from gfnem.schedules import Anneal
from gfnem.testing import LatentSpaceTestCase, PolicyTestCase, TargetTestCase

#: two data sets of two sentences; -1 is past the end
SENTENCES = torch.tensor([[[0, 1, 2], [2, 1, -1]], [[1, 0, -1], [2, 2, -1]]])
SIZES = (2, 2, 3)


def a_policy():
    return AnalysesPolicy(*SIZES, sentences=2, length=3, hidden=8)


def trees(length):
    """How many labelled trees there are over so many words."""
    shapes = math.comb(2 * length - 2, length - 1) // length
    return shapes * 2 ** (length - 1) * 2**length


class TestAnalysesSpace(LatentSpaceTestCase):
    def make_space(self):
        return AnalysesSpace(*SIZES)

    def make_x(self):
        return SENTENCES

    def make_policy(self):
        policy = a_policy()
        torch.nn.init.normal_(policy.last.weight, std=0.3)
        return policy

    def count_objects(self, row):
        return math.prod(trees(length) for length in ((3, 2), (2, 2))[row])

    count_trajectories = count_objects


class TestDirichletGrammar(TargetTestCase):
    def make_target(self):
        return DirichletGrammar(*SIZES)

    def make_x(self):
        return SENTENCES

    def make_space(self):
        return AnalysesSpace(*SIZES)

    def make_latents(self, x):
        rows = [AnalysesSpace(*SIZES).every(row)[:60:7] for row in x.split(1)]
        return torch.stack(rows)

    def enumerate_latents(self, x):
        return AnalysesSpace(*SIZES).every(x)[None]


class TestAnalysesPolicy(PolicyTestCase):
    def make_policy(self):
        return a_policy()

    def make_target(self):
        return DirichletGrammar(*SIZES)

    def make_space(self):
        return AnalysesSpace(*SIZES)

    def make_x(self):
        return SENTENCES

    def make_objectives(self):
        return BalancedVarGrad(), TrajectoryBalance()


def test_the_joint_is_an_urn_for_each_left_hand_side():
    model = DirichletGrammar(*SIZES, alpha=0.5)
    # the first sentence ((0 1) 2) with preterminals 0 1 0 and nonterminals 0 1, then (2 1)
    z = torch.tensor([[[0, 1, 2, 0, 3, 1, 1, 2, -1, -1]]])
    uses = [
        ("root", 1, 2), ("N0", (0, 1), 16), ("N1", ("N0", 0), 16), ("T0", 0, 3), ("T1", 1, 3),
        ("T0", 2, 3), ("root", 0, 2), ("N0", (1, 1), 16), ("T1", 2, 3), ("T1", 1, 3),
    ]  # fmt: skip
    total, seen = 0.0, {}
    for group, rule, size in uses:
        before = seen.setdefault(group, [])
        total += math.log((before.count(rule) + 0.5) / (len(before) + 0.5 * size))
        before.append(rule)
    assert float(model.log_joint(SENTENCES[:1], z)) == pytest.approx(total, abs=1e-4)


def test_what_is_ahead_is_a_sum_over_completions():
    """With rules that no use changes any more, the inside pass is exact."""
    model, space, policy = DirichletGrammar(*SIZES, alpha=300.0), AnalysesSpace(*SIZES), a_policy()
    torch.manual_seed(0)
    for row in SENTENCES.split(1):
        context = policy.encode(row, model.given(row))
        states = policy.sample(context, row, space, 6).states
        every = space.every(row)
        log_p = model.log_joint(row, every[None])[0]
        for state in states:
            found = model.log_counts(state.counts) + log_ahead(model, state)
            for sample in range(6):
                done = state.actions[0, sample]
                fits = ((every == done) | (done < 0)).all(1)
                assert float(found[0, sample]) == pytest.approx(
                    float(log_p[fits].logsumexp(0)), abs=0.1
                )


def test_the_table_is_the_joint_of_every_set_of_trees():
    model = DirichletGrammar(*SIZES)
    for row in SENTENCES.split(1):
        joint = model.log_joint(row, model.space.every(row)[None])[0]
        assert torch.allclose(model.log_table(row), joint, atol=1e-4)


def test_rules_are_drawn_by_their_counts():
    torch.manual_seed(0)
    model = DirichletGrammar(*SIZES)
    z = model.sample_posterior(SENTENCES, 1).expand(-1, 4000, -1)
    counts = model.space.final_state(SENTENCES, z[:, :1]).counts
    drawn = model.sample_parameters(SENTENCES, z)
    assert torch.allclose(model.totals(drawn), torch.ones(()), atol=1e-5)
    expected = model.predictive(counts).exp()[:, 0]
    assert (drawn.mean(1) - expected).abs().max() < 0.03


def test_a_single_word_is_refused():
    with pytest.raises(ValueError, match="one word"):
        AnalysesSpace(*SIZES).initial_state(torch.tensor([[[1, -1, -1]]]), 1)


def test_too_many_trees_are_not_listed():
    with pytest.raises(ValueError, match="too many"):
        AnalysesSpace(*SIZES).every(torch.zeros(1, 3, 4, dtype=torch.long))


@pytest.mark.slow
def test_the_sampler_finds_the_trees():
    torch.manual_seed(0)
    x = SENTENCES[:1]
    model, space = DirichletGrammar(*SIZES, alpha=0.5), AnalysesSpace(*SIZES)
    policy = AnalysesPolicy(*SIZES, sentences=2, length=3, hidden=64)
    em = EM(model, space, policy, posterior(BalancedVarGrad(), samples=64))
    descent = Descent(em, Rates(policy=Anneal(0.015, 0.001, 40)))
    p, every = model.log_table(x).softmax(0), space.every(x)

    def apart():
        q = Posterior(model, space, policy, x).log_prob(every[None])[0].exp()
        return float((p - q).abs().sum() / 2)

    before = apart()
    for _ in range(40):
        descent.update(x)
    assert apart() < min(0.04, before / 2)

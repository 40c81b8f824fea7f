"""Assignments of all points at once: the shipped proofs, and the evidence by other means."""

import math

import pytest
import torch
from torch.distributions import MultivariateNormal

from gfnem.em import EM
from gfnem.mixtures.assignments import (
    ClusterPosterior,
    LabelPolicy,
    Labels,
    LabelSpace,
    mean_field,
)
from gfnem.objectives import BalancedVarGrad, TrajectoryBalance
from gfnem.posterior import Posterior
from gfnem.rates import Descent, Rates
from gfnem.recipes import posterior
from gfnem.schedules import Anneal
from gfnem.testing import LatentSpaceTestCase, PolicyTestCase, TargetTestCase


def data_sets(points: int = 4):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, points, 2, generator=generator)
    x[:, ::2] += 3
    return x


class TestLabelSpace(LatentSpaceTestCase):
    def make_space(self):
        return LabelSpace(3)

    def make_x(self):
        return data_sets()

    def make_policy(self):
        policy = LabelPolicy(4, 3, 2, 8)
        torch.nn.init.normal_(policy.choice.weight)
        return policy

    def count_objects(self, row):
        return 3**4

    count_trajectories = count_objects


class TestClusterPosterior(TargetTestCase):
    def make_target(self):
        return ClusterPosterior(3)

    def make_x(self):
        return data_sets()

    def make_space(self):
        return LabelSpace(3)

    def make_latents(self, x):
        return ClusterPosterior(3).every(x)[::7].expand(2, -1, -1)

    def enumerate_latents(self, x):
        return ClusterPosterior(3).every(x)[None]


class TestLabelPolicy(PolicyTestCase):
    def make_policy(self):
        return LabelPolicy(4, 3, 2, 8)

    def make_target(self):
        return ClusterPosterior(3)

    def make_space(self):
        return LabelSpace(3)

    def make_x(self):
        return data_sets()

    def make_objectives(self):
        return BalancedVarGrad(), TrajectoryBalance()


def test_the_evidence_is_a_normal_density_times_a_urn():
    model, x = ClusterPosterior(3, sd=0.7, spread=2.0, alpha=0.5), data_sets(5).double()
    z = torch.tensor([0, 1, 0, 0, 1])
    total = 0.0
    for cluster in (0, 1):
        rows = x[0][z == cluster]
        covariance = 0.49 * torch.eye(len(rows)) + 4.0
        normal = MultivariateNormal(torch.zeros(len(rows)).double(), covariance.double())
        total += sum(float(normal.log_prob(rows[:, d])) for d in (0, 1))
    counts, done = [0, 0, 0], 0
    for label in z.tolist():  # Polya's urn
        total += math.log((counts[label] + 0.5) / (done + 1.5))
        counts[label], done = counts[label] + 1, done + 1
    found = model.log_joint(x[:1], z[None, None])
    assert float(found) == pytest.approx(total, abs=1e-4)


def test_without_learning_the_first_choice_is_the_predictive():
    model, x = ClusterPosterior(2), data_sets()
    policy = LabelPolicy(4, 2, 2, 8)
    state = Labels(torch.tensor([[[0, 1, 0, -1]]]).expand(2, 1, -1))
    logits = policy(policy.encode(x, model.given(x)), state).forward[:, 0]
    both = torch.tensor([[0, 1, 0, 0], [0, 1, 0, 1]]).expand(2, -1, -1)
    assert torch.allclose(logits.log_softmax(1), model.log_joint(x, both).log_softmax(1), atol=1e-5)


def test_relabelled_assignments_are_scored_alike():
    model, x, policy = ClusterPosterior(3), data_sets(), LabelPolicy(4, 3, 2, 8)
    torch.nn.init.normal_(policy.choice.weight)
    context, order = policy.encode(x, model.given(x)), torch.tensor([2, 0, 1])
    label = torch.tensor([0, 2, 2]).expand(2, 1, -1)
    one, other = (
        policy(context, Labels(torch.nn.functional.pad(part, (0, 1), value=-1)))
        for part in (label, order[label])
    )
    assert torch.allclose(one.forward, other.forward[..., order], atol=1e-4)
    assert torch.allclose(one.log_flow, other.log_flow, atol=1e-4)


def test_parameters_are_drawn_around_their_clusters():
    torch.manual_seed(0)
    model, x = ClusterPosterior(2, sd=0.1), data_sets()
    z = torch.tensor([0, 1, 0, 1]).expand(2, 50, -1)
    means, shares = model.sample_parameters(x, z)
    assert means.shape == (2, 50, 2, 2) and torch.allclose(shares.sum(2), torch.ones(2, 50))
    assert (means.mean(1)[:, 0] - x[:, ::2].mean(1)).abs().max() < 0.1


@pytest.mark.slow
def test_the_sampler_finds_every_relabelling_where_mean_field_finds_one():
    torch.manual_seed(0)
    model, space, x = ClusterPosterior(3), LabelSpace(3), data_sets(5)[:1]
    policy = LabelPolicy(5, 3, 2, 64)
    em = EM(model, space, policy, posterior(BalancedVarGrad(), samples=48))
    descent = Descent(em, Rates(policy=Anneal(0.02, 0.001, 150)))
    for _ in range(150):
        descent.update(x)
    every, p = model.every(x), model.log_table(x).softmax(1)[0]
    q = Posterior(model, space, policy, x).log_prob(every[None])[0].exp()
    assert float((p - q).abs().sum() / 2) < 0.05
    alone = mean_field(model, x[0])
    product = torch.stack([alone[at, every[:, at]] for at in range(5)]).prod(0)
    assert float((p - product).abs().sum() / 2) > 0.2

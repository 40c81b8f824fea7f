"""Graphs with weights: evidence, conditionals and the sampler's joint density, by other means."""

import math

import pytest
import torch
from torch.distributions import MultivariateNormal

from gfnem.em import EM
from gfnem.graphs.completion import CompletedPolicy
from gfnem.graphs.dags import every_dag, parent_sets
from gfnem.graphs.layer_policy import LayerPolicy
from gfnem.graphs.layers import LayerSpace
from gfnem.graphs.measures import joint_divergences
from gfnem.graphs.model import DagPosterior
from gfnem.graphs.tables import Tables
from gfnem.graphs.weights import KnownNoise, Weighted, WeightedPosterior, log_predictive
from gfnem.objectives import BalancedVarGrad
from gfnem.posterior import Posterior
from gfnem.rates import Descent, Rates
from gfnem.recipes import posterior
from gfnem.schedules import Anneal
from gfnem.testing import PolicyTestCase, TargetTestCase


def a_table(n: int = 3, rows: int = 12):
    generator = torch.Generator().manual_seed(0)
    values = torch.randn(rows, n, generator=generator, dtype=torch.float64)
    values[:, 1] = 0.8 * values[:, 0] + 0.3 * values[:, 1]
    return Tables.of([values])


def some_graphs(x, model):
    torch.manual_seed(0)
    graphs = every_dag(model.variables)[::5][None].expand(len(x), -1, -1, -1)
    return model.complete(x, graphs)


class TestWeightedPosterior(TargetTestCase):
    def make_target(self):
        return WeightedPosterior(3)

    def make_x(self):
        return a_table()

    def make_latents(self, x):
        return some_graphs(x, WeightedPosterior(3))


class TestCompletedPolicy(PolicyTestCase):
    def make_policy(self):
        return CompletedPolicy(LayerPolicy(3, hidden=8), 3)

    def make_target(self):
        return WeightedPosterior(3)

    def make_space(self):
        return LayerSpace(3)

    def make_x(self):
        return a_table()

    samples = 64
    steps = 4


def test_the_evidence_is_a_normal_density():
    x, noise = a_table(), 0.3
    table = KnownNoise(noise).table(x)[0]
    values = x.values[0]
    for node, parents in ((0, []), (1, [0]), (2, [0, 1])):
        columns = values[:, parents]
        covariance = noise * torch.eye(12, dtype=torch.float64) + columns @ columns.T
        zero = torch.zeros(12, dtype=torch.float64)
        expected = MultivariateNormal(zero, covariance).log_prob(values[:, node])
        number = int(parent_sets(3).lookup[sum(1 << p for p in parents)])
        assert float(table[node, number]) == pytest.approx(float(expected), abs=1e-9)


def test_joint_is_evidence_times_conditional():
    model, x = WeightedPosterior(3), a_table()
    z = some_graphs(x, model)
    mean, covariance = model.conditional(x, z.adjacency)
    joint, collapsed = model.log_joint(x, z), model.collapsed_log_joint(x, z)
    assert torch.allclose(collapsed, DagPosterior(3, KnownNoise()).log_joint(x, z.adjacency))
    for at in range(z.adjacency.shape[1]):
        total = collapsed[0, at]
        for child in range(3):
            parents = z.adjacency[0, at, :, child].nonzero()[:, 0]
            if len(parents):
                own = covariance[0, at, child][parents][:, parents]
                normal = MultivariateNormal(mean[0, at, child, parents], own)
                total = total + normal.log_prob(z.weights[0, at, parents, child])
        assert float(joint[0, at]) == pytest.approx(float(total), abs=1e-8)


def test_exact_draws_weigh_the_same():
    """`p(D, G, W) / (p(G|D) p(W|G,D))` is `p(D)` for every draw."""
    torch.manual_seed(0)
    model, x = WeightedPosterior(3), a_table()
    z = model.sample_posterior(x, 30)
    mean, covariance = model.conditional(x, z.adjacency)
    spread = torch.stack([model.complete(x, z.adjacency).weights for _ in range(600)])
    assert (spread.mean(0).mT - mean).abs().max() < 0.1
    own = covariance.diagonal(dim1=-2, dim2=-1)
    assert torch.allclose(spread.var(0).mT, own, rtol=0.5, atol=1e-4)


def test_effects_are_sums_over_paths():
    weights = torch.zeros(1, 1, 4, 4, dtype=torch.float64)
    weights[0, 0, 0, 1], weights[0, 0, 1, 3] = 2.0, 3.0
    weights[0, 0, 0, 2], weights[0, 0, 2, 3] = -1.0, 0.5
    effects = Weighted(weights != 0, weights).effects()[0, 0]
    assert float(effects[0, 3]) == pytest.approx(2 * 3 - 0.5)
    assert effects[3, 0] == 0 and effects[0, 0] == 1


def test_predictions_average_densities():
    model, x, new = WeightedPosterior(3), a_table(), a_table(rows=2)
    torch.manual_seed(0)
    z = model.sample_posterior(x, 4)
    found = log_predictive(z, new, 0.1)[0]
    total = torch.zeros(2, dtype=torch.float64)
    for at in range(4):
        error = new.values[0] - new.values[0] @ z.weights[0, at]
        total += (-(error.square() / 0.1 + math.log(2 * math.pi * 0.1)) / 2).sum(1).exp() / 4
    assert torch.allclose(found, total.log())


def test_the_density_of_weights_is_that_of_a_normal():
    torch.manual_seed(0)
    policy, x = CompletedPolicy(LayerPolicy(3, hidden=8), 3), a_table()
    with torch.no_grad():
        policy.shift += 0.5 * torch.randn_like(policy.shift)
        policy.factor += 0.3 * torch.randn_like(policy.factor)
    model, space = WeightedPosterior(3), LayerSpace(3)
    context = policy.encode(x, model.given(x))
    found = policy.sample(context, x, space, 8)
    z = found.latent
    mean, factor = policy.normal(context, z.adjacency)
    for at in range(8):
        total = 0.0
        for child in range(3):
            parents = z.adjacency[0, at, :, child].nonzero()[:, 0]
            if len(parents):
                covariance = (factor[0, at, child] @ factor[0, at, child].T)[parents][:, parents]
                centre = mean[0, at, child, parents].detach()
                normal = MultivariateNormal(centre, covariance.detach())
                total += float(normal.log_prob(z.weights[0, at, parents, child]))
        density = float(policy.log_density(context, z)[0, at].sum().detach())
        assert density == pytest.approx(total, abs=1e-3)
    scores = policy.score(context, space, found, flows=True)
    assert torch.allclose(scores.log_pf.sum(2), found.log_behaviour, atol=1e-3)


def test_the_start_is_exact_where_parents_are_correlated():
    """What `curvature` reads is all there is to know of linear families."""
    model, x = WeightedPosterior(3), a_table()
    policy = CompletedPolicy(LayerPolicy(3, hidden=8), 3)
    posterior = Posterior(model, LayerSpace(3), policy, x)
    assert joint_divergences(posterior, model, x)["kl_weights"] == pytest.approx(0, abs=1e-6)


def test_the_start_leaves_out_rows_that_were_set_by_hand():
    model, x = WeightedPosterior(3), a_table()
    x.hand[0, ::2, 2] = True
    policy, graphs = CompletedPolicy(LayerPolicy(3, hidden=8), 3), every_dag(3)[None]
    mean, lower = policy.normal(policy.encode(x, model.given(x)), graphs)
    exact, covariance = model.conditional(x, graphs)
    assert torch.allclose(mean, exact)
    parent = graphs.mT
    both = parent[..., :, None] & parent[..., None, :]
    assert torch.allclose(
        (lower @ lower.mT).masked_fill(~both, 0), covariance.masked_fill(~both, 0)
    )


@pytest.mark.slow
def test_training_finds_graphs_and_weights():
    torch.manual_seed(0)
    model, x, space = WeightedPosterior(3), a_table(rows=20), LayerSpace(3)
    policy = CompletedPolicy(LayerPolicy(3, hidden=32), 3, curvature=False)
    em = EM(model, space, policy, posterior(BalancedVarGrad(), samples=32))
    descent = Descent(em, Rates(policy=Anneal(0.06, 0.004, 70)))

    def gap():
        _, weights = Posterior(model, space, policy, x).log_weights(2000)
        return float(model.log_marginal(x) - weights.mean())

    before = gap()
    for _ in range(70):
        descent.update(x)
    assert gap() < min(0.15, before / 5)
    # the divergence in closed form is what the draws estimate
    found = joint_divergences(Posterior(model, space, policy, x), model, x)
    assert found["kl"] == pytest.approx(gap(), abs=0.05)

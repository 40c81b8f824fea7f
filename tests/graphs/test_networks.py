"""Networks for each variable: evidence, densities and chains by other means."""

import math

import pytest
import torch
from torch.distributions import MultivariateNormal

from gfnem.em import EM
from gfnem.graphs import exact
from gfnem.graphs.annealed import families
from gfnem.graphs.dags import every_dag
from gfnem.graphs.layers import LayerSpace
from gfnem.graphs.network_policy import NetworkPolicy, UnitDensity
from gfnem.graphs.networks import FamilyLikelihood, NetworkPosterior, Networks, regressed
from gfnem.graphs.tables import Tables
from gfnem.graphs.weights import log_predictive
from gfnem.objectives import BalancedVarGrad
from gfnem.posterior import Posterior
from gfnem.rates import Descent, Rates
from gfnem.recipes import posterior
from gfnem.sampling import Exploration
from gfnem.schedules import Anneal
from gfnem.testing import PolicyTestCase, TargetTestCase


def a_table(rows: int = 12, n: int = 3):
    generator = torch.Generator().manual_seed(0)
    values = torch.randn(rows, n, generator=generator, dtype=torch.float64)
    values[:, 1] = torch.tanh(2 * values[:, 0]) + 0.3 * values[:, 1]
    return Tables.of([values])


def some_networks(graphs, units: int = 2):
    """Networks of the prior for graphs `(batch, samples, n, n)`."""
    n, some = graphs.shape[-1], graphs.any(2)[..., None]
    inner = torch.randn(*graphs.shape[:2], n, units, n, dtype=torch.float64)
    bias, outer = torch.randn(2, *graphs.shape[:2], n, units, dtype=torch.float64)
    return Networks(graphs, inner * graphs.mT[..., None, :], bias * some, outer * some)


class TestNetworkPosterior(TargetTestCase):
    def make_target(self):
        return NetworkPosterior(3)

    def make_x(self):
        return a_table()

    def make_latents(self, x):
        return some_networks(every_dag(3)[None, ::4])


class TestNetworkPolicy(PolicyTestCase):
    def make_policy(self):
        return NetworkPolicy(3, hidden=8, components=2, width=4)

    def make_target(self):
        return NetworkPosterior(3)

    def make_space(self):
        return LayerSpace(3)

    def make_x(self):
        return a_table()

    samples = 64


def test_output_weights_are_regressed_as_normals_are():
    torch.manual_seed(0)
    units, noise = torch.randn(6, 2, dtype=torch.float64), 0.3
    target, keep = torch.randn(6, dtype=torch.float64), torch.tensor([1.0, 1, 0, 1, 1, 1]).double()
    mean, factor, evidence = regressed(units, target, keep, noise)
    kept = units[keep > 0]
    covariance = noise * torch.eye(5, dtype=torch.float64) + kept @ kept.T
    zero = torch.zeros(5, dtype=torch.float64)
    expected = MultivariateNormal(zero, covariance).log_prob(target[keep > 0])
    assert float(evidence) == pytest.approx(float(expected), abs=1e-9)
    assert torch.allclose(mean, kept.T @ torch.linalg.solve(covariance, target[keep > 0]))
    inside = torch.eye(2, dtype=torch.float64) - kept.T @ torch.linalg.solve(covariance, kept)
    assert torch.allclose(torch.linalg.inv(factor @ factor.T), inside)


def test_joint_is_collapsed_times_conditional():
    torch.manual_seed(0)
    model, x = NetworkPosterior(3), a_table()
    z = some_networks(every_dag(3)[None, 3::5])
    mean, factor, _ = model.regressed(x, z)
    conditional = MultivariateNormal(mean, precision_matrix=factor @ factor.mT).log_prob(z.outer)
    conditional = (conditional * z.adjacency.any(2)).sum(2)
    assert torch.allclose(model.log_joint(x, z), model.collapsed_log_joint(x, z) + conditional)


def test_families_say_the_same_as_whole_graphs():
    torch.manual_seed(0)
    model, x = NetworkPosterior(3), a_table()
    likelihood = FamilyLikelihood(model, x)
    theta = likelihood.draw(1)
    evidence = likelihood.regressed(theta)[2][:, 0]
    for at, (child, parents) in enumerate(zip(likelihood.child, likelihood.parents, strict=True)):
        graph = torch.zeros(1, 1, 3, 3, dtype=torch.bool)
        graph[0, 0, :, child] = parents
        z = some_networks(graph)
        z.inner[0, 0, child] = model.spread * theta[at, 0, :, :3]
        z.bias[0, 0, child] = theta[at, 0, :, 3]
        assert float(model.regressed(x, z)[2][0, 0, child]) == pytest.approx(float(evidence[at]))


def test_networks_are_evaluated_parent_by_parent():
    torch.manual_seed(0)
    graph = torch.tensor([[0, 1, 1], [0, 0, 1], [0, 0, 0]]).bool()[None, None]
    z, rows = some_networks(graph), torch.randn(1, 4, 3, dtype=torch.float64)
    found = z.means(rows)[0, 0]
    for row in range(4):
        assert found[row, 0] == 0
        for child in (1, 2):
            total = 0.0
            for unit in range(2):
                inside = float(z.bias[0, 0, child, unit])
                for parent in range(child):
                    inside += float(z.inner[0, 0, child, unit, parent] * rows[0, row, parent])
                total += float(z.outer[0, 0, child, unit]) * math.tanh(inside)
            assert float(found[row, child]) == pytest.approx(total)


def test_an_intervention_moves_effects_and_no_causes():
    torch.manual_seed(0)
    graph = torch.tensor([[0, 1, 0], [0, 0, 1], [0, 0, 0]]).bool()[None, None]
    z = some_networks(graph)
    low, high = (z.intervened(4000, 0.01, 1, value).mean(2)[0, 0] for value in (-1.0, 1.0))
    assert low[1] == -1 and high[1] == 1
    assert abs(float(high[0] - low[0])) < 0.02
    means = [z.means(torch.tensor([[[0.0, value, 0.0]]]).double())[0, 0, 0, 2] for value in (-1, 1)]
    assert float(high[2] - low[2]) == pytest.approx(float(means[1] - means[0]), abs=0.02)


def test_effects_of_all_variables_are_those_of_interventions():
    torch.manual_seed(0)
    graph = torch.tensor([[0, 1, 0], [0, 0, 1], [0, 0, 0]]).bool().expand(1, 40, 3, 3)
    one = some_networks(graph[:, :1])
    z = one[:, torch.zeros(40, dtype=torch.long)]
    effects = NetworkPosterior(3, noise=0.01).effects(z)[0].mean(0)
    assert torch.equal(effects.diagonal(), torch.ones(3).double())
    assert effects[[1, 2, 2], [0, 0, 1]].abs().max() < 0.02, "nothing moves its causes"
    means = [z.means(torch.tensor([[[0.0, value, 0.0]]]).double())[0, 0, 0, 2] for value in (0, 1)]
    assert float(effects[1, 2]) == pytest.approx(float(means[1] - means[0]), abs=0.02)


def test_predictions_are_of_networks_too():
    torch.manual_seed(0)
    z, x = some_networks(every_dag(3)[None, :2]), a_table(2)
    assert log_predictive(z, x, 0.1).shape == (1, 2)


def test_the_density_of_units_is_that_of_its_draws():
    """By importance: the mean of a known density over the density of draws is 1."""
    torch.manual_seed(0)
    density = UnitDensity(2, 2, 3, 8)
    with torch.no_grad():
        density.last.normal_(std=0.3)
    graph = torch.tensor([[0, 1], [0, 0]]).bool().expand(1, 6000, 2, 2)
    drawn = density.sample(graph)
    active = density.active(graph)
    assert not active[0, 0, 0].any() and active[0, 0, 1].tolist() == [True, False, True] * 2
    assert (drawn == 0).masked_fill(active, True).all()
    narrow = torch.distributions.Normal(0.0, 0.7).log_prob(drawn)
    weight = (narrow * active).sum(3) - density.log_density(graph, drawn).detach()
    assert float(weight[0, :, 1].exp().mean()) == pytest.approx(1.0, abs=0.1)
    assert (weight[0, :, 0] == 0).all()


def test_units_may_be_renamed_and_turned():
    torch.manual_seed(0)
    density = UnitDensity(2, 2, 3, 8)
    with torch.no_grad():
        density.last.normal_(std=0.3)
    graph = torch.tensor([[0, 1], [0, 0]]).bool().expand(1, 5, 2, 2)
    drawn = density.sample(graph)
    value = density.log_density(graph, drawn)
    for way in range(8):
        other = density.renamed(drawn, torch.full((1, 5, 2), way))
        assert torch.allclose(density.log_density(graph, other), value, atol=1e-4)


def test_draws_that_stray_reach_every_graph():
    torch.manual_seed(0)
    model, x, space = NetworkPosterior(3), a_table(), LayerSpace(3)
    policy = NetworkPolicy(3, hidden=8, components=2, width=4)
    context = policy.encode(x, model.given(x))
    found = policy.sample(context, x, space, 600, Exploration(epsilon=0.8))
    assert len(found.latent.adjacency[0].flatten(1).unique(dim=0)) == 25
    assert torch.isfinite(model.log_joint(x, found.latent)).all()


def test_steps_for_networks_end_at_the_joint():
    """The flow once all networks are drawn is the target, whatever scores are learned."""
    torch.manual_seed(0)
    model, x, space = NetworkPosterior(3), a_table(), LayerSpace(3)
    policy = NetworkPolicy(3, hidden=8, components=2, width=4)
    torch.nn.init.normal_(policy.learned)
    context = policy.encode(x, model.given(x))
    found = policy.sample(context, x, space, 10)
    scores = policy.score(context, space, found, flows=True)
    last = scores.mask.long().sum(2, keepdim=True)
    level = scores.log_flow.gather(2, last)[..., 0]
    assert torch.allclose(level, model.log_joint(x, found.latent), atol=1e-3)
    again = policy.score(context, space, policy.retrace(context, x, space, found.latent))
    assert torch.allclose(again.log_pf.sum(2), scores.log_pf.sum(2), atol=1e-4)
    assert torch.allclose(found.log_behaviour, scores.log_pf.sum(2), atol=1e-3)


def test_chains_find_the_evidence():
    """Of one row and one parent, against a sum over a grid of the weight and the bias."""
    torch.manual_seed(0)
    model = NetworkPosterior(2, units=1, noise=0.5)
    x = Tables.of([torch.tensor([[0.4, 1.5], [-0.8, -1.0]], dtype=torch.float64)])
    found = families(model, x, 3000, 3).table
    likelihood = FamilyLikelihood(model, x)
    at = int(((likelihood.child == 1) & likelihood.parents[:, 0]).nonzero())
    grid = torch.linspace(-5, 5, 101, dtype=torch.float64)
    theta = torch.zeros(len(likelihood.child), 101**2, 1, 3, dtype=torch.float64)
    theta[at, :, 0, 0] = grid.repeat_interleave(101)
    theta[at, :, 0, 2] = grid.repeat(101)
    value = likelihood.regressed(theta)[2][at]
    value = value - (theta[at].square().sum((1, 2)) + 2 * math.log(2 * math.pi)) / 2
    expected = value.logsumexp(0) + 2 * math.log(0.1)
    prior = model.prior_table()[1, 1]
    assert float(found[1, 1] - prior) == pytest.approx(float(expected), abs=0.03)
    estimate = model.table(x)[0, 1, 1]
    assert float(estimate - prior) == pytest.approx(float(expected), abs=0.1)


def test_another_number_of_units_is_refused():
    with pytest.raises(ValueError, match="3 units"):
        NetworkPolicy(3).serve(NetworkPosterior(3, units=3))


@pytest.mark.slow
def test_training_finds_graphs_and_networks():
    torch.manual_seed(0)
    x, space = a_table(8, 2), LayerSpace(2)
    model, policy = NetworkPosterior(2, units=1), NetworkPolicy(2, units=1, hidden=16, width=16)
    objective = BalancedVarGrad(10.0, pseudo_huber=True)
    em = EM(model, space, policy, posterior(objective, samples=16, epsilon=Anneal(0.2, 0.02, 30)))
    descent = Descent(em, Rates(policy=Anneal(0.03, 0.002, 60)))
    evidence = families(model, x, 600, 5).table
    log_p = exact.log_weights_of_all(evidence)[1].logsumexp(0)

    def gap():
        _, weights = Posterior(model, space, policy, x).log_weights(1000)
        return float(log_p - weights.mean())

    before = gap()
    for _ in range(60):
        descent.update(x)
    assert gap() < min(0.6, before / 5)
    # scores follow the evidence, and not the lower bound of a density that is not perfect
    learned = policy.encode(x, model.given(x)).table[0].detach()
    assert (learned - evidence)[evidence > -math.inf].abs().max() < 0.25

"""Energies: sums by other means, gradients, missing entries."""

import itertools
import math
from types import SimpleNamespace

import pytest
import torch

from gfnem.energies import (
    RBM,
    AssignmentSpace,
    BoltzmannMachine,
    DiscreteLangevin,
    Gibbs,
    GibbsWithGradients,
    MLPEnergy,
    Pairwise,
    TwoTowers,
)
from gfnem.energies.annealed import Tempered, annealed_log_partition
from gfnem.mcmc import metropolis
from gfnem.offers import NotOffered
from gfnem.testing import TargetTestCase


def randomised(model, scale=0.5):
    torch.manual_seed(1)
    for parameter in model.parameters():
        parameter.data.normal_(0, scale)
    return model


def every(variables, values=2):
    return torch.tensor(list(itertools.product(range(values), repeat=variables)))


class _Energy(TargetTestCase):
    rows = torch.tensor([[0, -1, 1], [-1, -1, 0], [1, 1, 0]])

    def make_x(self):
        return self.rows

    def make_latents(self, x):
        found = [self.enumerate_latents(row[None]) for row in x]
        most = max(z.shape[1] for z in found)
        return torch.cat([z[:, torch.arange(most) % z.shape[1]] for z in found])

    def enumerate_latents(self, x):
        model = self.make_target()
        z = every(model.variables, model.values)
        agrees = ((x < 0) | (z[:, : x.shape[1]] == x)).all(1)
        return z[agrees][None]


class TestMLP(_Energy):
    def make_target(self):
        return randomised(MLPEnergy(3, 2, hidden=8, layers=2))


class TestTwoTowers(_Energy):
    rows = torch.tensor([[0, -1, 1, 1], [-1, -1, 0, -1], [1, 1, 0, 1]])

    def make_target(self):
        return randomised(TwoTowers(4, hidden=5, rank=3))


class TestPotts(_Energy):
    rows = torch.tensor([[0, -1], [2, 1]])

    def make_target(self):
        return randomised(Pairwise(2, 3))


class TestRBM(_Energy):
    def make_target(self):
        return randomised(RBM(3, 2))


class TestTwoLayers(_Energy):
    def make_target(self):
        return randomised(BoltzmannMachine(3, 2, 2))


class _Collapsed(_Energy):
    """Latent units alone are listed; what is not observed beside them stays open."""

    def enumerate_latents(self, x):
        model = self.make_target()
        latent = every(model.latent)
        seen = x[:, None].expand(-1, len(latent), -1)
        return torch.cat([seen, latent.expand(len(x), -1, -1)], 2)


class TestCollapsedRBM(_Collapsed):
    def make_target(self):
        return randomised(RBM(3, 2, collapsed=True))


class TestCollapsedTwoLayers(_Collapsed):
    def make_target(self):
        return randomised(BoltzmannMachine(3, 2, 2, collapsed=True))


@pytest.mark.parametrize(
    "make",
    [lambda c: RBM(3, 2, collapsed=c), lambda c: BoltzmannMachine(3, 2, 2, collapsed=c)],
    ids=["RBM", "BoltzmannMachine"],
)
def test_a_collapsed_machine_is_the_same_machine(make):
    collapsed, whole = randomised(make(True)), randomised(make(False))
    for x in (every(3), torch.tensor([[-1, 1, -1], [-1, -1, -1]])):
        assert torch.allclose(collapsed.log_marginal(x), whole.log_marginal(x), atol=1e-5)
    assert torch.allclose(collapsed.log_partition(), whole.log_partition(), atol=1e-5)
    x = torch.tensor([[1, -1, -1]])
    z = collapsed.filled(collapsed.sample_posterior(x, 20_000))[0]
    assert (z[:, 0] == 1).all()
    seen = torch.tensor([[1, 0, 0], [1, 0, 1], [1, 1, 0], [1, 1, 1]])
    found = (z[:, None, :3] == seen).all(2).float().mean(0)
    assert (found - whole.log_marginal(seen).softmax(0)).abs().sum() < 0.05
    likeliest = collapsed.filled(collapsed.sample_posterior(x, 1), likeliest=True)
    assert (likeliest >= 0).all()


@pytest.mark.parametrize("make", [RBM, BoltzmannMachine])
def test_a_machine_starts_at_the_shares_of_the_data(make):
    rows = torch.tensor([[0, 1, 1], [0, 1, 0], [0, 1, 0], [0, 1, 1]])
    model = make(3, 2)
    for name, parameter in model.named_parameters():
        if "weight" in name:
            parameter.data.zero_()
    model.prepare(SimpleNamespace(rows=rows))
    every = torch.tensor([[0, 1, 1], [0, 1, 0], [1, 1, 1]])
    found = (model.log_marginal(every) - model.log_partition()).exp()
    assert torch.allclose(found, torch.tensor([0.99 * 0.99 / 2] * 2 + [0.01 * 0.99 / 2]))


MODELS = [
    MLPEnergy(4, 2, hidden=8),
    Pairwise(4, 3),
    RBM(4, 3),
    RBM(3, 5),
    BoltzmannMachine(4, 3, 2),
    TwoTowers(6, hidden=5, rank=3),
]


@pytest.mark.parametrize("model", MODELS, ids=lambda model: type(model).__name__)
def test_the_partition_sum_is_the_sum_over_all(model):
    randomised(model)
    z = every(model.variables, model.values)
    total = model.log_joint(z[:, : model.visible], z[:, None])[:, 0].logsumexp(0)
    assert torch.allclose(model.log_partition(), total, atol=1e-4)
    x = every(model.visible, model.values)
    assert torch.allclose(model.log_marginal(x).logsumexp(0), total, atol=1e-4)


@pytest.mark.parametrize("kind", [MLPEnergy, Pairwise])
def test_values_that_a_variable_cannot_take_have_no_probability(kind):
    counts = torch.tensor([2, 3, 1])
    model, whole = randomised(kind(3, 3, counts=counts.tolist())), randomised(kind(3, 3))
    z = every(3, 3)
    z = z[(z < counts).all(1)]
    assert torch.allclose(model.score(model.features(z)), whole.score(whole.features(z)))
    total = whole.score(whole.features(z)).logsumexp(0)
    assert torch.allclose(model.log_partition(), total, atol=1e-5)
    assert torch.allclose(model.log_marginal(torch.full((1, 3), -1)), total, atol=1e-5)
    x = torch.full((1, 3), -1)
    space = AssignmentSpace(3, 3, counts=counts.tolist())
    for moves in (Gibbs(), GibbsWithGradients(), DiscreteLangevin(), space.moves()):
        moves = moves.given(model.given(x))
        start = moves.initial(x, 200)
        ends, _, accepted = metropolis(moves, lambda z: model.log_joint(x, z), x, start, 10)
        assert (start < counts).all() and (ends < counts).all() and accepted.mean() > 0.02
        assert (start != ends).any()
    annealed = annealed_log_partition(model, 200, 20).logsumexp(0) - math.log(200)
    assert torch.allclose(annealed, total, atol=0.1)


@pytest.mark.parametrize("model", MODELS[2:5], ids=lambda model: type(model).__name__)
def test_exact_draws_follow_the_posterior(model):
    randomised(model, 0.8)
    complete = every(model.visible)[:1]
    for x in (complete, complete.index_fill(1, torch.tensor([0]), -1)):
        listed, value = model.completed(x)
        z = model.sample_posterior(x, 20_000)[0]
        found = (z[:, None] == listed[0]).all(2).float().mean(0)
        assert (found - value.softmax(1)[0]).abs().sum() < 0.06


def test_mean_field_is_exact_without_a_top_layer():
    model = randomised(BoltzmannMachine(3, 2, 2))
    model.top_weight.data.zero_()
    x = every(3)
    hidden, top = model.mean_field(x)
    assert torch.allclose(top, model.top_bias.sigmoid().expand_as(top))
    assert torch.allclose(hidden, (x.float() @ model.weight + model.hidden_bias).sigmoid())


def test_what_is_too_large_is_not_offered():
    for model in (MLPEnergy(21, 2), Pairwise(13, 3), RBM(64, 21), TwoTowers(26)):
        assert not model.offers("log_partition")
        with pytest.raises(NotOffered, match="exact log_partition"):
            model.log_partition()


def test_couplings_count_each_pair_twice_and_no_variable_with_itself():
    model = randomised(Pairwise(3, 2))
    assert torch.equal(model.coupling, model.coupling.T)
    assert (model.coupling.diagonal() == 0).all()
    spins = torch.tensor([1.0, -1.0, 1.0])
    w = model.upper
    expected = 2 * (-w[0, 1] + w[0, 2] - w[1, 2]) + model.bias @ spins
    assert torch.allclose(model.score(spins), expected)


@pytest.mark.parametrize("model", [MODELS[0], MODELS[1], MODELS[2]], ids=lambda m: type(m).__name__)
def test_annealing_finds_the_partition_sum(model):
    torch.manual_seed(0)
    randomised(model, 0.4)
    weights = annealed_log_partition(model, chains=400, steps=20)
    found = weights.logsumexp(0) - torch.tensor(400.0).log()
    assert abs(found - model.log_partition()) < 0.1
    assert weights.mean() < model.log_partition(), "each is a lower bound on average"


def test_values_that_cannot_be_are_excluded_at_every_temperature():
    tempered = Tempered(Pairwise(3, 8, counts=[2, 2, 2]))
    for beta in (0.0, 1e-5, 1e-3, 1.0):
        tempered.beta = beta
        assert float(tempered.log_partition().detach()) == pytest.approx(math.log(8), abs=1e-2)

"""Proofs of the mixture world: shipped cases, exact inference, EM, the sampler's table, data."""

import itertools
import math

import pytest
import pytorch_lightning as pl
import torch

from gfnem.component import build
from gfnem.errors import UserError
from gfnem.lightning import GFlowNetEM
from gfnem.mixtures import PetalMixture, PetalPolicy, Petals, PetalSpace, PetalState
from gfnem.mixtures.data import read_points, recovered
from gfnem.mixtures.exact import exact_em, log_joint_table, normalise
from gfnem.mixtures.meanfield import mean_field_em
from gfnem.mixtures.model import petal_offsets
from gfnem.mixtures.policy import learned_posterior
from gfnem.objectives import TrajectoryBalance, VarGrad
from gfnem.rates import Rates
from gfnem.recipes import gflownet
from gfnem.testing import LatentSpaceTestCase, TargetTestCase, enumerate_trajectories

MEANS = [[-1.0, -1.0], [-1.0, 1.0], [1.2, -1.0]]


def make_points(count=3):
    return torch.randn(count, 2, generator=torch.Generator().manual_seed(1))


def make_random_policy(clusters, petals):
    policy = PetalPolicy(clusters, petals, hidden=8)
    for parameter in policy.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    return policy


class TestClusterFirst(LatentSpaceTestCase):
    order = "cluster_first"
    paths = 1

    def make_space(self):
        return PetalSpace(3, 2, self.order)

    def make_x(self):
        return make_points()

    def make_policy(self):
        return make_random_policy(3, 2)

    def count_objects(self, row):
        return 6

    def count_trajectories(self, row):
        return 6 * self.paths


@pytest.mark.slow
class TestEitherOrder(TestClusterFirst):
    order = "either"
    paths = 2


class TestPetalMixture(TargetTestCase):
    def make_target(self):
        return PetalMixture(MEANS, petals=4)

    def make_x(self):
        return make_points()

    def make_latents(self, x):
        z = torch.tensor([[0, 1], [1, 3], [2, 0], [2, 2]])
        return z.expand(len(x), -1, -1)

    def enumerate_latents(self, x):
        return torch.tensor(list(itertools.product(range(3), range(4))))[None]

    def make_space(self):
        return PetalSpace(3, 4, "either")

    def test_density_is_that_of_two_normals(self):
        model, x = self.make_target(), make_points()
        normal = torch.distributions.Normal(torch.tensor([1.2, 0.0]), 0.25)
        expected = normal.log_prob(x).sum(1) - math.log(12)
        got = model.log_joint(x, torch.tensor([[2, 1]]).expand(3, 1, 2))[:, 0]
        torch.testing.assert_close(got, expected)

    def test_samples_have_the_moments_of_the_mixture(self):
        torch.manual_seed(0)
        model = self.make_target()
        x, z = model.sample(20_000)
        centre = model.means.detach()[z[:, 0, 0]] + model.offsets[z[:, 0, 1]]
        assert (x - centre).std().item() == pytest.approx(0.25, rel=0.02)
        assert torch.bincount(z[:, 0, 0] * 4 + z[:, 0, 1]).min() > 20_000 / 12 * 0.85
        torch.testing.assert_close(x.mean(0), torch.tensor(MEANS).mean(0), atol=0.03, rtol=0)

    def test_partial_credit_is_moment_matched(self):
        """With the petal open it is the Gaussian whose moments the petals' samples have."""
        model, x = self.make_target(), make_points()
        state = PetalState(torch.full((3, 1), 1), torch.full((3, 1), -1))
        normal = torch.distributions.Normal(torch.tensor(MEANS[1]), math.sqrt(0.25**2 + 0.5))
        expected = normal.log_prob(x).sum(1) - math.log(3)
        torch.testing.assert_close(model.partial_log_joint(x, state)[:, 0], expected)


def test_batched_table_is_the_joint_one_by_one():
    model, x = PetalMixture(MEANS, petals=4), make_points(5)
    table = model.log_table(x)
    for i, j in itertools.product(range(3), range(4)):
        z = torch.tensor([[i, j]]).expand(5, 1, 2)
        torch.testing.assert_close(table[:, i, j], model.log_joint(x, z)[:, 0])
    runs = log_joint_table(torch.stack([x, x + 1]), model.means.expand(2, -1, -1), model.offsets, 1)
    other = log_joint_table(x + 1, model.means, model.offsets, 1)
    torch.testing.assert_close(runs[1], other)


def test_em_step_is_the_optimum_of_the_expected_log_joint():
    """After a closed-form step, the gradient under the old posterior vanishes."""
    data = Petals(points=200)
    model = PetalMixture(data.initial_means.tolist())
    weights = model.exact_posterior(data.points).detach()
    before = model.log_marginal(data.points).mean()
    model.em_step(data.points)
    (weights * model.log_table(data.points)).sum().backward()
    assert model.means.grad.abs().max() < 1e-2
    assert model.log_marginal(data.points).mean() > before
    # and exact_em does the same step
    means, history = exact_em(data.points, data.initial_means, model.offsets, 0.25, 1)
    torch.testing.assert_close(means, model.means.detach())
    torch.testing.assert_close(history[0], before.detach())


def test_em_leaves_a_mean_without_points_alone():
    model = PetalMixture([[0.0, 0.0], [500.0, 500.0]])
    model.em_step(make_points(20))
    assert model.means[1].tolist() == [500.0, 500.0]
    assert torch.isfinite(model.means).all()


def test_exact_and_mean_field_em_never_fall():
    data = Petals(points=300, seed=3)
    offsets = petal_offsets(4)
    _, history = exact_em(data.points, data.initial_means, offsets, 0.25, 40)
    assert (history.diff() > -1e-5).all() and history[-1] > history[0] + 0.1
    run = mean_field_em(data.points, data.initial_means, offsets, 0.25, 40)
    assert (run.elbo.diff() > -1e-5).all() and run.elbo[-1] > run.elbo[0] + 0.1


def test_mean_field_bound_is_the_marginal_less_its_divergence():
    data = Petals(points=50)
    offsets = petal_offsets(4)
    run = mean_field_em(data.points, data.initial_means, offsets, 0.25, 1)
    table = log_joint_table(data.points, data.initial_means, offsets, 0.25)
    q = run.cluster[:, :, None] * run.petal[:, None]
    divergence = torch.special.xlogy(q, q) - q * normalise(table).clamp(min=1e-38).log()
    expected = table.logsumexp((1, 2)).mean() - divergence.sum((1, 2)).mean()
    assert run.elbo[0].item() == pytest.approx(expected.item(), abs=1e-3)


def test_mean_field_afresh_is_one_first_step_after_another():
    data = Petals(points=80, seed=2)
    offsets, means = petal_offsets(4), data.initial_means
    for _ in range(3):
        means = mean_field_em(data.points, means, offsets, 0.25, 1).means
    run = mean_field_em(data.points, data.initial_means, offsets, 0.25, 3, afresh=True)
    torch.testing.assert_close(run.means, means)


def test_mean_field_misses_a_coupled_posterior():
    """Halfway between two centres a petal of either explains a point: log 2 nats are lost."""
    means = torch.tensor([[-1.0, 0.0], [1.0, 0.0]])
    x, offsets = torch.zeros(1, 2), petal_offsets(4)
    exact = normalise(log_joint_table(x, means, offsets, 0.1))
    assert exact[0, 0, 0].item() == pytest.approx(0.5) == exact[0, 1, 2].item()
    # moved off the saddle, coordinate ascent settles for one of the two
    run = mean_field_em(x + 1e-3, means, offsets, 0.1, 1, sweeps=200)
    marginal = log_joint_table(x + 1e-3, means, offsets, 0.1).logsumexp((1, 2))
    assert max(run.cluster.max(), run.petal.max()) > 0.99
    gap = (marginal - run.elbo[0]).item()
    assert gap == pytest.approx(math.log(2), abs=0.15)


def test_runs_in_parallel_are_runs_one_by_one():
    worlds = [Petals(points=60, seed=seed) for seed in (0, 1)]
    x = torch.stack([world.points for world in worlds])
    start = torch.stack([world.initial_means for world in worlds])
    offsets = petal_offsets(4)
    both = mean_field_em(x, start, offsets, 0.25, 5)
    exact, _ = exact_em(x, start, offsets, 0.25, 5)
    for k in (0, 1):
        alone = mean_field_em(x[k], start[k], offsets, 0.25, 5)
        torch.testing.assert_close(both.means[k], alone.means, atol=1e-4, rtol=1e-4)
        alone_exact, _ = exact_em(x[k], start[k], offsets, 0.25, 5)
        torch.testing.assert_close(exact[k], alone_exact, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("order", ["cluster_first", "either"])
def test_learned_posterior_sums_over_all_trajectories(order):
    torch.manual_seed(0)
    space, policy, x = PetalSpace(3, 2, order), make_random_policy(3, 2), make_points()
    found = enumerate_trajectories(space, x)
    with torch.no_grad():
        log_pf = policy.score(policy.encode(x), space, found.trajectories).log_pf.sum(2)
    expected = torch.zeros(3, 3, 2)
    for row, sample in found.valid.nonzero().tolist():
        i, j = found.trajectories.latent[row, sample].tolist()
        expected[row, i, j] += log_pf[row, sample].exp()
    torch.testing.assert_close(
        learned_posterior(policy, space, x, PetalMixture(MEANS, petals=2)), expected
    )


# ---------------------------------------------------------------- training


def train(order, objective, updates, model_lr=0.0, seed=0, **settings):
    torch.manual_seed(seed)
    data = Petals(points=400, seed=seed, interval=10**6)
    facts = data.facts()
    start = data.centres.tolist() if model_lr == 0 else facts["initial_means"]
    module = GFlowNetEM(
        PetalMixture(start),
        PetalSpace(order=order),
        PetalPolicy(hidden=32),
        gflownet(objective, epsilon=0.05, **settings),
        rates=Rates(policy=1e-2, model=model_lr),
        max_updates=updates,
    )
    pl.Trainer(
        max_epochs=-1,
        reload_dataloaders_every_n_epochs=1,
        accelerator="cpu",
        limit_val_batches=0,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    ).fit(module, data)
    return module, data


@pytest.mark.slow
def test_sampler_learns_the_exact_posterior():
    """Means fixed at the truth, either order, learned backward policy and conditional `log Z`."""
    module, data = train("either", TrajectoryBalance(), 400)
    figures = data.evaluate(module)
    assert figures["posterior_tv"] < 0.2
    assert figures["recovered"] == 1.0
    # what "learned" means: before training the distance is far larger
    uniform = learned_posterior(PetalPolicy(), module.space, data.points, module.model)
    exact = module.model.exact_posterior(data.points)
    assert (uniform - exact).abs().sum((1, 2)).mean() / 2 > 0.8


@pytest.mark.slow
def test_gflownet_em_reaches_exact_em(tmp_path):
    module, data = train("cluster_first", VarGrad(), 160, model_lr=0.04)
    _, history = exact_em(data.points, data.initial_means, module.model.offsets, 0.25, 200)
    log_likelihood = module.model.log_marginal(data.points).mean().item()
    assert log_likelihood > history[-1].item() - 0.03
    assert data.draw(module, tmp_path / "bare") == ["means.png", "posterior.png"]
    (tmp_path / "metrics.csv").write_text("update,val_nll\n50,3.5\n75,\n100,2.5\n")
    names = data.draw(module, tmp_path)
    assert names == ["means.png", "posterior.png", "likelihood.png"]
    for name in names:
        assert (tmp_path / name).read_bytes().startswith(b"\x89PNG")


# ---------------------------------------------------------------- data


def test_same_seed_same_points_and_facts_build_the_model():
    data, again, other = Petals(seed=4), Petals(seed=4), Petals(seed=5)
    assert torch.equal(data.points, again.points) and not torch.equal(data.points, other.points)
    assert data.facts() == again.facts()
    model = build({"class_path": "gfnem.mixtures.PetalMixture"}, PetalMixture, **data.facts())
    for mean in model.means.detach():
        assert (data.points == mean).all(1).any(), "a mean does not start from a data point"
    spec = build(
        {"class_path": "gfnem.mixtures.PetalSpace", "init_args": {"order": "either"}},
        PetalSpace,
        **Petals(centres=[[0, 0], [3, 3]], petals=5).facts(),
    )
    assert (spec.clusters, spec.petals) == (2, 5)


def test_recovered_wants_a_mean_for_each_centre():
    centres = torch.tensor([[0.0, 0.0], [4.0, 0.0]])
    assert recovered(torch.tensor([[4.0, 0.1], [0.1, 0.0]]), centres, 0.25) == 1.0
    assert recovered(torch.tensor([[4.0, 0.1], [4.1, 0.0]]), centres, 0.25) == 0.5
    assert recovered(torch.tensor([[2.0, 0.0], [9.0, 0.0]]), centres, 0.25) == 0.0


def test_points_from_a_file(tmp_path):
    path = tmp_path / "points.csv"
    path.write_text("# a comment\n1.5, 2\n\n-3\t4e-1\n0 0\n")
    torch.testing.assert_close(read_points(path), torch.tensor([[1.5, 2], [-3, 0.4], [0, 0]]))
    data = Petals(path=str(path), clusters=2)
    assert data.facts()["clusters"] == 2 and data.centres is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1 2\n1 2 3\n", "line 2: expected two numbers"),
        ("1 2\n\nx y\n", "line 3: expected two numbers"),
        ("1 nan\n", "line 1: expected two numbers"),
        ("1 2\n3 -1e30\n", r"line 2: -1e\+30 is beyond 1e\+15"),
        ("# nothing\n", "no points"),
    ],
)
def test_bad_files_are_the_users_mistake(tmp_path, text, message):
    path = tmp_path / "points.txt"
    path.write_text(text)
    with pytest.raises(UserError, match=message) as caught:
        read_points(path)
    assert str(path) in str(caught.value)


def test_too_few_points_for_the_clusters(tmp_path):
    path = tmp_path / "points.txt"
    path.write_text("1 2\n3 4\n")
    with pytest.raises(UserError, match="2 different points for 4 clusters"):
        Petals(path=str(path))
    path.write_text("1 2\n" * 9 + "3 4\n")
    with pytest.raises(UserError, match="2 different points for 4 clusters"):
        Petals(path=str(path))


@pytest.mark.parametrize(
    "make",
    [
        lambda: PetalMixture(),
        lambda: PetalMixture([[1.0, 2.0, 3.0]]),
        lambda: PetalMixture(MEANS, sd=0.0),
        lambda: PetalSpace(order="backwards"),
        lambda: PetalSpace(clusters=0),
        lambda: Petals(points=0),
    ],
)
def test_bad_arguments_are_named(make):
    with pytest.raises(ValueError):
        make()

"""Dependency trees: the shipped proofs, and exact inference against a list of all trees."""

import itertools
import math

import pytest
import torch

from gfnem.enumeration import enumerate_trajectories
from gfnem.parsing.dependencies.chart import (
    ArcPotentials,
    arc_marginals,
    best_heads,
    inside,
    minimum_risk,
    tree_score,
)
from gfnem.parsing.dependencies.model import NeuralDMV, TabularDMV
from gfnem.parsing.dependencies.policy import HeadsPolicy
from gfnem.parsing.dependencies.rewards import Harmonic
from gfnem.parsing.dependencies.space import HeadsSpace
from gfnem.parsing.text.sentences import Sentences
from gfnem.reward import Rewarded
from gfnem.target import GenerativeModel
from gfnem.testing import LatentSpaceTestCase, PolicyTestCase, RewardTestCase, TargetTestCase

WORDS = 4


def trees(n: int) -> list[tuple[int, ...]]:
    """All projective trees over `n` words with one root, found by trying all heads."""
    found = []
    for heads in itertools.product(range(n + 1), repeat=n):
        arcs = [tuple(sorted((word, head - 1))) for word, head in enumerate(heads)]
        crossing = any(a < c < b < d for a, b in arcs for c, d in arcs)
        if heads.count(0) == 1 and not crossing and all(reaches_wall(heads, w) for w in range(n)):
            found.append(heads)
    return found


def reaches_wall(heads, word) -> bool:
    for _ in heads:
        word = heads[word] - 1
        if word < 0:
            return True
    return False


def every_tree(n: int, batch: int = 1) -> torch.Tensor:
    return torch.tensor(trees(n))[None].expand(batch, -1, -1)


def how_many(n: int) -> int:
    return math.comb(3 * n - 2, n - 1) // n


def shaken(module):
    torch.manual_seed(3)
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    return module.eval()


class OfHeads:
    def make_x(self):
        return Sentences.from_lists([[1, 2, 3, 0], [2], [3, 1], [1, 1, 2]])

    def take_latent(self, z, row):
        lengths = self.make_x().lengths
        cut = int(lengths[row]) if len(z) == len(lengths) else z.shape[2]
        return z[row : row + 1, :, :cut]


class TestHeadsSpace(OfHeads, LatentSpaceTestCase):
    frequency_samples = 1000

    def make_space(self):
        return HeadsSpace()

    def make_policy(self):
        return shaken(HeadsPolicy(WORDS, dim=8))

    def count_objects(self, row):
        return how_many((4, 1, 2, 3)[row])

    count_trajectories = count_objects


class OfDMV(OfHeads):
    def make_space(self):
        return HeadsSpace()

    def make_latents(self, x):
        return self.make_target().sample_posterior(x, 6)

    def enumerate_latents(self, x):
        return every_tree(x.max_length)


class TestTabularDMV(OfDMV, TargetTestCase):
    frequency_samples = 600

    def make_target(self):
        model = shaken(TabularDMV(WORDS))
        with torch.no_grad():
            model.attach /= 4
            model.go.div_(4).sub_(0.1)
        return model


class TestNeuralDMV(OfDMV, TargetTestCase):
    def make_target(self):
        return shaken(NeuralDMV(WORDS, dim=8))


class TestDMVWithClusters(TestNeuralDMV):
    def make_target(self):
        return shaken(NeuralDMV(WORDS, dim=8, clusters=3))


class TestHarmonic(OfDMV, RewardTestCase):
    def make_reward(self):
        return Harmonic(0.7)

    def make_model(self):
        return shaken(TabularDMV(WORDS))

    def make_latents(self, x):
        return self.make_model().sample_posterior(x, 6)


class TestHeadsPolicy(OfHeads, PolicyTestCase):
    def make_target(self) -> GenerativeModel:
        return TabularDMV(WORDS)

    def make_space(self):
        return HeadsSpace()

    def make_policy(self):
        return HeadsPolicy(WORDS, dim=8, dropout=0.0)


class TestHeadsPolicyFromTheChart(TestHeadsPolicy):
    def make_policy(self):
        return HeadsPolicy(WORDS, dim=8, chart=True, dropout=0.0)


class JointOnly(GenerativeModel):
    """A model that tells of itself no more than it has to."""

    def __init__(self):
        super().__init__()
        self.inner = TabularDMV(WORDS)

    def log_joint(self, x, z):
        return self.inner.log_joint(x, z)


class TestHeadsPolicyWithArcsOfItsOwn(TestHeadsPolicy):
    def make_target(self):
        return JointOnly()


@pytest.mark.parametrize("n", [1, 2, 3, 4, 5])
def test_exact_inference_is_a_sum_over_all_trees(n):
    torch.manual_seed(n)
    shape = 2, n + 1, n
    potentials = ArcPotentials(
        torch.randn(shape, dtype=torch.float64),
        torch.randn(2, n, 2, dtype=torch.float64),
        torch.randn(2, dtype=torch.float64),
        torch.full((2,), n),
    )
    z = every_tree(n, 2)
    assert z.shape[1] == how_many(n)
    score = tree_score(potentials, z)
    assert torch.allclose(inside(potentials).total, score.logsumexp(1))
    marginals = torch.zeros(shape, dtype=torch.float64)
    for at, heads in enumerate(z[0].tolist()):
        for word, head in enumerate(heads):
            marginals[:, head, word] += score.softmax(1)[:, at]
    found = arc_marginals(potentials)
    assert torch.allclose(found, marginals)
    assert torch.equal(best_heads(potentials), z[0][score.argmax(1)])
    right = torch.stack([marginals[:, z[0, :, word], word] for word in range(n)]).sum(0)
    assert torch.equal(minimum_risk(found, potentials.lengths), z[0][right.argmax(1)])


def test_exact_draws_are_as_frequent_as_the_posterior_says():
    torch.manual_seed(0)
    model, x = shaken(TabularDMV(WORDS)), Sentences.from_lists([[1, 2, 3, 0, 1], [3, 2]])
    z = model.sample_posterior(x, 5_000)
    given = model.given(x[:1])
    every = every_tree(5)
    with torch.no_grad():
        exact = (given.log_joint(every) - given.log_marginal()[:, None]).exp()[0]
    seen = (z[:1, :, None] == every[:, None]).all(3).double().mean(1)[0]
    assert float((seen - exact).abs().sum()) / 2 < 0.09
    assert set(map(tuple, z[1].tolist())) <= {(0, 1, 0, 0, 0), (2, 0, 0, 0, 0)}


def test_the_space_builds_every_projective_tree_of_five_words_once():
    x = Sentences.from_lists([[1, 2, 3, 0, 1]])
    found = enumerate_trajectories(HeadsSpace(), x)
    built = found.trajectories.latent[0][found.valid[0]].tolist()
    assert sorted(map(tuple, built)) == sorted(trees(5))


def test_many_samples_are_scored_a_few_at_a_time(monkeypatch):
    x = Sentences.from_lists([[1, 2, 3, 0, 1], [3, 2]])
    policy, space = shaken(HeadsPolicy(WORDS, dim=8)), HeadsSpace()
    with torch.no_grad():
        context = policy.encode(x)
        found = policy.sample(context, x, space, 7)
        once = policy.score(context, space, found, flows=True)
        monkeypatch.setattr("gfnem.parsing.dependencies.policy._AT_ONCE", 2 * 2 * 6 * 25)
        again = policy.score(context, space, found, flows=True)
    for name in ("log_pf", "log_flow", "mask", "log_z"):
        assert torch.allclose(getattr(once, name), getattr(again, name)), name


def test_the_policy_that_starts_from_the_chart_is_exact():
    x = Sentences.from_lists([[1, 2, 3, 0, 1], [3, 2]])
    target = Rewarded(shaken(TabularDMV(WORDS)), Harmonic(1.0))
    policy = HeadsPolicy(WORDS, dim=8, chart=True).eval()
    policy.serve(target)
    given, space = target.given(x), HeadsSpace()
    context = policy.encode(x, given)
    found = policy.sample(context, x, space, 5)
    with torch.no_grad():
        scores = policy.score(context, space, found, flows=True)
    exact = given.log_marginal()
    assert torch.allclose(scores.log_z, exact, atol=1e-4)
    log_q = given.log_joint(found.latent) - exact[:, None]
    assert torch.allclose(scores.log_pf.sum(2), log_q, atol=1e-4)
    # flows: detailed balance holds in every step
    flow, steps = scores.log_flow, scores.log_pf
    balance = (flow[:, :, :-1] + steps - flow[:, :, 1:]).masked_fill(~scores.mask, 0.0)
    assert float(balance.abs().max()) < 1e-4

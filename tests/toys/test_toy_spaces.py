"""Grids, walks and factor graphs: the shipped cases, counts in closed form, rewards."""

import math

import pytest
import torch

from gfnem.enumeration import enumerate_states
from gfnem.testing import LatentSpaceTestCase, TargetTestCase
from gfnem.toys import (
    FactorGraph,
    Hypergrid,
    HypergridReward,
    NetworkPolicy,
    TablePolicy,
    TimeStamped,
    TorusReward,
    TorusWalk,
    Unobserved,
)

X = torch.tensor([0, 1])


def shaken(policy):
    for parameter in policy.parameters():
        torch.nn.init.normal_(parameter, std=0.7)
    return policy


class TestHypergrid(LatentSpaceTestCase):
    def make_space(self):
        return Hypergrid(3, 2)

    def make_x(self):
        return X

    def count_objects(self, row):
        return 9

    def count_trajectories(self, row):
        return sum(math.comb(i + j, i) for i in range(3) for j in range(3))

    def make_policy(self):
        return shaken(TablePolicy(self.make_space(), copies=2, backward="learned"))


class TestNetworkOnHypergrid(TestHypergrid):
    def make_policy(self):
        return shaken(NetworkPolicy(self.make_space(), 2, "learned", "stop", hidden=8))


class TestTorusWalk(LatentSpaceTestCase):
    def make_space(self):
        return TimeStamped(TorusWalk(4, 1), 3)

    def make_x(self):
        return X

    def count_objects(self, row):
        return 4

    def count_trajectories(self, row):
        return 3**3

    def make_policy(self):
        return shaken(NetworkPolicy(self.make_space(), 2, "learned", hidden=8))


class TestUnobserved(LatentSpaceTestCase):
    def make_space(self):
        return Unobserved(3, 2)

    def make_x(self):
        return X

    def count_trajectories(self, row):
        return math.factorial(3) * 2**3

    def make_policy(self):
        return shaken(TablePolicy(self.make_space(), copies=2))


class HypergridRewardCase(TargetTestCase):
    def make_target(self):
        return HypergridReward(5, 2, 0.01)

    def make_x(self):
        return X

    def make_latents(self, x):
        return torch.randint(5, (len(x), 6, 2))

    def enumerate_latents(self, x):
        return self.make_target().every()[None]


class TestHypergridReward(HypergridRewardCase):
    pass


class TestFactorGraph(HypergridRewardCase):
    def make_target(self):
        return FactorGraph(3, 2)

    def make_latents(self, x):
        return torch.randint(2, (len(x), 6, 3))


class TestTorusReward(HypergridRewardCase):
    def make_target(self):
        return TorusReward(5, 2)


@pytest.mark.parametrize("side, dimensions", [(5, 2), (4, 3)])
def test_trajectories_of_a_hypergrid_are_multinomial(side, dimensions):
    graph = enumerate_states(Hypergrid(side, dimensions), X[:1])
    cell = graph.latents()[0].double()
    expected = (cell.sum(1) + 1).lgamma() - (cell + 1).lgamma().sum(1)
    assert torch.allclose(graph.log_counts()[graph.ends], expected)


def test_walks_on_a_circle_are_counted_by_fourier():
    # the number of walks of T steps of -1, 0, 1 to place k of n: sum_w (1 + 2 cos w)^T cos(w k) / n
    n, steps = 5, 6
    graph = enumerate_states(TimeStamped(TorusWalk(n, 1), steps), X[:1])
    wave = 2 * math.pi * torch.arange(n).double() / n
    place = graph.latents()[0, :, 0]
    expected = ((1 + 2 * wave.cos()) ** steps * (wave * place[:, None]).cos()).sum(1) / n
    assert torch.allclose(graph.log_counts()[graph.ends].exp(), expected)
    assert graph.log_counts()[graph.ends].exp().sum().item() == pytest.approx(3**steps)


def test_the_reward_has_a_mode_in_each_corner():
    reward = HypergridReward(64, 2, 0.001)
    every = reward.every()
    modes = reward.mode_of(every)
    assert sorted(modes[modes >= 0].unique().tolist()) == [0, 1, 2, 3]
    value = reward.log_reward(every).exp()
    assert value[modes >= 0].tolist() == pytest.approx([2.501] * int((modes >= 0).sum()))
    assert value[0].item() == pytest.approx(0.501) and value.min().item() == pytest.approx(0.001)


def test_copies_are_independent():
    policy = shaken(TablePolicy(Hypergrid(3, 2), copies=2))
    state = policy.space.initial_state(X, 1)
    policy(policy.encode(X), state).forward[1, 0, 0].backward()
    assert policy.table.grad[0].abs().sum() == 0 < policy.table.grad[1].abs().sum()


def test_bad_settings():
    with pytest.raises(ValueError, match="uniform or learned"):
        TablePolicy(Hypergrid(3, 2), backward="other")
    with pytest.raises(ValueError, match="less than 3"):
        TorusWalk(2, 1)

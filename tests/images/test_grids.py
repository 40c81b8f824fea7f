"""Grid spaces and policies: the shipped cases, and one pass against cell by cell."""

import itertools
import math

import pytest
import torch

from gfnem import sampling
from gfnem.images.grids import EMPTY, AnyOrderGrid, GridState, RasterGrid
from gfnem.images.policies import AnyOrderPolicy, MeanFieldPolicy, RasterPolicy
from gfnem.objectives import DetailedBalance, SubTrajectoryBalance, log_ratio
from gfnem.policy import Policy
from gfnem.testing import LatentSpaceTestCase

SHAPE = {"height": 5, "width": 4, "rows": 2, "columns": 1, "codes": 3}
SMALL = {"channels": 4, "hidden": 8}


def images(count=3, height=5, width=4, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return (torch.rand(count, height, width, generator=generator) > 0.5).float()


def shaken(policy, scale=0.7):
    """The policy with large random weights, so that its probabilities are far from uniform."""
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter.add_(scale * torch.randn_like(parameter) / math.sqrt(parameter.shape[-1]))
    return policy


class TestRasterGrid(LatentSpaceTestCase):
    def make_space(self):
        return RasterGrid(2, 1, 3)

    def make_x(self):
        return images(height=3, width=2)

    def count_objects(self, row):
        return 3**2

    def count_trajectories(self, row):
        return 3**2

    def make_policy(self):
        return shaken(RasterPolicy(3, 2, 2, 1, 3, units=6, **SMALL))


class TestMeanField(TestRasterGrid):
    def make_policy(self):
        return shaken(MeanFieldPolicy(3, 2, 2, 1, 3, units=6, **SMALL))


class TestAnyOrderGrid(LatentSpaceTestCase):
    def make_space(self):
        return AnyOrderGrid(2, 2, 2)

    def make_x(self):
        return images(height=3, width=4)

    def count_objects(self, row):
        return 2**4

    def count_trajectories(self, row):
        return 2**4 * math.factorial(4)

    def make_policy(self):
        return shaken(AnyOrderPolicy(3, 4, 2, 2, 2, units=6, **SMALL))


def test_raster_order_fills_rows_from_the_left():
    space, x = RasterGrid(2, 2, 5), images(1)
    state = space.initial_state(x, 1)
    for code in (3, 0, 4):
        state = space.step(state, torch.tensor([[code]]))
    assert state.codes.tolist() == [[[3, 0, 4, EMPTY]]]
    assert space.forward_action(state, torch.tensor([[0]])).item() == 4
    assert space.unstep(state, torch.tensor([[0]])).codes.tolist() == [[[3, 0, EMPTY, EMPTY]]]


def test_any_order_counts_every_path():
    """`cells!` trajectories lead to a grid: a uniform backward policy says so."""
    space, x = AnyOrderGrid(3, 1, 2), images(1)
    policy = AnyOrderPolicy(9, 1, 3, 1, 2, backward=False, **SMALL)
    z = torch.tensor([[[0, 1, 1]]])
    trajectories = policy.retrace(policy.encode(images(1, 9, 1)), x, space, z)
    assert trajectories.log_behaviour.item() == pytest.approx(-math.log(6), rel=1e-5)


@pytest.mark.parametrize("cls", [RasterPolicy, MeanFieldPolicy])
def test_one_pass_equals_state_by_state(cls):
    shape = {"height": 8, "width": 8, "rows": 2, "columns": 2, "codes": 3}
    policy = shaken(
        cls(**shape, units=5, **SMALL, **({"flow": True} if cls is RasterPolicy else {}))
    )
    space, x = RasterGrid(2, 2, 3), images(4, 8, 8)
    context = policy.encode(x)
    slow = sampling.rollout(policy, context, x, space, 7)
    reference = Policy.score(policy, context, space, slow, flows=True)
    fast = policy.score(context, space, policy.retrace(context, x, space, slow.latent), flows=True)
    torch.testing.assert_close(fast.log_pf, reference.log_pf)
    torch.testing.assert_close(fast.log_pb, reference.log_pb)
    torch.testing.assert_close(fast.log_pf.sum(2), slow.log_behaviour)
    if cls is RasterPolicy:
        torch.testing.assert_close(fast.log_flow, reference.log_flow)
        assert fast.log_z.shape == (4,) and fast.log_flow.shape == (4, 7, 5)


@pytest.mark.parametrize("exploration", [None, sampling.Exploration(2.0, 0.3)])
def test_fast_sampling_draws_what_it_says(exploration):
    """Frequencies of all 9 grids, and the probabilities reported with them."""
    policy = shaken(RasterPolicy(**{**SHAPE, "height": 3, "width": 2}, units=6, **SMALL), 1.0)
    space, x = RasterGrid(2, 1, 3), images(1, 3, 2)
    context = policy.encode(x)
    torch.manual_seed(0)
    drawn = policy.sample(context, x, space, 40_000, exploration)
    slow = sampling.rollout(policy, context, x, space, 40_000, exploration)
    number = (drawn.latent * torch.tensor([3, 1])).sum(2)[0]
    slow_number = (slow.latent * torch.tensor([3, 1])).sum(2)[0]
    for grid in range(9):
        said = drawn.log_behaviour[0][number == grid]
        if len(said) < 50:
            continue
        assert said.std() < 1e-5
        share = (number == grid).float().mean()
        error = (share * (1 - share) / 40_000).sqrt()
        assert abs(said[0].exp() - share) < 4 * error
        assert abs((slow_number == grid).float().mean() - share) < 6 * error


def test_a_cell_does_not_see_itself_or_later_cells():
    policy = shaken(RasterPolicy(8, 8, 2, 2, 3, units=5, **SMALL))
    context = policy.encode(images(1, 8, 8))
    one, other = torch.tensor([[[0, 1, 2, 0]]]), torch.tensor([[[0, 1, 0, 2]]])
    first, second = (policy.cell_logits(context, codes)[0][0, 0] for codes in (one, other))
    assert torch.equal(first[:3], second[:3])
    assert not torch.allclose(first[3], second[3])


def test_raster_policy_is_normalised_and_not_factorised():
    policy = shaken(RasterPolicy(8, 8, 2, 2, 3, units=5, **SMALL), 0.5)
    space, x = RasterGrid(2, 2, 3), images(2, 8, 8)
    every = torch.tensor(list(itertools.product(range(3), repeat=4)))
    context = policy.encode(x)
    drawn = policy.retrace(context, x, space, every.expand(2, -1, -1))
    probability = policy.score(context, space, drawn).log_pf.sum(2).exp()
    torch.testing.assert_close(probability.sum(1), torch.ones(2))
    table = probability.view(2, 3, 3, 9).sum(3)
    independent = table.sum(2, keepdim=True) * table.sum(1, keepdim=True)
    assert (table - independent).abs().max() > 1e-2


@pytest.mark.parametrize("objective", [DetailedBalance(), SubTrajectoryBalance(0.9)])
def test_flow_objectives_reach_the_flow_head(objective):
    policy = RasterPolicy(8, 8, 2, 2, 3, units=5, flow=True, **SMALL)
    space, x = RasterGrid(2, 2, 3), images(2, 8, 8)
    context = policy.encode(x)
    drawn = policy.sample(context, x, space, 4)
    scores = policy.score(context, space, drawn, flows=True)
    objective(scores, torch.randn(2, 4)).sum().backward()
    assert policy.flow.weight.grad.abs().sum() > 0
    assert policy.log_z_head.head.weight.grad.abs().sum() > 0


@pytest.mark.slow
def test_log_z_is_one_number_for_each_image():
    """Trained by trajectory balance, log Z tells images apart."""
    torch.manual_seed(0)
    policy = RasterPolicy(3, 2, 2, 1, 3, units=6, **SMALL)
    space, x = RasterGrid(2, 1, 3), images(2, 3, 2)
    reward = torch.stack([torch.randn(9), torch.randn(9) - 20])
    optimizer = torch.optim.Adam(policy.parameters(), lr=1e-2)
    for _ in range(200):
        context = policy.encode(x)
        drawn = policy.sample(context, x, space, 8, sampling.Exploration(epsilon=0.1))
        scores = policy.score(context, space, drawn)
        log_reward = reward.gather(1, (drawn.latent * torch.tensor([3, 1])).sum(2))
        ratio = log_ratio(scores.log_pf, scores.log_pb, log_reward)
        loss = (scores.log_z[:, None] + ratio).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    error = policy.log_z(policy.encode(x)) - reward.logsumexp(1)
    assert error.abs().max() < 1.0  # one number for both would be wrong by 10


def test_state_has_no_more_than_its_codes():
    assert GridState(torch.zeros(1, 1, 2, dtype=torch.long)).codes.shape == (1, 1, 2)
    with pytest.raises(ValueError, match="codes 1: at least 2"):
        RasterGrid(2, 2, 1)

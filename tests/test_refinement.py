"""Back-and-forth Metropolis-Hastings: stationary at the exact posterior, with any policy."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import pytest
import torch
from statistics_of_chains import chi_square
from torch import Tensor
from toy import BitModel, BitPolicy, BitSpace, strings

from gfnem.batched import Batched
from gfnem.enumeration import enumerate_trajectories
from gfnem.policy import Policy, Step
from gfnem.refinement import back_and_forth, refine
from gfnem.space import LatentSpace
from gfnem.target import Target


def repeated(z, samples: int):
    """The first sample of each `x`, over and over: chains that all start at one place."""
    return z[:, :1].expand(-1, samples, *z.shape[2:])


CHAINS, PROPOSALS = 4000, 60


def bits(ordered: bool):
    x = torch.tensor([1])
    torch.manual_seed(3)
    model, policy = BitModel(fixed=True), BitPolicy(scale=2.0)
    z = strings(3)[0]
    probabilities = dict(zip(map(tuple, z.tolist()), model.posterior(1).tolist(), strict=True))
    return x, BitSpace(ordered=ordered), model, policy, probabilities


# less than all three steps never changes an ordered string's first bit
@pytest.mark.slow
@pytest.mark.parametrize(
    ("ordered", "back"),
    [(False, 1), (False, 2), (False, 0.5), (False, 1.0), (True, 3), (True, 1.0)],
)
def test_chains_reach_the_posterior(ordered, back):
    x, space, model, policy, probabilities = bits(ordered)
    start = repeated(policy.sample(x, x, space, 1).latent, CHAINS)
    z, log_joint, accepted = refine(policy, x, model.given(x), space, start, PROPOSALS, back)
    got = Counter(map(tuple, z[0].tolist()))
    statistic, quantile = chi_square(got, probabilities)
    assert statistic < quantile
    assert torch.allclose(log_joint, model.log_joint(x, z)) and 0 < accepted.mean() < 1


def test_rows_of_different_length_and_none():
    torch.manual_seed(0)
    x, space, model, policy = torch.tensor([1, 2, 0]), BitSpace(), BitModel(), BitPolicy()
    z = policy.sample(x, x, space, 5).latent
    moved, log_joint, accepted = refine(policy, x, model.given(x), space, z, 3)
    assert torch.allclose(log_joint, model.log_joint(x, moved))
    assert (moved[1] == 0).all() and (accepted[1] == 1).all()  # nothing to choose: stays
    assert (moved[2, :, 2] == 0).all() and not log_joint.requires_grad
    same, _, accepted = refine(policy, x, model.given(x), space, z, 0)
    assert torch.equal(same, z) and (accepted == 0).all()


@pytest.mark.parametrize("back", [0, 0.0, -1, 1.5])
def test_going_back_must_make_sense(back):
    x, space, policy = torch.tensor([1]), BitSpace(), BitPolicy()
    with pytest.raises(ValueError, match="back"):
        back_and_forth(policy, x, x, space, policy.sample(x, x, space, 1).latent, back)


@dataclass
class Sum(Batched):
    parts: Tensor  # (batch, samples, places): 1 or 2, then zeros

    def total(self):
        return self.parts.sum(2)


class Sums(LatentSpace):
    """Writes `x` as an ordered sum of ones and twos: trajectories of different lengths."""

    unique_trajectory = True

    def initial_state(self, x, samples):
        self.x = x[:, None]
        return Sum(torch.zeros(len(x), samples, 5, dtype=torch.long))

    def final_state(self, x, z):
        return Sum(z)

    def to_latent(self, x, state):
        return state.parts

    def is_final(self, state):
        return state.total() == self.x

    def is_initial(self, state):
        return state.total() == 0

    def forward_mask(self, state):
        return torch.arange(1, 3) <= (self.x - state.total()).unsqueeze(2)

    def backward_mask(self, state):
        return ~self.is_initial(state).unsqueeze(2)

    def _last(self, state):
        return (state.parts > 0).sum(2, keepdim=True)

    def step(self, state, action):
        place = self._last(state).clamp(max=4)
        return Sum(state.parts.scatter(2, place, action[..., None] + 1))

    def unstep(self, state, action):
        return Sum(state.parts.scatter(2, (self._last(state) - 1).clamp(min=0), 0))

    def backward_action(self, state, action):
        return torch.zeros_like(action)

    def forward_action(self, state, action):
        last = state.parts.gather(2, (self._last(state) - 1).clamp(min=0)).squeeze(2)
        return (last - 1).clamp(min=0)


class SumPolicy(Policy):
    def __init__(self):
        super().__init__()
        self.table = torch.nn.Parameter(torch.randn(6, 2) / 2)

    def encode(self, x, given=None):
        return x

    def forward(self, context, state):
        return Step(self.table[state.total()])


class SumTarget(Target):
    def __init__(self):
        super().__init__()
        self.table = torch.nn.Parameter(torch.randn(5, 3) / 2, requires_grad=False)

    def log_joint(self, x, z):
        return self.table[torch.arange(5), z].sum(2)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("back", "all_the_way"),
    [(1, False), (3, False), (0.5, False), (0.8, False), (5, True), (1.0, True)],
)
def test_trajectories_of_different_lengths(back, all_the_way):
    """Exact samples stay exact samples; where chains go all the way back, any start will do."""
    torch.manual_seed(1)
    x, space, policy, target = torch.tensor([5]), Sums(), SumPolicy(), SumTarget()
    found = enumerate_trajectories(space, x).trajectories.latent
    assert found.shape[1] == 8
    posterior = target.log_joint(x, found)[0].softmax(0)
    probabilities = dict(zip(map(tuple, found[0].tolist()), posterior.tolist(), strict=True))
    start = found[:, posterior.multinomial(CHAINS, replacement=True)]
    if all_the_way:
        start = repeated(found, CHAINS)
    z, _, _ = refine(policy, x, target.given(x), space, start, PROPOSALS, back)
    statistic, quantile = chi_square(Counter(map(tuple, z[0].tolist())), probabilities)
    assert statistic < quantile

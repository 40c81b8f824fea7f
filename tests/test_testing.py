import math

import pytest
import torch
from toy import SIZES, BitModel, BitPolicy, BitSpace, strings

from gfnem.enumeration import enumerate_trajectories
from gfnem.testing import LatentSpaceTestCase, TargetTestCase


class TestBitsInAnyOrder(LatentSpaceTestCase):
    def make_space(self):
        return BitSpace()

    def make_x(self):
        return torch.tensor([1, 0, 2, 1])

    def count_objects(self, row):
        return 2 ** SIZES[self.make_x()[row]]

    def count_trajectories(self, row):
        return math.factorial(SIZES[self.make_x()[row]]) * self.count_objects(row)

    def make_policy(self):
        return BitPolicy(scale=5.0)


class TestBitsFromLeftToRight(TestBitsInAnyOrder):
    def make_space(self):
        return BitSpace(ordered=True)

    def count_trajectories(self, row):
        return self.count_objects(row)


class TestBitModel(TargetTestCase):
    frequency_samples = 4000

    def make_target(self):
        return BitModel()

    def make_x(self):
        return torch.tensor([1, 0, 2])

    def make_latents(self, x):
        return torch.randint(2, (3, 20, 3)) * (
            torch.arange(3) < torch.tensor(SIZES)[x][:, None, None]
        )

    def take_latent(self, z, row):
        width = z.shape[2]
        return (
            z[row : row + 1, :, :width]
            if len(z) > 3
            else z[row : row + 1, :, : SIZES[(1, 0, 2)[row]]]
        )

    def enumerate_latents(self, x):
        return strings(SIZES[int(x)])

    def make_space(self):
        return BitSpace()


class WipesTheWrongPlace(BitSpace):
    def backward_action(self, state, action):
        return (action // 2 + 1) % state.value.shape[2]


class AllowsTooMuch(BitSpace):
    def forward_mask(self, state):
        return super().forward_mask(state) | self.is_final(state)[..., None]


class NeverWritesAOne(BitSpace):
    def forward_mask(self, state):
        return super().forward_mask(state) & (torch.arange(2 * state.value.shape[2]) % 2 == 0)


class WritesInPlace(BitSpace):
    def step(self, state, action):
        state.value.scatter_(2, (action // 2)[..., None], (action % 2)[..., None])
        return type(state)(state.value, state.size)


class ClaimsOnePath(BitSpace):
    unique_trajectory = True

    def __init__(self):
        super().__init__()
        self.unique_trajectory = True


class ForgetsABit(BitSpace):
    def to_latent(self, x, state):
        return super().to_latent(x, state)[..., :-1]


class PeeksAtTheBatch(BitPolicy):
    def forward(self, context, state):
        step = super().forward(context, state)
        step.forward = step.forward * (1 + torch.arange(step.forward.shape[-1]) % 2 * len(context))
        return step


class ScoresFlatter(BitPolicy):
    def score(self, context, space, trajectories, flows=False):
        scores = super().score(context, space, trajectories, flows)
        scores.log_pf = scores.log_pf * 0.9
        return scores


class MisreportsItsExploration(BitPolicy):
    def sample(self, context, x, space, samples, exploration=None):
        drawn = super().sample(context, x, space, samples, exploration)
        with torch.no_grad():
            drawn.log_behaviour = super().score(context, space, drawn).log_pf.sum(2)
        return drawn


@pytest.mark.parametrize(
    ("space", "policy", "check"),
    [
        (WipesTheWrongPlace, BitPolicy, "test_undoing_undoes_every_step"),
        (WritesInPlace, BitPolicy, "test_undoing_undoes_every_step"),
        (AllowsTooMuch, BitPolicy, "test_masks_agree_with_initial_and_final"),
        (NeverWritesAOne, BitPolicy, "test_counts"),
        (ClaimsOnePath, BitPolicy, "test_counts"),
        (ForgetsABit, BitPolicy, "test_final_states_and_latents_are_inverse"),
        (BitSpace, PeeksAtTheBatch, "test_padding_does_not_change_probabilities"),
        (BitSpace, ScoresFlatter, "test_forward_probabilities_sum_to_one"),
        (BitSpace, ScoresFlatter, "test_score_equals_step_by_step"),
        (BitSpace, MisreportsItsExploration, "test_explored_samples_know_their_probability"),
    ],
)
def test_the_case_catches(space, policy, check):
    case = TestBitsInAnyOrder()
    case.make_space, case.make_policy = space, lambda: policy(scale=5.0)
    with pytest.raises((AssertionError, RuntimeError)):
        getattr(case, check)()


class Unnormalised(BitModel):
    def log_marginal(self, x):
        return super().log_marginal(x) + 0.1


class SamplesUniformly(BitModel):
    def sample(self, count):
        x, z = super().sample(count)
        return x, torch.randint_like(z, 2) * (
            torch.arange(3) < torch.tensor(SIZES)[x][:, None, None]
        )


class HasAnIdleParameter(BitModel):
    def __init__(self):
        super().__init__()
        self.idle = torch.nn.Parameter(torch.zeros(2))


@pytest.mark.parametrize(
    ("target", "check"),
    [
        (Unnormalised, "test_log_joint_sums_to_log_marginal"),
        (SamplesUniformly, "test_samples"),
        (HasAnIdleParameter, "test_gradients_reach_every_parameter"),
    ],
)
def test_the_target_case_catches(target, check):
    case = TestBitModel()
    case.make_target = target
    with pytest.raises(AssertionError):
        getattr(case, check)()


def test_enumeration_gives_up_at_its_limit():
    with pytest.raises(ValueError, match="more than 10"):
        enumerate_trajectories(BitSpace(), torch.tensor([1]), limit=10)

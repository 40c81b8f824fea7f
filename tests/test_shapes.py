"""A wrong shape in a call of the core is found where it happens, in every test."""

import pytest
import torch
from jaxtyping import TypeCheckError
from shape_checks import EVERY, FIRST, MODULES
from toy import BitModel, BitPolicy, BitSpace

import gfnem
from gfnem.estimates import LogMarginal
from gfnem.objectives import trajectory_balance
from gfnem.policy import Scores, Step
from gfnem.sampling import rollout

X = torch.tensor([0, 1])


def steps(*shape):
    return torch.zeros(2, 3, *shape)


def test_what_is_right_passes():
    loss = trajectory_balance(steps(4), steps(4), steps(), torch.zeros(2))
    assert loss.shape == (2,)


@pytest.mark.parametrize(
    ("call", "what"),
    [
        (lambda: trajectory_balance(steps(4), steps(4), steps(), torch.zeros(3)), "log_z"),
        (lambda: trajectory_balance(steps(4), steps(5), steps(), torch.zeros(2)), "log_pb"),
        (lambda: trajectory_balance(steps(4), steps(4), steps().long(), torch.zeros(2)), "reward"),
        (lambda: Step(steps(4), log_flow=steps(1)), "log_flow"),
        (lambda: Scores(steps(4), steps(4), steps(4)), "mask"),
        (lambda: Scores(steps(4), steps(4), steps(4) > 0, None, steps(4)), "log_flow"),
        (lambda: LogMarginal.from_exact(steps()), "value"),
        (lambda: BitSpace().initial_state(X, 3).take(torch.tensor([0, 1])), "index"),
    ],
)
def test_a_wrong_shape_is_found(call, what):
    with pytest.raises(TypeCheckError, match=what):
        call()


class OneNumberForAll(BitModel):
    def log_joint(self, x, z):
        return super().log_joint(x, z).sum(1)


class FlatFlows(BitPolicy):
    def forward(self, context, state):
        step = super().forward(context, state)
        return Step(step.forward, step.backward, step.log_flow.flatten())


def test_a_users_parts_are_checked_where_the_core_asks_them():
    policy, space = FlatFlows(), BitSpace()
    with pytest.raises(TypeCheckError, match="log_flow"):
        rollout(policy, X, X, space, 3)
    z = BitModel().sample_posterior(X, 3)
    with pytest.raises(TypeCheckError, match="return"):
        OneNumberForAll().given(X).log_joint(z)


def test_first_calls_are_checked_and_some_of_the_others():
    right, wrong = torch.zeros(2), torch.zeros(3)

    def found(log_z):
        try:
            trajectory_balance(steps(4), steps(4), steps(), log_z)
        except TypeCheckError:
            return True
        except RuntimeError:  # shapes that do not fit each other, where they meet
            return False
        return False

    assert all(found(wrong) for _ in range(FIRST))
    assert sum(found(wrong) for _ in range(2 * EVERY)) == 2
    assert not any(found(right) for _ in range(2 * EVERY))


@pytest.mark.parametrize("name", MODULES)
def test_every_module_that_names_shapes_is_checked(name):
    module = __import__(f"gfnem.{name}", fromlist=[name])
    assert hasattr(module, "jaxtyping"), "the import hook came too late"
    assert module.__file__.startswith(gfnem.__path__[0])

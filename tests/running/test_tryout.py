"""A world whose parts do not fit is refused before training, and the part is named."""

import pytest
import torch
from toy import BitModel, BitPolicy, BitSpace

from gfnem.errors import UserError
from gfnem.running.tryout import try_out, what_is_wrong

KINDS = torch.tensor([0, 1])


class Wrong(BitModel):
    """A model whose log joint is for the last observation not a number."""

    def log_joint(self, x, z):
        value = super().log_joint(x, z)
        return torch.cat([value[:-1], value[-1:] * torch.nan])


class Misshapen(BitModel):
    """A model that sums its samples up."""

    def log_joint(self, x, z):
        return super().log_joint(x, z).sum(1)


def test_a_world_that_fits_passes_and_draws_no_random_numbers():
    torch.manual_seed(0)
    state = torch.get_rng_state()
    try_out(BitModel(), BitSpace(), BitPolicy(), KINDS)
    parts = torch.get_rng_state()
    torch.set_rng_state(state)
    BitModel(), BitPolicy()
    assert torch.equal(torch.get_rng_state(), parts)


def test_an_impossible_pair_is_no_fault():
    model = BitModel()
    with torch.no_grad():
        model.unary[:, 0, 1] = -1e30
    assert what_is_wrong(model, BitSpace(), BitPolicy(), KINDS) is None


@pytest.mark.parametrize(
    ("model", "said"),
    [
        (Wrong(), "Wrong.log_joint is not a finite number for observation 1 of the batch"),
        (Misshapen(), r"Misshapen.log_joint has the shape \(2,\), not \(2, 2\)"),
    ],
)
def test_a_fault_is_named(model, said):
    with pytest.raises(UserError, match=said):
        try_out(model, BitSpace(), BitPolicy(), KINDS)


def test_a_parameter_that_is_not_finite_is_named():
    policy = BitPolicy()
    with torch.no_grad():
        policy.normaliser[0] = torch.inf
    with pytest.raises(UserError, match="BitPolicy: the parameter normaliser is not finite"):
        try_out(BitModel(), BitSpace(), policy, KINDS)

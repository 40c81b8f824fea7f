"""Training reaches every parameter of the samplers."""

import pytest
import torch

from gfnem.energies import AssignmentPolicy, AssignmentSpace, MaskedPolicy, Pairwise
from gfnem.objectives import (
    BalancedVarGrad,
    DetailedBalance,
    SubTrajectoryBalance,
    TrajectoryBalance,
)
from gfnem.testing import PolicyTestCase


class _Policy(PolicyTestCase):
    sizes = (4, 2, 2, "any")

    def make_target(self):
        model = Pairwise(4, 2)
        for parameter in model.parameters():
            parameter.data.normal_(0, 0.5)
        return model

    def make_space(self):
        return AssignmentSpace(*self.sizes)

    def make_x(self):
        return torch.tensor([[-1, -1, -1, -1], [-1, 1, -1, -1], [0, 1, -1, -1]])

    def make_objectives(self):
        return BalancedVarGrad(), TrajectoryBalance(), DetailedBalance(), SubTrajectoryBalance()


class TestUniformOrder(_Policy):
    def make_policy(self):
        return AssignmentPolicy(*self.sizes, hidden=8)


class TestLearnedOrder(_Policy):
    def make_policy(self):
        return AssignmentPolicy(*self.sizes, backward="learned", hidden=8)


class TestMasked(_Policy):
    sizes = (4, 2, 1, "fixed")

    def make_policy(self):
        return MaskedPolicy(*self.sizes, hidden=9)


class TestTables(_Policy):
    sizes = (4, 2, 1, "fixed")

    def make_policy(self):
        policy = MaskedPolicy(*self.sizes, hidden=9, tables=2)
        for table in policy.tables:
            table.data.normal_()
        return policy


def test_tables_tell_rows_apart_that_a_network_does_not():
    """Any distribution of three blocks, from a network that says nothing."""
    torch.manual_seed(0)
    policy, p = MaskedPolicy(6, 2, 2, hidden=4, tables=2), torch.rand(4, 4, 4)
    with torch.no_grad():
        policy.stages[-1].bias[:4] = p.sum((1, 2)).log()
        for table, log_p in zip(policy.tables, (p.sum(2).log(), p.log()), strict=True):
            table.copy_(log_p.flatten(0, -2))
    nothing, every = torch.full((1, 6), -1), torch.cartesian_prod(*[torch.arange(2)] * 6)
    found = policy.steps(nothing, every[None])[0].sum(2)[0]
    assert torch.allclose(found, (p / p.sum()).flatten().log(), atol=1e-5)
    with pytest.raises(ValueError, match="tables 3: of 3 blocks"):
        MaskedPolicy(6, 2, 2, tables=3)
    with pytest.raises(ValueError, match="at most 65536 entries"):
        MaskedPolicy(60, 2, 10, tables=2)


def test_a_masked_network_looks_at_nothing_to_come():
    torch.manual_seed(0)
    policy = MaskedPolicy(6, 3, 2, hidden=16)
    for parameter in policy.parameters():
        parameter.data.normal_()
    z = torch.randint(3, (5, 6))
    logits, flows = policy.heads(z)
    for block in range(3):
        other = z.clone()
        other[:, 2 * block :] = torch.randint(3, (5, 6 - 2 * block))
        again = policy.heads(other)
        assert torch.equal(logits[:, : block + 1], again[0][:, : block + 1])
        assert torch.equal(flows[:, : block + 1], again[1][:, : block + 1])
    changed = policy.heads((z + 1) % 3)
    assert not torch.allclose(logits[:, 1:], changed[0][:, 1:])

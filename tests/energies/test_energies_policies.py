"""Training reaches every parameter of the samplers."""

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

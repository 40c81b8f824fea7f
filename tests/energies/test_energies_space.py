"""Assignments: any order and fixed order, blocks, rows with missing entries and latent units."""

import math
from typing import ClassVar

import pytest
import torch

from gfnem.energies import AssignmentPolicy, AssignmentSpace, MaskedPolicy
from gfnem.mcmc import metropolis
from gfnem.testing import LatentSpaceTestCase

ROWS = torch.tensor([[-1, -1], [1, -1], [-1, 0]])


def disturbed(policy):
    """Random parameters also where a policy starts from zeros."""
    torch.manual_seed(3)
    for parameter in policy.parameters():
        parameter.data.normal_(0, 0.6)
    return policy


class _Bits(LatentSpaceTestCase):
    """Two visible bits and a latent one."""

    frequency_samples = 2000
    settings: ClassVar = {"variables": 3, "values": 2, "order": "any"}

    def make_space(self):
        return AssignmentSpace(**self.settings)

    def make_x(self):
        return ROWS

    def count_objects(self, row):
        return 2 ** (3 - int((ROWS[row] >= 0).sum()))

    def make_policy(self):
        return disturbed(AssignmentPolicy(**self.settings, block=1, hidden=8, layers=1))


class TestAnyOrder(_Bits):
    def count_trajectories(self, row):
        open = 3 - int((ROWS[row] >= 0).sum())
        return 2**open * math.factorial(open)


class TestLearnedOrder(_Bits):
    def make_policy(self):
        return disturbed(
            AssignmentPolicy(**self.settings, block=1, backward="learned", hidden=8, layers=1)
        )


class TestFixedOrder(_Bits):
    settings: ClassVar = {"variables": 3, "values": 2, "order": "fixed"}

    def make_policy(self):
        return disturbed(MaskedPolicy(**self.settings, block=1, hidden=8, layers=1))


class TestBlocks(LatentSpaceTestCase):
    """Blocks of two trits, of which one may be known."""

    frequency_samples = 2000
    order = "any"
    rows = torch.tensor([[-1, -1, 2, 1], [0, -1, -1, 2]])

    def make_space(self):
        return AssignmentSpace(4, 3, 2, self.order)

    def make_x(self):
        return self.rows

    def count_objects(self, row):
        return 3 ** int((self.rows[row] < 0).sum())

    def make_policy(self):
        return disturbed(AssignmentPolicy(4, 3, 2, self.order, hidden=8, layers=1))


class TestBlocksInOrder(TestBlocks):
    order = "fixed"

    def make_policy(self):
        return disturbed(MaskedPolicy(4, 3, 2, self.order, hidden=8, layers=1))


class TestUnequalCounts(TestBlocks):
    """Variables of two, three, one and three values."""

    settings: ClassVar = {"block": 2, "order": "any", "counts": [2, 3, 1, 3]}
    rows = torch.tensor([[-1, -1, 0, 1], [0, -1, -1, -1]])

    def make_space(self):
        return AssignmentSpace(4, 3, **self.settings)

    def count_objects(self, row):
        counts = torch.tensor(self.settings["counts"])
        return int(counts[self.rows[row] < 0].prod())

    def make_policy(self):
        return disturbed(AssignmentPolicy(4, 3, **self.settings, hidden=8, layers=1))


class TestUnequalCountsInOrder(TestUnequalCounts):
    settings: ClassVar = {"block": 1, "order": "fixed", "counts": [2, 3, 1, 3]}

    def make_policy(self):
        return disturbed(MaskedPolicy(4, 3, **self.settings, hidden=8, layers=1))


class _Summed(_Bits):
    """Two visible bits that are never written, known or not, and two latent ones."""

    settings: ClassVar = {"variables": 4, "values": 2, "order": "any", "summed": 2}

    def count_objects(self, row):
        return 4


class TestSummedInAnyOrder(_Summed):
    def count_trajectories(self, row):
        return 4 * 2


class TestSummedInFixedOrder(_Summed):
    settings: ClassVar = {**_Summed.settings, "order": "fixed"}

    def make_policy(self):
        return disturbed(MaskedPolicy(**self.settings, block=1, hidden=8, layers=2))


def test_what_is_released_loses_what_is_never_written():
    z = torch.tensor([[[0, 1, 1, 0]]])
    assert AssignmentSpace(4, 2, summed=2).released(z).tolist() == [[[-1, -1, 1, 0]]]
    assert torch.equal(AssignmentSpace(4, 2).released(z), z)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((5, 2, 2), "5 variables do not make blocks of 2"),
        ((6, 2, 2, "fixed", 3), "3 and 3 variables do not make blocks of 2"),
        ((16, 2, 16), "takes 65536 values together"),
        ((4, 2, 1, "random"), "order is any or fixed"),
    ],
)
def test_blocks_that_do_not_fit(arguments, message):
    with pytest.raises(ValueError, match=message):
        AssignmentSpace(*arguments)


@pytest.mark.parametrize("values", [2, 3])
def test_changes_keep_what_is_observed_and_are_symmetric(values):
    torch.manual_seed(0)
    space, x = AssignmentSpace(4, values), torch.tensor([[1, -1, -1], [0, 1, 1]])
    moves = space.moves()
    z = moves.initial(x, 3000)
    assert (z[0, :, 0] == 1).all() and (z[1, :, :3] == x[1]).all()
    start = torch.zeros_like(z) + torch.tensor([1, 0, 0, 0])
    new, log_ratio = moves.propose(x[:1], start[:1])
    assert (log_ratio == 0).all() and ((new != start[:1]).sum(2) == 1).all()
    assert (new[0, :, 0] == 1).all()
    changed = (new[0, :, 1:] != 0).float().mean(0)
    assert torch.allclose(changed, torch.full((3,), 1 / 3), atol=0.05)
    full = torch.tensor([[1, 0, 1, 1]])
    same, log_ratio = moves.propose(full, full[None])
    assert torch.equal(same, full[None]) and log_ratio.item() == -math.inf
    ends, _, _ = metropolis(moves, lambda z: z.sum(2).float(), x, z, 5)
    assert (ends[0, :, 0] == 1).all()

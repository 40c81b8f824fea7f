"""Sums of spans against the formula written out."""

import pytest
import torch

from gfnem.parsing.policies.dropout import Dropout
from gfnem.parsing.policies.encoder import span_list
from gfnem.parsing.policies.span_sums import SpanSums


@pytest.fixture
def parts():
    torch.manual_seed(0)
    shapes = (2, 6, 3), (2, 6, 3), (6, 3)
    return [torch.randn(shape, dtype=torch.float64, requires_grad=True) for shape in shapes]


@pytest.mark.parametrize("narrowest", [1, 2, 3, 5])
def test_sums_and_their_gradient_are_those_of_the_formula(parts, narrowest):
    left, right, width = parts
    starts, ends = span_list(5, left.device, narrowest)
    plain = (left[:, starts] + right[:, ends] + width[ends - starts]).relu()
    found = SpanSums(0.5).eval()(left, right, width, narrowest)
    torch.testing.assert_close(found, plain)
    weights = torch.randn_like(plain)
    wanted = torch.autograd.grad((plain * weights).sum(), parts)
    torch.testing.assert_close(torch.autograd.grad((found * weights).sum(), parts), wanted)


def test_dropout_drops_its_share_unit_by_unit_and_keeps_the_mean():
    torch.manual_seed(0)
    ones = torch.ones(50, 11, 16)
    found = SpanSums(0.25)(ones, ones, torch.ones(11, 16))
    kept = found > 0
    torch.testing.assert_close(found[kept], torch.full_like(found[kept], 3 / 0.75))
    assert abs(kept.float().mean() - 0.75) < 0.01  # 44,000 draws: five deviations
    for axis in range(3):  # no neighbour decides for the next
        size = kept.shape[axis] - 1
        both = kept.narrow(axis, 0, size) & kept.narrow(axis, 1, size)
        assert abs(both.float().mean() - 0.75**2) < 0.015


@pytest.mark.parametrize("share", [0.25, 0.999])
def test_dropout_by_bytes_keeps_the_mean(share):
    torch.manual_seed(0)
    dropout = Dropout(share)
    found = dropout(torch.ones(200, 1000))
    share = dropout.dropped / 256
    assert abs((found == 0).float().mean() - share) < 0.005  # 200,000 draws: five deviations
    torch.testing.assert_close(found[found > 0].amin() * (1 - share), torch.tensor(1.0))
    assert torch.equal(dropout.eval()(found), found)


def test_the_gradient_passes_through_what_was_kept(parts):
    left, right, width = parts
    torch.manual_seed(1)
    found = SpanSums(0.5)(left, right, width)
    starts, ends = span_list(5, left.device)
    plain = 2 * (left[:, starts] + right[:, ends] + width[ends - starts])
    wanted = torch.autograd.grad(torch.where(found > 0, plain, 0.0).sum(), parts)
    torch.testing.assert_close(torch.autograd.grad(found.sum(), parts), wanted)

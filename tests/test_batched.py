"""Dataclasses of tensors as one tensor: rows chosen, joined, picked, against plain indexing."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from torch import Tensor
from toy import BitModel, BitPolicy, BitSpace

from gfnem.batched import Batched, as_lists, choose, each, pick, tensors_of
from gfnem.errors import UserError
from gfnem.running.tryout import try_out
from gfnem.testing import LatentSpaceTestCase


@dataclass
class Inner(Batched):
    weight: Tensor  # (batch, samples)


@dataclass
class Outer(Batched):
    places: Tensor  # (batch, samples, 4)
    inner: Inner
    path: list[Inner]
    note: Inner | None = None


@dataclass
class Forgotten:
    value: Tensor


def outer(seed: int, batch: int = 3, samples: int = 5) -> Outer:
    generator = torch.Generator().manual_seed(seed)
    inner = [Inner(torch.rand(batch, samples, generator=generator)) for _ in range(3)]
    return Outer(torch.rand(batch, samples, 4, generator=generator), inner[0], inner[1:])


def same(one: Outer, other: Outer) -> bool:
    pairs = zip(tensors_of(one), tensors_of(other), strict=True)
    return type(one) is type(other) and all(torch.equal(a, b) for a, b in pairs)


def test_tensors_are_found_in_order_at_any_depth():
    z = outer(0)
    expected = [z.places, z.inner.weight, z.path[0].weight, z.path[1].weight]
    assert all(a is b for a, b in zip(tensors_of(z), expected, strict=True))
    assert z.map(torch.neg).note is None and len(z) == 3
    assert tensors_of(z.places) == [z.places] and tensors_of(None) == []


def test_a_function_goes_over_corresponding_tensors():
    total = outer(0).map(torch.add, outer(1))
    for found, a, b in zip(*map(tensors_of, (total, outer(0), outer(1))), strict=True):
        assert torch.equal(found, a + b)


def test_rows_of_one_or_the_other():
    one, other, mask = outer(0), outer(1), torch.rand(3, 5) < 0.5
    mixed = one.where(mask, other)
    for found, a, b in zip(*map(tensors_of, (mixed, one, other)), strict=True):
        assert torch.equal(found[mask], a[mask]) and torch.equal(found[~mask], b[~mask])
    assert one.where(mask, one).places is one.places  # what both share is not copied


def test_samples_are_picked_by_number():
    z, index = outer(0), torch.tensor([[4, 4], [0, 1], [2, 0]])
    picked = z.take(index)
    for found, tensor in zip(tensors_of(picked), tensors_of(z), strict=True):
        for row in range(3):
            for place in range(2):
                assert torch.equal(found[row, place], tensor[row, index[row, place]])


def test_joining_and_indexing_undo_each_other():
    one, other = outer(0), outer(1)
    folded = Batched.cat([one, other])  # time is folded into samples
    assert folded.places.shape == (3, 10, 4)
    unfolded = folded.places.unflatten(1, (2, 5))
    assert torch.equal(unfolded[:, 0], one.places) and torch.equal(unfolded[:, 1], other.places)
    assert same(folded[:, :5], one) and same(folded[:, 5:], other)
    rows = Batched.cat([one, other], 0)
    assert len(rows) == 6 and same(rows[3:], other)
    assert same(rows[torch.tensor([1, 5])], Batched.cat([one[1:2], other[2:]], 0))
    assert rows.to(torch.float64).inner.weight.dtype == torch.float64


def test_bare_tensors_and_lists_are_structures_too():
    z, index = torch.rand(2, 4, 3), torch.tensor([[1], [3]])
    picked = each(lambda tensor: pick(tensor, index), [z, (Inner(z[..., 0]), None)])
    assert torch.equal(picked[0][:, 0], z[torch.arange(2), index[:, 0]])
    assert torch.equal(picked[1][0].weight, picked[0][..., 0]) and picked[1][1] is None
    mask = torch.tensor([[True, False, True, False]]).expand(2, -1)
    assert torch.equal(choose(mask, z, -z), torch.where(mask[..., None], z, -z))


def test_entries_become_plain_data():
    z = Outer(torch.ones(1, 2, 1), Inner(torch.zeros(1, 2)), [])[:, :1]
    assert as_lists(z.places, 2) == [[[1.0]]]
    assert as_lists(Inner(torch.tensor([[1, 2]])), 2) == [[{"weight": 1}, {"weight": 2}]]
    assert as_lists(Inner(torch.tensor([[1, 2]])), 1) == [{"weight": [1, 2]}]


def test_a_dataclass_that_is_not_batched_is_refused_in_words():
    with pytest.raises(TypeError, match=r"declared as class Forgotten\(gfnem.Batched\)"):
        each(torch.neg, Forgotten(torch.ones(1)))


class PlainStates(BitSpace):
    def initial_state(self, x, samples):
        return Forgotten(super().initial_state(x, samples).value)


class LengthsOfRows(BitSpace):
    def initial_state(self, x, samples):
        state = super().initial_state(x, samples)
        return type(state)(state.value, state.size[:, 0])


@pytest.mark.parametrize(
    ("space", "words"),
    [
        (PlainStates, r"Forgotten is no state: declare it as @dataclass class Forgotten\(gfnem"),
        (LengthsOfRows, r"a tensor of Places has the shape \(2,\), not \(2, 2, ...\)"),
    ],
)
def test_the_shipped_case_says_what_to_change(space, words):
    class Case(LatentSpaceTestCase):
        def make_space(self):
            return space()

        def make_x(self):
            return torch.tensor([0, 1])

        def make_policy(self):
            return BitPolicy()

    with pytest.raises(AssertionError, match=words):
        Case().test_masks_agree_with_initial_and_final()
    with pytest.raises(UserError, match=f"{space.__name__}: {words}"):  # and so does training
        try_out(BitModel(), space(), BitPolicy(), torch.tensor([0, 1]))

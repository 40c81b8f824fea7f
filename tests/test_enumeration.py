"""Exhaustive search finds every trajectory once, whatever the rows of the batch have."""

import math

import pytest
import torch
from toy import BitSpace

from gfnem.batched import tensors_of
from gfnem.enumeration import enumerate_states, enumerate_trajectories, keys_of

KINDS = torch.tensor([0, 1, 2])  # 2, 3 and no places


def test_it_lists_every_order_of_every_string():
    found = enumerate_trajectories(BitSpace(), KINDS)
    # n places are filled in n! orders with 2^n strings; the empty row has one empty trajectory
    expected = [math.factorial(n) * 2**n for n in (2, 3, 0)]
    assert found.valid.sum(1).tolist() == expected
    steps = found.trajectories.mask.sum(2)
    assert all((steps[row][found.valid[row]] == n).all() for row, n in enumerate((2, 3, 0)))
    actions = found.trajectories.actions
    keys = {tuple(a.tolist()) for a in actions[1][found.valid[1]]}
    assert len(keys) == expected[1]


def test_a_space_with_unique_trajectories_has_one_for_each_string():
    found = enumerate_trajectories(BitSpace(ordered=True), KINDS)
    assert found.valid.sum(1).tolist() == [4, 8, 1]
    strings = keys_of(found.trajectories.latent, found.valid.shape)
    for row, count in enumerate((4, 8, 1)):
        valid = found.valid[row].tolist()
        assert len({key for key, keep in zip(strings[row], valid, strict=True) if keep}) == count


def test_too_many_are_refused():
    with pytest.raises(ValueError, match="more than 10 trajectories"):
        enumerate_trajectories(BitSpace(), KINDS, limit=10)


def test_states_are_far_fewer():
    assert len(enumerate_states(BitSpace(), KINDS[1:2])) == 3**3
    assert len(enumerate_states(BitSpace(), KINDS[2:])) == 1  # it is final from the start
    with pytest.raises(ValueError, match="more than 10 states"):
        enumerate_states(BitSpace(), KINDS[:1] + 1, limit=10)
    with pytest.raises(ValueError, match="one observation"):
        enumerate_states(BitSpace(), KINDS)


def test_the_tensors_of_a_state_are_its_fields():
    state = BitSpace().initial_state(KINDS, 2)
    value, size = tensors_of(state)
    assert value is state.value and size is state.size

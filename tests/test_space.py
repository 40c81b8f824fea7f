"""States as dataclasses of tensors: rows chosen, joined and picked."""

import pytest
import torch
from toy import BitSpace

from gfnem.offers import NotOffered
from gfnem.space import concatenate, map_states, where

KINDS = torch.tensor([0, 1])


def states():
    space = BitSpace()
    start = space.initial_state(KINDS, 3)
    return space, start, space.step(start, torch.tensor([[0, 1, 2], [3, 4, 5]]))


def test_rows_of_one_or_the_other():
    _, start, after = states()
    condition = torch.tensor([[True, False, True], [False, False, True]])
    mixed = where(condition, after, start)
    assert torch.equal(mixed.value[condition], after.value[condition])
    assert torch.equal(mixed.value[~condition], start.value[~condition])


def test_time_is_folded_into_samples():
    _, start, after = states()
    joined = concatenate([start, after])
    assert joined.value.shape == (2, 6, 3)
    unfolded = joined.value.unflatten(1, (2, 3))
    assert torch.equal(unfolded[:, 0], start.value) and torch.equal(unfolded[:, 1], after.value)


def test_a_function_goes_over_corresponding_tensors():
    _, start, after = states()
    assert torch.equal(map_states(torch.eq, after, after).value, torch.ones(2, 3, 3).bool())
    assert not map_states(torch.eq, start, after).value.all()


def test_samples_are_picked_by_number():
    space, _, _ = states()
    z = torch.tensor([[[0, 1, 0], [1, 1, 0]], [[1, 0, 1], [0, 0, 1]]])
    picked = space.pick(KINDS, z, torch.tensor([[1], [0]]))
    assert picked.tolist() == [[[1, 1, 0]], [[1, 0, 1]]]


def test_states_to_a_latent_are_not_listed_unless_a_space_says_how():
    space, _, _ = states()
    assert not space.offers("states") and space.offers("moves")
    with pytest.raises(NotOffered, match="BitSpace offers no states"):
        space.states(KINDS, None)

"""Random numbers go on where they stopped, and differ between processes."""

import torch

from gfnem.running.random_streams import new_stream, own_stream, random_state, set_random_state


def drawn() -> list[float]:
    return torch.rand(4).tolist()


def test_a_state_that_is_put_back_repeats():
    torch.manual_seed(3)
    state = random_state()
    first = drawn()
    assert drawn() != first
    set_random_state(state)
    assert drawn() == first


def test_rank_0_keeps_its_numbers_and_the_others_get_their_own():
    found = []
    for rank in (0, 1, 2):
        torch.manual_seed(3)
        own_stream(rank)
        found.append(tuple(drawn()))
    torch.manual_seed(3)
    assert found[0] == tuple(drawn()) and len(set(found)) == 3


def test_a_new_stream_is_a_function_of_state_and_rank():
    torch.manual_seed(3)
    state = torch.get_rng_state()
    found = []
    for rank in (0, 1, 0):
        new_stream(state, rank)
        found.append(drawn())
    assert found[0] == found[2] != found[1]

"""What a space offers, and what it does not."""

import pytest
import torch
from toy import BitSpace

from gfnem.offers import NotOffered

KINDS = torch.tensor([0, 1])


def test_states_to_a_latent_are_not_listed_unless_a_space_says_how():
    space = BitSpace()
    assert not space.offers("states") and space.offers("moves")
    with pytest.raises(NotOffered, match="BitSpace offers no states"):
        space.states(KINDS, None)

"""Policies: what they do by themselves with a network's scores."""

import pytest
import torch
from toy import BitPolicy, BitSpace

from gfnem.enumeration import enumerate_trajectories
from gfnem.offers import NotOffered
from gfnem.policy import Policy, Step
from gfnem.sampling import Exploration

KINDS = torch.tensor([0, 1, 2])


class Uniform(Policy):
    """Every permitted action alike; it offers nothing more."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))

    def encode(self, x, given=None):
        return x

    def forward(self, context, state):
        batch, samples, places = state.value.shape
        return Step(self.weight.expand(batch, samples, 2 * places))


def test_a_policy_without_a_backward_network_goes_back_uniformly():
    found = enumerate_trajectories(BitSpace(), KINDS)
    scores = Uniform().score(KINDS, BitSpace(), found.trajectories)
    # three places in any order: forward 1/6 1/4 1/2, backward 1/3 1/2 1
    three = scores.log_pf[1].sum(1)[found.valid[1]].exp()
    assert torch.allclose(three, torch.tensor(1 / 48), atol=1e-6)
    assert torch.allclose(scores.log_pb[1].sum(1)[found.valid[1]].exp(), torch.tensor(1 / 6))
    assert scores.log_flow is None and scores.log_z is None


def test_all_trajectories_of_a_random_policy_sum_to_one():
    torch.manual_seed(0)
    found = enumerate_trajectories(BitSpace(), KINDS)
    log_pf = BitPolicy(scale=3.0).score(KINDS, BitSpace(), found.trajectories).log_pf.sum(2)
    total = log_pf.masked_fill(~found.valid, -torch.inf).logsumexp(1)
    torch.testing.assert_close(total, torch.zeros(3), atol=1e-5, rtol=0)


def test_retraced_trajectories_end_where_they_should():
    torch.manual_seed(0)
    policy, space = BitPolicy(), BitSpace()
    z = torch.tensor([[[1, 0, 0]], [[1, 1, 1]], [[0, 0, 0]]])
    found = policy.retrace(KINDS, KINDS, space, z)
    assert torch.equal(found.latent, z) and torch.equal(space.to_latent(KINDS, found.states[-1]), z)
    assert space.is_initial(found.states[0]).all()


def test_hooks_are_refused_in_words():
    policy = Uniform()
    assert not policy.offers("log_z") and BitPolicy().offers("log_z")
    with pytest.raises(NotOffered, match="Uniform offers no log_z"):
        policy.log_z(KINDS)


def test_a_part_of_log_z_is_known_by_its_name():
    assert BitPolicy().is_for_log_z("normaliser") and not BitPolicy().is_for_log_z("network.0.bias")
    assert not BitPolicy().is_for_log_z("normaliser_of_another")


def test_an_exploring_sample_knows_how_it_was_drawn():
    torch.manual_seed(0)
    policy, space = BitPolicy(scale=3.0), BitSpace()
    drawn = policy.sample(KINDS, KINDS, space, 4, Exploration(1.0, 1.0))
    # with epsilon 1 every step is uniform: three places are filled with probability 1/48
    torch.testing.assert_close(drawn.log_behaviour[1].exp(), torch.full((4,), 1 / 48))

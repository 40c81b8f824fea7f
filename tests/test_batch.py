"""What the phases of an update share: made once, dropped when what it depends on has moved."""

import pytest
import torch
from toy import BitModel, BitPolicy, BitSpace

from gfnem.batch import Batch
from gfnem.em import EM
from gfnem.sources import Own, PosteriorSamples

KINDS = torch.tensor([0, 1, 1, 2])


@pytest.fixture
def em():
    torch.manual_seed(0)
    return EM(BitModel(), BitSpace(), BitPolicy())


def test_encodings_and_the_conditioned_model_are_made_once(em):
    batch = Batch(em, KINDS)
    assert batch.given is batch.given and batch.context is batch.context


def test_what_depends_on_the_model_is_dropped_when_it_moves(em):
    batch = Batch(em, KINDS)
    draws = batch.draw(Own(3))
    given, log_joint, z = batch.given, draws.log_joint, draws.z
    batch.forget("policy")
    assert batch.given is given and draws.log_joint is log_joint
    with torch.no_grad():
        em.model.unary += torch.randn_like(em.model.unary)
    batch.forget("model")
    assert batch.given is not given and draws.z is z
    assert not torch.equal(draws.log_joint, log_joint)


def test_importance_weights_average_to_the_marginal(em):
    draws = Batch(em, KINDS).draw(Own(4000))
    estimate = draws.log_weight.logsumexp(1) - torch.tensor(4000.0).log()
    torch.testing.assert_close(estimate, em.model.log_marginal(KINDS).detach(), atol=0.05, rtol=0)


def test_the_weights_are_those_of_the_policy_that_drew(em):
    batch = Batch(em, KINDS)
    draws = batch.draw(Own(3))
    weights = draws.log_weight
    with torch.no_grad():
        em.policy.network[-1].weight += 1
    batch.forget("policy")
    assert torch.equal(draws.log_weight, weights)


def test_structures_from_elsewhere_are_retraced(em):
    draws = Batch(em, KINDS).draw(PosteriorSamples(3))
    assert torch.equal(draws.trajectories.latent, draws.z)
    assert draws.scores().log_pf.shape[:2] == (4, 3)


def test_a_structure_is_picked_by_its_number(em):
    draws = Batch(em, KINDS).draw(Own(3))
    index = torch.tensor([[2], [0], [1], [0]])
    assert torch.equal(draws.pick(index)[:, 0], draws.z[torch.arange(4), index[:, 0]])

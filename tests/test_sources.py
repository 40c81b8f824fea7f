"""Sources: what they draw, for whom, and what they need."""

import pytest
import torch
from toy import BitModel, BitPolicy, BitSpace

from gfnem.batch import Batch
from gfnem.em import EM
from gfnem.offers import NotOffered
from gfnem.sources import Chains, ModelSamples, Own, PosteriorSamples, Refined, Replay
from gfnem.target import Target

KINDS = torch.tensor([0, 1, 1, 2])


@pytest.fixture
def em():
    torch.manual_seed(0)
    return EM(BitModel(), BitSpace(), BitPolicy())


def shares(z, kind, size):
    """How often each of a kind's strings comes, in the order of `toy.strings`."""
    code = (z[..., :size] * 2 ** torch.arange(size).flip(0)).sum(-1)
    return torch.bincount(code.flatten(), minlength=2**size) / code.numel()


@pytest.mark.parametrize(
    "source",
    [Own(3), PosteriorSamples(3), Chains(3, 5), Refined(Own(3), 2), Replay(Own(3))],
    ids=lambda source: type(source).__name__,
)
def test_draws_lead_with_batch_and_samples_and_carry_no_gradient(em, source):
    draws = source.draw(Batch(em, KINDS))
    assert draws.z.shape == (4, 3, 3) and draws.log_joint.shape == (4, 3)
    assert not draws.log_joint.requires_grad and torch.isfinite(draws.log_joint).all()


def test_phases_that_share_a_source_share_its_draws(em):
    batch, source = Batch(em, KINDS), Own(3)
    assert batch.draw(source) is batch.draw(source)
    assert batch.draw(source) is not batch.draw(Own(3))


def test_posterior_samples_and_long_chains_follow_the_posterior(em):
    x = torch.tensor([1])
    exact = em.model.posterior(1)
    for source in (PosteriorSamples(4000), Chains(4000, 200)):
        found = shares(source.draw(Batch(em, x)).z, 1, 3)
        assert (found - exact).abs().sum() < 0.1, type(source).__name__


def test_persistent_chains_are_in_a_checkpoint(em):
    chains, x = Chains(4, 20, True), torch.tensor([0, 1])
    ends = chains.draw(Batch(em, x)).z
    other = Chains(4, 0, True)
    other.load_state_dict(chains.state_dict())
    saved = other.state_dict()  # also before the next draw
    assert torch.equal(other.draw(Batch(em, x)).z, ends)
    other.load_state_dict(saved)
    assert torch.equal(other.draw(Batch(em, x)).z, ends)


def test_persistent_chains_go_on_where_they_were(em):
    x = torch.tensor([0, 1])
    for persistent in (True, False):
        chains = Chains(4, 20, persistent)
        ends = chains.draw(Batch(em, x)).z
        chains.steps = 0
        assert torch.equal(chains.draw(Batch(em, x)).z, ends) == persistent


def test_dreams_have_observations_of_their_own(em):
    batch = Batch(em, KINDS)
    draws = batch.draw(ModelSamples())
    assert draws.batch is not batch and len(draws.batch) == 4 and draws.z.shape[:2] == (4, 1)


def test_a_replayed_batch_comes_back_with_its_observations(em):
    replay = Replay(Own(2), capacity=1, share=1.0)
    first = replay.draw(Batch(em, KINDS))
    again = replay.draw(Batch(em, torch.tensor([0, 0, 0, 0])))
    assert torch.equal(again.batch.x, KINDS) and torch.equal(again.z, first.z)
    # the policy has moved since: trajectories are drawn anew, and nothing is weighted
    assert torch.equal(again.trajectories.latent, first.z) and not replay.weighted


def test_own_samples_know_whether_they_stray():
    assert Own().on_policy and Own().weighted
    assert not Own(epsilon=0.1).on_policy and not Own(temperature=2.0).on_policy


@pytest.mark.parametrize(
    ("source", "hook"), [(ModelSamples(), "sample"), (PosteriorSamples(), "sample_posterior")]
)
def test_a_part_that_lacks_a_hook_is_named(monkeypatch, source, hook):
    monkeypatch.setattr(BitModel, hook, getattr(Target, hook))
    with pytest.raises(NotOffered, match=f"BitModel offers no {hook}"):
        source.check(BitModel(), BitSpace(), BitPolicy())

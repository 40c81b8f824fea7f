"""Draws that are spread evenly are draws of the policy, with less noise together."""

import pytest
import torch

from gfnem.energies import AssignmentPolicy, AssignmentSpace, MaskedPolicy, Pairwise
from gfnem.offers import NotOffered
from gfnem.phases import TrainPolicy
from gfnem.sampling import Exploration, inverted, within
from gfnem.sources import Own


def _policy(variables=6, block=2, **settings):
    torch.manual_seed(0)
    policy = MaskedPolicy(variables, 2, block, hidden=16, **settings)
    for parameter in policy.parameters():
        parameter.data.normal_(0, 0.7)
    return policy


def _counts(policy, x, samples, exploration=None):
    """Rows `(batch, samples, variables)`, and how often each of all rows was drawn."""
    found = policy.arithmetic_sample(policy.encode(x), x, policy.space, samples, exploration)
    number = (found.latent * 2 ** torch.arange(policy.variables)).sum(2)
    return found, torch.stack([row.bincount(minlength=2**policy.variables) for row in number])


@pytest.mark.parametrize("tables", [0, 2])
@pytest.mark.parametrize("exploration", [None, Exploration(1.5, 0.2)])
def test_each_row_is_drawn_as_often_as_it_should_but_for_one(exploration, tables):
    policy, x = _policy(tables=tables), torch.tensor([[-1] * 6, [1, -1, -1, 0, -1, -1]])
    samples = 3000
    found, counts = _counts(policy, x, samples, exploration)
    seen = found.latent.gather(2, torch.arange(6).expand_as(found.latent))
    assert (seen[1, :, 0] == 1).all() and (seen[1, :, 3] == 0).all()
    number = (found.latent * 2 ** torch.arange(6)).sum(2)
    expected = samples * found.log_behaviour.exp()
    # a row's share of the numbers is one stretch, as long as the row is probable
    assert (counts.gather(1, number) - expected).abs().max() <= 1 + 1e-3
    if exploration is None:
        scores = policy.score(policy.encode(x), policy.space, found)
        assert torch.allclose(scores.log_pf.sum(2), found.log_behaviour, atol=1e-5)


def test_a_draw_by_itself_is_one_of_the_policy():
    policy, x = _policy(), torch.full((6_000, 6), -1)
    found, counts = _counts(policy, x, 3)
    number = (found.latent * 2 ** torch.arange(6)).sum(2)
    chance = torch.zeros(64).scatter(0, number.flatten(), found.log_behaviour.flatten().exp())
    assert 1 - chance.sum() < 1e-3
    frequency = counts.sum(0) / number.numel()
    bound = 5 * (chance * (1 - chance) / number.numel()).sqrt() + 1e-4
    assert ((frequency - chance).abs() <= bound).all()


def test_many_variables_do_not_use_the_number_up():
    policy = MaskedPolicy(120, 2, 4, hidden=8)  # all rows alike: 120 bits, a number has 53
    x = torch.full((1, 120), -1)
    found = policy.arithmetic_sample(policy.encode(x), x, policy.space, 4000)
    mean = found.latent.double().mean((0, 1))
    assert ((mean - 0.5).abs() < 5 * 0.5 / 4000**0.5).all()
    together = found.latent[0].double() - 0.5
    assert (together.T @ together / 4000 - torch.eye(120) / 4).abs().max() < 0.05


def test_averages_have_less_noise():
    policy, x = _policy(), torch.full((400, 6), -1)
    context = policy.encode(x)
    spread = {}
    for sample in (policy.sample, policy.arithmetic_sample):
        mean = sample(context, x, policy.space, 64).latent.double().mean(1)
        spread[sample.__name__] = mean.var(0).mean()
    assert spread["arithmetic_sample"] < spread["sample"] / 10


def test_what_is_left_of_a_number_is_uniform_and_never_lands_on_what_is_ruled_out():
    p = torch.tensor([0.0, 0.3, 0.0, 0.7, 0.0], dtype=torch.double)
    chance = torch.linspace(0, 1, 1001, dtype=torch.double)[:, None]
    entry = inverted(p.expand(1001, 5), chance.clamp(max=1 - 1e-9))
    assert entry.unique().tolist() == [1, 3]
    rest = within(p.expand(1001, 5), chance, entry)
    assert torch.allclose(rest[:300], torch.linspace(0, 1, 301).double()[:300, None], atol=1e-9)
    assert (inverted(p.expand(1001, 5), rest) % 2 == 1).all() and (rest < 1).all()


def test_a_policy_without_it_is_refused_where_it_is_asked_for():
    space, model = AssignmentSpace(4, 2), Pairwise(4, 2)
    policy = AssignmentPolicy(4, 2, hidden=8)
    with pytest.raises(NotOffered, match="AssignmentPolicy offers no arithmetic_sample"):
        TrainPolicy(Own(4, arithmetic=True)).check(model, space, policy)
    TrainPolicy(Own(4, arithmetic=None)).check(model, space, policy)
    assert Own(4).on_policy and not Own(4, arithmetic=None).on_policy

"""The sampler as a distribution: draws, densities, and what it says of `p(x)`."""

import pytest
import torch
from toy import BitModel, BitPolicy, BitSpace, strings

from gfnem.posterior import Posterior

KINDS = torch.tensor([1, 1])


@pytest.fixture
def parts():
    torch.manual_seed(0)
    return BitModel(), BitSpace(), BitPolicy(scale=2.0)


@pytest.mark.slow
def test_densities_of_all_structures_sum_to_one(parts):
    posterior = Posterior(*parts, KINDS)
    z = strings(3).expand(2, -1, -1)
    total = posterior.log_prob(z, paths=400).logsumexp(1)
    torch.testing.assert_close(total, torch.zeros(2), atol=0.05, rtol=0)


@pytest.mark.slow
def test_draws_come_as_often_as_their_density_says(parts):
    posterior = Posterior(*parts, KINDS[:1])
    z = posterior.sample((6000,))
    assert z.shape == (1, 6000, 3) and not z.is_floating_point()
    code = (z[0] * torch.tensor([4, 2, 1])).sum(1)
    share = torch.bincount(code, minlength=8) / 6000
    density = posterior.log_prob(strings(3), paths=400).exp()[0]
    assert (share - density).abs().sum() < 0.08


def test_the_marginal_is_exact_where_offered_and_estimated_where_asked(parts):
    posterior = Posterior(*parts, KINDS)
    exact, estimate = posterior.log_marginal(), posterior.log_marginal(4000)
    assert exact.exact and exact.samples == 0 and not estimate.exact and estimate.samples == 4000
    torch.testing.assert_close(estimate.value, exact.value, atol=0.1, rtol=0)
    assert ((estimate.effective_samples > 1) & (estimate.effective_samples <= 4000)).all()


def test_a_number_of_samples_is_wanted(parts):
    with pytest.raises(ValueError, match="k >= 1 samples"):
        Posterior(*parts, KINDS).sample((2, 3))


def test_a_collapsed_sampler_misses_what_stray_samples_find(parts):
    model, space, policy = parts
    with torch.no_grad():
        policy.network[-1].weight.zero_()
        policy.network[-1].bias[0:6] = torch.tensor([30.0, -30.0] * 3)  # only zeros
        model.string[1, 7] += 5  # and the model wants ones
    posterior = Posterior(model, space, policy, KINDS)
    _, log_weights = posterior.log_weights(200)
    assert (posterior.missed(log_weights, 200, epsilon=0.5) > 2).all()

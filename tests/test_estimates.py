import math

import pytest
import torch
from toy import BitModel, BitPolicy, BitSpace

from gfnem.enumeration import enumerate_trajectories, keys_of
from gfnem.estimates import LogMarginal, effective_sample_size, elbo, importance_weighted, log_sum
from gfnem.posterior import Posterior


def test_against_plain_arithmetic():
    weights = [0.5, 2.0, 3.5]
    log_weights = torch.tensor([[math.log(w) for w in weights]], dtype=torch.double)
    assert elbo(log_weights).item() == pytest.approx(sum(map(math.log, weights)) / 3)
    assert importance_weighted(log_weights).item() == pytest.approx(math.log(2.0))
    expected = sum(weights) ** 2 / sum(w * w for w in weights)
    assert effective_sample_size(log_weights).item() == pytest.approx(expected)
    assert log_sum(log_weights[0].tolist()) == pytest.approx(math.log(6.0))
    assert log_sum([]) == log_sum([-math.inf]) == -math.inf


def test_effective_sample_size_ignores_scale_and_meets_its_ends():
    equal = torch.full((2, 5), -1000.0)
    assert torch.allclose(effective_sample_size(equal), torch.tensor(5.0))
    one = torch.tensor([[0.0, -500.0, -500.0]])
    assert effective_sample_size(one).item() == pytest.approx(1.0)


def test_bounds_are_ordered_and_shapes_follow():
    log_weights = torch.randn(4, 7, generator=torch.Generator().manual_seed(0))
    estimate = LogMarginal.from_weights(log_weights)
    assert estimate.value.shape == (4,) and estimate.samples == 7 and not estimate.exact
    assert (elbo(log_weights) < estimate.value).all()
    assert (estimate.value < log_weights.max(1).values).all()
    exact = LogMarginal.from_exact(estimate.value)
    assert exact.exact and exact.samples == 0 and exact.effective_samples.isnan().all()


def test_importance_weights_average_to_the_marginal():
    """`E[p(x,z) P_B / P_F] = p(x)`, whatever the policy; here by enumeration and by sampling."""
    torch.manual_seed(0)
    x = torch.tensor([0, 1, 2])
    model, space, policy = BitModel(), BitSpace(), BitPolicy(scale=2.0)
    posterior = Posterior(model, space, policy, x)
    latents, log_weights = posterior.log_weights(20_000)
    assert latents.shape == (3, 20_000, 3)
    exact = model.log_marginal(x)
    error = log_weights.exp().std(1) / math.sqrt(20_000)
    assert ((log_weights.exp().mean(1) - exact.exp()).abs() <= 5 * error + 1e-6).all()
    assert posterior.log_marginal().exact
    assert torch.allclose(posterior.log_marginal().value, exact)
    bound = posterior.log_marginal(200)
    assert not bound.exact and (bound.value - exact).abs().max() < 0.5


@pytest.mark.slow
def test_log_prob_of_a_latent_sums_its_paths():
    torch.manual_seed(0)
    x = torch.tensor([1, 0])
    for ordered in (True, False):
        space, policy = BitSpace(ordered=ordered), BitPolicy(scale=2.0)
        posterior = Posterior(BitModel(), space, policy, x)
        found = enumerate_trajectories(space, x)
        scores = policy.score(posterior.context, space, found.trajectories)
        probability = scores.log_pf.sum(2).exp().detach() * found.valid
        z = found.trajectories.latent
        keys = keys_of(z, found.valid.shape)
        estimate = posterior.log_prob(z, paths=400)
        for row in range(2):
            for sample in range(z.shape[1]):
                same = torch.tensor([key == keys[row][sample] for key in keys[row]])
                exact = (probability[row] * same).sum().log()
                assert abs(estimate[row, sample] - exact) < (1e-4 if ordered else 0.25)


def test_posterior_rejects_shapes_it_cannot_draw():
    posterior = Posterior(BitModel(), BitSpace(), BitPolicy(), torch.tensor([1]))
    assert posterior.sample((5,)).shape == (1, 5, 3) and posterior.sample(2).shape == (1, 2, 3)
    for shape in (0, (2, 3), ()):
        with pytest.raises(ValueError, match="samples of each x"):
            posterior.sample(shape)


def test_temperature_sharpens_samples():
    torch.manual_seed(0)
    posterior = Posterior(
        BitModel(), BitSpace(ordered=True), BitPolicy(scale=3.0), torch.tensor([1])
    )
    means = [
        posterior.log_prob(posterior.sample(2000, temperature)).mean()
        for temperature in (0.25, 1.0, 4.0)
    ]
    assert means[0] > means[1] + 0.05 and means[1] > means[2] + 0.05
    assert torch.equal(posterior.log_z(), torch.zeros(1))

"""The guided sampler against autograd, quadratic forms and step-by-step sampling."""

import pytest
import torch
from small_vae import GRID, SHAPE, SMALL, exact_kl, images, make_model

from gfnem import sampling
from gfnem.images.grids import RasterGrid
from gfnem.images.guided import GuidedPolicy, lower_root, newton_step
from gfnem.images.policies import RasterPolicy
from gfnem.objectives import VarGrad
from gfnem.policy import Policy


def make_policy(cls=GuidedPolicy, **options):
    torch.manual_seed(1)
    policy = cls(**SHAPE, **SMALL, **options)
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return policy


def test_newton_step_is_that_of_autograd():
    """With hardly any spacing: the gradient and Gauss-Newton matrix of the Bernoulli likelihood."""
    model, x = make_model().double(), images().double()
    low, high = model.dictionary.min().item(), model.dictionary.max().item()
    guess = low + (high - low) * torch.rand(3, 4, dtype=torch.double)
    reached, precision = newton_step(model, x, guess, spacing=1e-5, longest=9.0)
    mean, variance = model.dictionary.mean(), model.dictionary.var(correction=0)
    for row in range(3):
        slope = torch.autograd.functional.jacobian(
            lambda v: model.draw_values(v[None]).flatten(), guess[row]
        )
        p = model.draw_values(guess[row][None]).flatten().sigmoid()
        wanted = (slope.T * p * (1 - p)) @ slope + torch.eye(4).double() / variance
        torch.testing.assert_close(precision[row], wanted, atol=1e-3, rtol=1e-3)

        def log_joint(v, image=x[row]):
            logits = model.draw_values(v[None])[0]
            fit = (image * logits - torch.nn.functional.softplus(logits)).sum()
            return fit - ((v - mean) ** 2).sum() / variance / 2

        gradient = torch.autograd.functional.jacobian(log_joint, guess[row])
        change = torch.linalg.solve(wanted, gradient)
        cut = (guess[row] + change).clamp(low, high)
        torch.testing.assert_close(reached[row], cut, atol=1e-2, rtol=0)


def test_lower_root():
    square = torch.randn(5, 6, 6)
    precision = square @ square.mT + torch.eye(6)
    root = lower_root(precision)
    torch.testing.assert_close(root.mT @ root, precision, atol=1e-3, rtol=1e-4)
    assert root.triu(1).abs().max() == 0


def test_the_guide_is_a_quadratic_form():
    """Before normalising, the codes' log weights add up to the Gaussian's log density."""
    model, x = make_model("uniform"), images()
    guided, codes = make_policy(), torch.randint(4, (3, 9, 4))
    context = guided.encode(x, model.given(x))
    both = guided.cell_logits(context, codes)[0]
    network = RasterPolicy.cell_logits(guided, context, codes)[0]
    found = (both - network).gather(3, codes[..., None]).sum((2, 3))
    off = model.dictionary[codes] - context.centre[:, None]
    trust = (10 * guided.log_trust).exp()
    scaled = torch.einsum("bsi,bij->bsj", off, context.root.mT)
    torch.testing.assert_close(found, -0.5 * scaled.square().sum(2))
    _, precision = newton_step(model, x, context.guess)
    unscaled = context.root / trust.sqrt()[:, None]
    torch.testing.assert_close(unscaled.mT @ unscaled, precision, atol=1e-3, rtol=1e-3)


def test_one_pass_equals_state_by_state():
    model, x, space = make_model(), images(), RasterGrid(**GRID)
    policy = make_policy(trust=0.5, flow=True)
    context = policy.encode(x, model.given(x))
    exploration = sampling.Exploration(1.5, 0.1)
    drawn = policy.sample(context, x, space, 7)
    slow = sampling.rollout(policy, context, x, space, 7, exploration)
    reference = Policy.score(policy, context, space, slow, flows=True)
    fast = policy.score(context, space, policy.retrace(context, x, space, slow.latent), flows=True)
    torch.testing.assert_close(fast.log_pf, reference.log_pf)
    torch.testing.assert_close(fast.log_flow, reference.log_flow)
    own = policy.score(context, space, drawn).log_pf.sum(2)
    torch.testing.assert_close(own, drawn.log_behaviour)


def test_an_untrained_guide_is_nearer_to_the_posterior():
    """On images of the model's own, trusting the Gaussian beats knowing nothing."""
    torch.manual_seed(0)
    model, space = make_model(), RasterGrid(**GRID)
    with torch.no_grad():
        model.dictionary.mul_(3)  # codes that images tell a lot about
        x, _ = model.sample(40)
        blind = exact_kl(model, GuidedPolicy(**SHAPE, **SMALL, trust=1e-4), space, x)
        guided = exact_kl(model, GuidedPolicy(**SHAPE, **SMALL, trust=1.0), space, x)
    assert guided < 0.7 * blind


def test_the_guess_learns_where_the_decoder_moves_it():
    model, x = make_model(), images(8)
    policy = make_policy(guess_weight=2.0)
    context = policy.encode(x, model.given(x))
    loss = policy.auxiliary_loss(context)
    torch.testing.assert_close(loss, (context.guess - context.centre).square().sum(1))
    loss.mean().backward()
    assert policy.guess.weight.grad.abs().sum() > 0
    assert policy.encoder.dense.weight.grad.abs().sum() > 0
    assert all(parameter.grad is None for parameter in model.parameters())


def test_the_balance_reaches_guess_and_trust():
    model, x, space = make_model(), images(), RasterGrid(**GRID)
    policy = make_policy()
    context = policy.encode(x, model.given(x))
    drawn = policy.sample(context, x, space, 5)
    scores = policy.score(context, space, drawn)
    VarGrad(pseudo_huber=True)(scores, model.log_joint(x, drawn.latent).detach()).sum().backward()
    for parameter in (policy.guess.weight, policy.log_trust, policy.network.head):
        assert parameter.grad.abs().sum() > 0


def test_a_decoder_is_needed():
    with pytest.raises(TypeError, match="DiscreteVAE"):
        make_policy().encode(images())

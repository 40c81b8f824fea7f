"""The flow of a partial assignment is the sum over its completions, by how many ways there are."""

import itertools

import pytest
import torch

from gfnem.batch import Batch
from gfnem.em import EM
from gfnem.energies import (
    RBM,
    AssignmentPolicy,
    AssignmentSpace,
    MaskedPolicy,
    Pairwise,
)
from gfnem.energies.marginals import log_sum, marginal, weighted_sum
from gfnem.energies.policies import log_choose
from gfnem.energies.recipes import free_sampler
from gfnem.objectives import DetailedBalance, SubTrajectoryBalance, detailed_balance
from gfnem.rates import Descent, Rates
from gfnem.running.run import Run
from gfnem.sources import Free, Own

BITS = 4
PARTIAL = torch.tensor(list(itertools.product((-1, 0, 1), repeat=BITS)))


def energy(kind=Pairwise, *sizes):
    torch.manual_seed(1)
    model = kind(*(sizes or (BITS, 2)))
    for parameter in model.parameters():
        parameter.data.normal_(0, 0.6)
    return model.requires_grad_(False)


def exact_network(model):
    """What the network of an `AssignmentPolicy` says if it knows every sum."""

    def network(value):
        flat = value.flatten(0, -2)
        log_sum = model.log_marginal(flat)
        logits = torch.zeros(len(flat), BITS, 2)
        for i, v in itertools.product(range(BITS), range(2)):
            there = flat.index_fill(1, torch.tensor([i]), v)
            logits[:, i, v] = model.log_marginal(there)
        open = (flat < 0).sum(1) * torch.log(torch.tensor(2.0))
        parts = logits.flatten(1), (log_sum - open)[:, None]
        return [part.unflatten(0, value.shape[:-1]) for part in parts]

    return network


def test_exact_sums_are_exact_flows():
    """With `F(s_A) = sum / C(D, |A|)` and uniform orders every step is balanced."""
    model, policy = energy(), AssignmentPolicy(BITS, 2)
    policy.network = exact_network(model)
    em = EM(model, AssignmentSpace(BITS, 2), policy, free_sampler())
    draws = Batch(em, PARTIAL[:1]).draw(Free(Own(64)))
    scores = draws.scores(flows=True)
    ends = scores.log_pf, scores.log_pb, draws.log_joint, scores.log_flow, scores.mask
    assert detailed_balance(*ends).item() < 1e-8
    # and the flow of a state, read off the policy, is what the page of the world says it is
    state = em.space.final_state(PARTIAL[:1], PARTIAL[None])
    flow = policy(None, state).log_flow[0]
    ways = log_choose(torch.full((len(PARTIAL),), BITS), (PARTIAL >= 0).sum(1))
    assert torch.allclose(flow + ways, model.log_marginal(PARTIAL), atol=1e-4)
    # started at what is observed it draws the rest as it should, with flows of its own
    sums = policy.log_z(PARTIAL)
    assert torch.allclose(sums, model.log_marginal(PARTIAL), atol=1e-4)
    drawn = Run(model, em.space, policy).posterior(PARTIAL).log_weights(8)[1]
    assert torch.allclose(drawn, sums[:, None].expand_as(drawn), atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize(
    "objective", [SubTrajectoryBalance(1.0), DetailedBalance(steps=3)], ids=["SubTB", "DB"]
)
def test_marginals_are_learned_by_one_network(objective):
    model = energy()
    for parameter in model.parameters():  # no row so improbable that it is never visited
        parameter.data.mul_(0.5)
    policy = AssignmentPolicy(BITS, 2, hidden=48, layers=2)
    space = AssignmentSpace(BITS, 2)
    descent = Descent(EM(model, space, policy, free_sampler(objective, 64, epsilon=0.3)),
                      Rates(policy=2e-2))  # fmt: skip
    for _ in range(100):
        descent.update(PARTIAL[:1])
    with torch.no_grad():
        x = PARTIAL[(PARTIAL < 0).any(1)]  # of a complete row p~ itself is known
        error = policy.log_z(x) - model.log_marginal(x)
        start = AssignmentPolicy(BITS, 2).log_z(x) - model.log_marginal(x)
    assert error.abs().mean() < 0.1 < start.abs().mean() / 4


def test_some_steps_are_an_unbiased_estimate():
    torch.manual_seed(0)
    model, policy = energy(), AssignmentPolicy(BITS, 2, hidden=8)
    for parameter in policy.parameters():
        parameter.data.normal_(0, 0.4)
    em = EM(model, AssignmentSpace(BITS, 2), policy, free_sampler())
    draws = Batch(em, torch.tensor([[-1, 1, -1, -1]])).draw(Own(50))

    @torch.no_grad()
    def loss(steps):
        draws.forget("policy")  # or the same steps come again
        scores = draws.scores(flows=True, steps=steps)
        return DetailedBalance(steps=steps)(scores, draws.log_joint).item()

    values = torch.tensor([loss(2) for _ in range(150)])
    error = abs(values.mean().item() - loss(None))
    assert error < 4 * values.std().item() / 12 and values.std() > 0
    assert loss(3) == pytest.approx(loss(None), rel=1e-5), "all steps there are"


@pytest.mark.parametrize("latent", [False, True])
@pytest.mark.parametrize("kind", [AssignmentPolicy, MaskedPolicy])
def test_error_bars_hold_what_is_exact(kind, latent, monkeypatch):
    model = energy(RBM, BITS, 2) if latent else energy()
    policy = kind(model.variables, 2, 1, "any" if kind is AssignmentPolicy else "fixed", hidden=8)
    space = AssignmentSpace(model.variables, 2, 1, policy.order)
    run = Run(model, space, policy)
    exact = marginal(run, PARTIAL)
    assert (exact.error == 0).all()
    assert torch.allclose(exact.value, model.log_marginal(PARTIAL) - model.log_partition())
    assert torch.allclose(exact.value[(PARTIAL >= 0).all(1)].exp().sum(), torch.tensor(1.0))
    known = torch.tensor([True, False, False, True])
    assert torch.allclose(
        marginal(run, torch.zeros(1, BITS, dtype=torch.long), known).value,
        marginal(run, torch.tensor([[0, -1, -1, 0]])).value,
    )
    monkeypatch.setattr(type(model), "sums_over", lambda self, missing: False)
    torch.manual_seed(3)
    found = log_sum(run, PARTIAL, 250, tolerance=1.0)
    gap = (found.value - model.log_marginal(PARTIAL)).abs()
    assert (gap < 4.5 * found.error + 1e-4).all() and (found.error[0] > 0)
    tolerance = found.error[0].item() / 2  # four times the draws and a few more
    closer = log_sum(run, PARTIAL, 250, tolerance)
    gap = (closer.value - model.log_marginal(PARTIAL)).abs()
    assert (gap < 4.5 * closer.error + 1e-4).all() and (closer.error <= tolerance).all()
    capped = log_sum(run, PARTIAL[:1], 250, 1e-9, most=2)
    assert capped.error[0] == pytest.approx(found.error[0].item() / 2**0.5, rel=0.3)


def test_one_draw_does_not_say_how_far_off_it_is():
    run = Run(energy(), AssignmentSpace(BITS, 2), AssignmentPolicy(BITS, 2))
    _, error = weighted_sum(run, PARTIAL[:1], samples=1, most=1)
    assert error.isinf().all()

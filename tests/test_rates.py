"""Optimisers: what learns at which rate, and steps without a Trainer."""

import pytest
import torch
from toy import BitModel, BitPolicy, BitSpace

from gfnem.em import EM
from gfnem.phases import ClimbMarginal
from gfnem.rates import Descent, Rates
from gfnem.schedules import Anneal

KINDS = torch.tensor([0, 1, 1, 2])


@pytest.fixture
def em():
    torch.manual_seed(0)
    return EM(BitModel(), BitSpace(), BitPolicy(), [ClimbMarginal()])


def test_what_only_log_z_uses_has_a_rate_of_its_own(em):
    optimizers = Rates(policy=0.1, log_z=0.5, model=0.2, model_betas=(0.5, 0.9)).optimizers(em)
    by_rate = {g["lr"]: g["params"] for g in optimizers["policy"].param_groups}
    assert by_rate[0.5] == [em.policy.normaliser]
    assert len(by_rate[0.1]) == len(list(em.policy.parameters())) - 1
    (group,) = optimizers["model"].param_groups
    assert group["lr"] == 0.2 and group["betas"] == (0.5, 0.9)


def test_an_annealed_rate_follows_the_m_updates_and_leaves_log_z_alone(em):
    rates = Rates(policy=Anneal(0.1, 0.0, 10), log_z=0.5)
    optimizer = rates.optimizers(em)["policy"]
    rates.set("policy", optimizer, 5)
    assert sorted(group["lr"] for group in optimizer.param_groups) == pytest.approx([0.05, 0.5])


def test_a_fixed_model_has_an_optimiser_all_the_same(em):
    em.model.requires_grad_(False)
    assert "model" in Rates().optimizers(em)


def test_descent_descends_and_counts(em):
    descent = Descent(em, Rates(model=0.1))
    losses = [float(descent.update(KINDS)["m_loss"]) for _ in range(20)]
    assert losses[-1] < losses[0] - 0.1
    assert em.clock.updates == em.clock.m_updates == 20 and em.clock.e_updates == 0


def test_a_gradient_is_cut_to_its_limit(em):
    def moved(clip):
        torch.manual_seed(0)
        fresh = EM(BitModel(), BitSpace(), BitPolicy(), [ClimbMarginal()])
        descent = Descent(fresh, Rates(clip=clip))
        descent.update(KINDS)
        return torch.cat([p.grad.flatten() for p in fresh.model.parameters()]).norm()

    assert moved(0.01) == pytest.approx(0.01, rel=1e-3) and moved(1e9) > 0.1


def test_a_step_without_finite_gradients_is_left_out():
    parameter = torch.nn.Parameter(torch.zeros(2))
    optimizer = torch.optim.SGD([parameter], lr=1.0)
    parameter.grad = torch.tensor([torch.inf, 1.0])
    assert not Rates().step(optimizer) and parameter.tolist() == [0.0, 0.0]
    parameter.grad = torch.tensor([3.0, 4.0])
    assert Rates(clip=1.0).step(optimizer)
    torch.testing.assert_close(parameter.detach(), torch.tensor([-0.6, -0.8]))
    parameter.grad = torch.tensor([3.0, 4.0])  # of a loss that was multiplied by 2
    assert Rates(clip=1.0).step(optimizer, scale=2.0)
    torch.testing.assert_close(parameter.detach(), torch.tensor([-1.8, -2.4]))

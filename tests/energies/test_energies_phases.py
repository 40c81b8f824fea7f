"""Energies in the loop: what is free, what is released, and an update of sampler and energy."""

import pytest
import torch

from gfnem.batch import Batch
from gfnem.em import EM
from gfnem.energies import (
    RBM,
    AssignmentPolicy,
    AssignmentSpace,
    BoltzmannMachine,
    MaskedPolicy,
    MLPEnergy,
)
from gfnem.phases import TrainModel
from gfnem.rates import Descent, Rates
from gfnem.recipes import eb_gfn, exact, fitting
from gfnem.sources import Chains, Free, Mixed, Own, Refined, Released

X = torch.tensor([[0, 1, 1], [1, 1, 0]])


def made(recipe=None, latent=False, order="fixed"):
    torch.manual_seed(0)
    model = RBM(3, 2) if latent else MLPEnergy(3, 2, hidden=8, layers=1)
    sizes = (model.variables, 2, 1, order)
    kind = MaskedPolicy if order == "fixed" else AssignmentPolicy
    policy = kind(*sizes, hidden=16, layers=1)
    for parameter in (*model.parameters(), *policy.parameters()):
        parameter.data.normal_(0, 0.3)
    return EM(model, AssignmentSpace(*sizes), policy, recipe or eb_gfn(latents=2 * latent))


def test_what_is_free_belongs_to_one_row_that_says_nothing():
    em = made(latent=True)
    batch = Batch(em, X)
    draws = batch.draw(Free(Own(7)))
    assert torch.equal(draws.batch.x, torch.tensor([[-1, -1, -1]])) and draws.z.shape == (1, 7, 5)
    assert batch.draw(Free(Chains(2, 3))).batch is draws.batch, "it is shared"
    batch.forget("model")
    assert draws.batch._given is None


def test_what_is_released_keeps_its_values_and_may_lose_them():
    em = made(latent=True)
    batch, seen = Batch(em, X), Own(4)
    drawn, released = batch.draw(seen), batch.draw(Released(seen))
    assert torch.equal(released.z[0], drawn.z.flatten(0, 1))
    assert (drawn.z[:, :, :3] == X[:, None]).all()
    moved = batch.draw(Refined(Released(seen), 20, 1.0)).z
    assert (moved != released.z).any(-1).any()
    kept = batch.draw(Refined(seen, 20, 1.0)).z
    assert (kept[:, :, :3] == X[:, None]).all(), "what is observed stays"


@pytest.mark.parametrize("latent", [False, True])
@pytest.mark.parametrize("order", ["fixed", "any"])
@pytest.mark.parametrize("acceptance", ["metropolis", "barker", None])
def test_an_update_moves_sampler_and_energy(latent, order, acceptance):
    chains = {"back": [1, 0.5], "proposals": 2, "acceptance": acceptance} if acceptance else {}
    recipe = eb_gfn(latents=2 * latent, **chains)
    em = made(recipe, latent, order)
    before = [parameter.clone() for parameter in em.parameters()]
    figures = Descent(em).update(X.repeat(8, 1))
    assert {"e_loss", "m_loss"} <= figures.keys()
    assert ("accepted" in figures) == (bool(acceptance) or latent)
    assert ("latent_loss" in figures) == latent
    assert all(torch.isfinite(torch.as_tensor(value)) for value in figures.values())
    moved = [not torch.equal(*pair) for pair in zip(before, em.parameters(), strict=True)]
    assert sum(moved) > len(moved) / 2


def test_the_recipes_that_fit():
    em = made()
    names = fitting(em.model, em.space, em.policy)
    assert set(names) == {"eb_gfn", "exact", "posterior"}, "others lack a negative phase"


@pytest.mark.parametrize("latent", [False, True])
def test_exact_likelihood_rises(latent):
    em = made(exact(), latent)
    descent = Descent(em, Rates(model=0.05))
    losses = [float(descent.update(X)["m_loss"]) for _ in range(30)]
    assert losses[-1] < losses[0] - 0.2
    likelihood = em.model.log_marginal(X) - em.model.log_partition()
    assert likelihood.mean() > -losses[0]


@pytest.mark.parametrize("order", ["fixed", "any"])
def test_the_negative_phase_is_the_gradient_of_log_z(order):
    """Weighted draws of an untrained sampler, and two kinds of chains: the exact gradient."""
    em = made(order=order)
    x = torch.tensor([[0, 1, 1]])
    own = Own(2500)
    negatives = {
        "weighted": Free(own),
        "chains": Refined(Free(own), 25, 1.0),
        "persistent": Free(Chains(2500, 6, True, jumps=3)),
    }
    for name, negative in negatives.items():
        assert gradient_error(em, x, negative) < 0.09, name


def gradient_error(em, x, negative):
    """The largest error of a component of the gradient, beside that of the exact likelihood."""
    parameters = list(em.model.parameters())
    likelihood = em.model.log_marginal(x).mean() - em.model.log_partition()
    exact = torch.autograd.grad(-likelihood, parameters)
    loss = TrainModel(Own(1), "equal", negative=negative)(Batch(em, x))
    found = torch.autograd.grad(loss, parameters)
    return max((a - b).abs().max().item() for a, b in zip(exact, found, strict=True))


def test_chains_see_what_the_sampler_never_draws():
    """So the energy cannot run away there; weighted draws know nothing of it."""
    em = made()
    with torch.no_grad():
        em.policy.stages[-1].bias[:2] = torch.tensor([20.0, -20.0])  # the first bit is always 0
    assert gradient_error(em, X, Free(Own(6000))) > 0.2
    assert gradient_error(em, X, Free(Chains(6000, 12, True, jumps=1))) < 0.06
    assert gradient_error(em, X, Free(Own(6000, epsilon=0.3, arithmetic=True))) < 0.06


def test_the_recipe_has_one_negative_phase():
    assert isinstance(eb_gfn(latents=2).phases()[1].negative.source, Chains)
    assert isinstance(eb_gfn().phases()[1].negative.source, Own)
    assert isinstance(eb_gfn(latents=2, chains=0).phases()[1].negative.source, Own)
    with pytest.raises(ValueError, match="one negative phase"):
        eb_gfn(chains=4, proposals=2).phases()


def test_a_sampler_learns_of_the_data_by_likelihood():
    """The energy says that all rows are alike, and stays; the sampler is told of two."""
    em = made(eb_gfn(samples=64, likelihood=20.0))
    for parameter in em.model.parameters():
        torch.nn.init.zeros_(parameter)
    descent = Descent(em, Rates(policy=0.02, model=0.0))
    figures = [descent.update(X) for _ in range(60)]
    assert figures[-1]["data_loss"] < 0.8 < 1.5 < figures[0]["data_loss"]
    with pytest.raises(ValueError, match="do not say what is latent"):
        eb_gfn(likelihood=1.0, latents=2).phases()


@pytest.mark.parametrize("order", ["fixed", "any"])
@pytest.mark.parametrize(
    "model",
    [RBM(3, 2, collapsed=True), BoltzmannMachine(3, 2, 2, collapsed=True)],
    ids=["RBM", "BoltzmannMachine"],
)
def test_both_phases_of_a_collapsed_machine_have_the_exact_gradient(model, order):
    """The sampler writes the middle layer alone, in either phase."""
    torch.manual_seed(0)
    sizes = (model.variables, 2, 1, order)
    kind = MaskedPolicy if order == "fixed" else AssignmentPolicy
    policy = kind(*sizes, hidden=16, layers=1, summed=3)
    for part, scale in ((model, 0.4), (policy, 0.1)):
        for parameter in part.parameters():
            parameter.data.normal_(0, scale)
    em = EM(model, AssignmentSpace(*sizes, summed=3), policy, eb_gfn(latents=2000, samples=20_000))
    x = torch.tensor([[0, 1, 1], [1, 1, 1]])
    likelihood = model.log_marginal(x).mean() - model.log_partition()
    exact = torch.autograd.grad(-likelihood, list(model.parameters()))
    found = torch.autograd.grad(em.phases[1](Batch(em, x)), list(model.parameters()))
    for one, other in zip(exact, found, strict=True):
        assert torch.allclose(one, other, atol=0.03)
    figures = Descent(em).update(x)
    assert torch.isfinite(torch.as_tensor(figures["e_loss"]))


def test_an_update_asks_the_energy_once_of_each_row(monkeypatch):
    """The sampler's rewards and the energy's gradient are of the same forward pass."""
    em, rows = made(eb_gfn(samples=4)), []
    score = em.model.score
    monkeypatch.setattr(em.model, "score", lambda f: rows.append(f.shape[1]) or score(f))
    for phase, loss in em.update(X):
        if phase.trains == "model":
            found = torch.autograd.grad(loss, list(em.model.parameters()))
    assert sum(rows) == 4 + len(X)
    assert all(torch.isfinite(gradient).all() for gradient in found)


def test_a_mixture_has_so_many_of_each():
    em = made()
    batch = Batch(em, X.repeat(10, 1))
    own = Free(Own(12))
    for share, data in ((0.5, 12), (0.25, 4), (0.0, 0)):
        drawn = batch.draw(Mixed(own, Released(Own(1)), share))
        assert drawn.z.shape == (1, 12 + data, 3)
        assert torch.equal(drawn.z[:, :12], batch.draw(own).z)
        rows = drawn.z[0, 12:]
        assert ((rows[:, None] == X).all(2).any(1)).all()
        assert drawn.scores().log_pf.shape == (1, 12 + data, 3)
    with pytest.raises(ValueError, match="less than 1"):
        Mixed(own, own, 1.0)

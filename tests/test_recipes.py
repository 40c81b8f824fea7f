"""Recipes: functions whose parameters are settings, and lists of phases by name."""

import inspect

import pytest
import torch
from toy import BitModel, BitPolicy, BitSpace

from gfnem.em import EM
from gfnem.phases import ClimbMarginal, TrainModel, TrainPolicy
from gfnem.rates import Descent
from gfnem.recipes import RECIPES, Recipe, fitting, gflownet, recipe
from gfnem.sources import Own
from gfnem.target import Target


@recipe
def twice(samples: int = 8, m_step: str = "equal"):
    """Two steps of the sampler for each of the model."""
    own = Own(samples)
    return [TrainPolicy(own), TrainPolicy(Own(samples)), TrainModel(own, m_step)]


def test_a_function_becomes_a_component_with_its_settings():
    made = twice(samples=4)
    assert isinstance(made, Recipe) and twice.__doc__.startswith("Two steps")
    assert list(inspect.signature(twice.__init__).parameters) == ["self", "samples", "m_step"]
    assert [phase.trains for phase in made.phases()] == ["policy", "policy", "model"]
    assert made.phases()[0].source.samples == 4
    assert made.spec()["init_args"] == {"samples": 4}


def test_phases_are_made_anew():
    made = twice()
    assert made.phases()[0] is not made.phases()[0]


def test_an_unknown_setting_is_refused():
    with pytest.raises(TypeError, match="temprature"):
        gflownet(temprature=2.0)
    with pytest.raises(ValueError, match="m_step is one of"):
        twice(m_step="worst").phases()


# tests of energies try eb_gfn: it is for structures that repeat their observations
@pytest.mark.parametrize("name", sorted(RECIPES.keys() - {"eb_gfn"}))
def test_every_recipe_takes_an_update(name):
    torch.manual_seed(0)
    made = RECIPES[name](**({"steps": 5} if name == "mcmc" else {}))
    em = EM(BitModel(), BitSpace(), BitPolicy(), made)
    before = {n: torch.cat([p.flatten() for p in em.network(n).parameters()]) for n in NETWORKS}
    figures = Descent(em).update(torch.tensor([0, 1, 1, 2]))
    assert all(torch.isfinite(torch.as_tensor(value)) for value in figures.values())
    assert ("m_loss" in figures) == any(phase.trains == "model" for phase in em.phases)
    for network in NETWORKS:
        after = torch.cat([p.flatten() for p in em.network(network).parameters()])
        trained = any(phase.trains == network for phase in em.phases)
        assert torch.equal(after, before[network]) != trained


NETWORKS = ("policy", "model")


def test_the_recipes_that_fit_a_model(monkeypatch):
    parts = BitModel(), BitSpace(), BitPolicy()
    assert set(fitting(*parts)) == set(RECIPES) - {"eb_gfn"}
    for hook in ("log_marginal", "sample_posterior", "sample"):
        monkeypatch.setattr(BitModel, hook, getattr(Target, hook))
    assert set(fitting(*parts)) == {"gflownet", "posterior", "reverse_kl", "iw", "mcmc"}


def test_a_list_is_a_recipe_too():
    em = EM(BitModel(), BitSpace(), BitPolicy(), [ClimbMarginal()])
    assert not em.has_policy
    assert float(Descent(em).update(torch.tensor([0, 1]))["m_loss"]) > 0

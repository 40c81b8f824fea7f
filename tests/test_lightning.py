"""The Lightning shell: an update is the algorithm's own, and a checkpoint holds all of it."""

import copy

import pytest
import torch
from toy import BitData, BitModel, BitPolicy, BitSpace
from toy_training import fit, make

from gfnem.em import EM
from gfnem.lightning import GFlowNetEM
from gfnem.rates import Descent
from gfnem.recipes import RECIPES


@pytest.mark.parametrize("recipe", ["gflownet", "exact"])
def test_training_by_lightning_is_the_loop_without_it(recipe):
    module = make(recipe=recipe, max_updates=3)
    copied = copy.deepcopy(module.em)
    data = BitData(interval=3)
    torch.manual_seed(7)
    fit(module, data)
    descent = Descent(copied, module.rates)
    torch.manual_seed(7)
    for update in range(3):
        descent.update(data.training_batch(update))
    for (name, one), other in zip(
        module.em.named_parameters(), descent.em.parameters(), strict=True
    ):
        torch.testing.assert_close(one, other, msg=name)


def test_it_has_at_most_twelve_arguments():
    import inspect

    assert len(inspect.signature(GFlowNetEM.__init__).parameters) - 1 <= 12


def test_parts_that_do_not_fit_are_refused_at_once():
    with pytest.raises(ValueError, match="samples 1"):
        GFlowNetEM(BitModel(), BitSpace(), BitPolicy(), RECIPES["gflownet"](samples=1))


def test_a_module_draws_what_its_posterior_draws():
    module = make()
    x = torch.tensor([0, 1])
    torch.manual_seed(1)
    z = module(x, 3)
    torch.manual_seed(1)
    assert torch.equal(z, module.posterior(x).sample(3)) and z.shape == (2, 3, 3)
    assert isinstance(module.em, EM)

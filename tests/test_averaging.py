"""Averages of weights: the means they are, where they stand, what checkpoints hold."""

import copy

import pytest
import pytorch_lightning as pl
import torch
from torch import nn
from toy import BitData
from toy_training import fit, make

from gfnem.averaging import WeightAverages
from gfnem.lightning import GFlowNetEM
from gfnem.rates import Descent


def walked(decay: float, steps: torch.Tensor) -> torch.Tensor:
    """The mean after a weight has had these values."""
    weight = nn.Parameter(torch.zeros((), dtype=steps.dtype))
    averages = WeightAverages([("w", weight)], decay)
    for update, value in enumerate(steps, 1):
        weight.data.copy_(value)
        averages.add(update)
    return averages.means["w"]


def test_without_decay_it_is_the_mean():
    steps = torch.randn(30, dtype=torch.double)
    torch.testing.assert_close(walked(0, steps), steps.mean())


@pytest.mark.parametrize("decay", [1, 3, 8])
def test_later_values_count_more_by_a_polynomial(decay):
    # unrolled, value i of t counts i (i + 1) ... (i + decay - 1) in proportion
    steps = torch.randn(40, dtype=torch.double)
    place = torch.arange(1, 41, dtype=torch.double)
    share = torch.stack([place + k for k in range(decay)]).prod(0)
    torch.testing.assert_close(walked(decay, steps), (share * steps).sum() / share.sum())


def test_means_stand_where_weights_are_for_a_while():
    layer = nn.Linear(2, 2)
    layer.bias.requires_grad_(False)
    averages = WeightAverages(layer.named_parameters(), 1)
    assert list(averages.means) == ["weight"]
    before, place = layer.weight.detach().clone(), layer.weight.data_ptr()
    layer.weight.data.add_(3)
    averages.add(2)  # two thirds of the way
    with pytest.raises(KeyError), averages.in_place():
        torch.testing.assert_close(layer.weight, before + 2)
        raise KeyError
    torch.testing.assert_close(layer.weight, before + 3)
    assert layer.weight.data_ptr() == place


def test_what_lightning_validates_keeps_and_leaves_are_the_averages():
    module = make(recipe="exact", max_updates=6, rates={"average": 2.0})
    em = copy.deepcopy(module.em)
    data = BitData(interval=3, held=(0, 1, 2))
    trainer = fit(module, data)
    # the same without Lightning
    descent, averages = Descent(em, module.rates), WeightAverages(em.named_parameters(), 2.0)
    for update in range(6):
        descent.update(data.training_batch(update))
        averages.add(update + 1)
    for name, weight in module.em.named_parameters():
        torch.testing.assert_close(weight.detach(), averages.means[name], msg=name)
    weights = {name: weight.detach().clone() for name, weight in em.named_parameters()}
    assert any((weights[name] - averages.means[name]).abs().max() > 1e-4 for name in weights)
    found = float(trainer.callback_metrics["val_nll"])
    again = trainer.validate(module, data, verbose=False)[0]["val_nll"]
    assert again == pytest.approx(found), "what is validated is what is left"


def saved(path, update):
    """Saves after so many updates."""

    class Save(pl.Callback):
        def on_train_epoch_end(self, trainer, module):
            if module.updates == update:
                trainer.save_checkpoint(path)

    return Save()


def test_a_resumed_run_ends_as_an_undisturbed_one(tmp_path):
    file, data = tmp_path / "at3.ckpt", BitData(interval=3)
    how = {"recipe": "exact", "max_updates": 9, "rates": {"average": 2.0}}
    whole = make(**how)
    fit(whole, data, saved(file, 3))
    content = torch.load(file, weights_only=True)
    assert content["trained"].keys() < content["state_dict"].keys()
    used = GFlowNetEM.load_from_checkpoint(file, weights_only=True)
    for name, weight in used.named_parameters():
        assert torch.equal(weight, content["state_dict"][name]), "averages are what is used"
    assert any(
        not torch.equal(value, content["state_dict"][name])
        for name, value in content["trained"].items()
    )
    resumed = make(**how)
    fit(resumed, data, resume=file)
    assert resumed.updates == 9
    for (name, one), other in zip(whole.named_parameters(), resumed.parameters(), strict=True):
        assert torch.equal(one, other), name


def test_a_run_without_averages_goes_on_with_them(tmp_path):
    file, data = tmp_path / "at3.ckpt", BitData(interval=3)
    fit(make(recipe="exact", max_updates=3), data, saved(file, 3))
    module = make(recipe="exact", max_updates=6, rates={"average": 2.0})
    fit(module, data, resume=file)
    assert module.updates == 6
    assert all(weight.isfinite().all() for weight in module.parameters())

"""Trainer settings that cannot mean here what they say are refused with a way out."""

import pytest
import pytorch_lightning as pl
from pytorch_lightning.utilities.exceptions import MisconfigurationException

from gfnem.running.trainers import check_trainer, loss_scaler

QUIET = {"accelerator": "cpu", "logger": False, "enable_checkpointing": False}


@pytest.mark.parametrize(
    ("settings", "way_out"),
    [
        ({"gradient_clip_val": 1.0}, "clip"),
        ({"max_steps": 100}, "max_updates"),
        ({"accumulate_grad_batches": 2}, "larger batches"),
        ({"precision": "bf16-true"}, "bf16-mixed"),
    ],
)
def test_refused_with_a_way_out(settings, way_out):
    with pytest.raises(MisconfigurationException, match=way_out):
        check_trainer(pl.Trainer(**QUIET, **settings))


def test_a_plain_trainer_is_fine_and_scales_no_losses():
    trainer = pl.Trainer(**QUIET)
    check_trainer(trainer)
    assert loss_scaler(trainer) is None

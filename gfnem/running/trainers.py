"""What Lightning's Trainer must be told, and must not do, where two networks take turns."""

from __future__ import annotations

from typing import Any

import pytorch_lightning as pl
from lightning_fabric.utilities.exceptions import MisconfigurationException
from pytorch_lightning.plugins import MixedPrecision
from pytorch_lightning.strategies import DDPStrategy
from torch.nn.parallel import DistributedDataParallel


def check_trainer(trainer: pl.Trainer) -> None:
    """Refuses Trainer settings that cannot mean here what they say.

    Raises:
        MisconfigurationException: naming what to use in their place.
    """
    precision, strategy = str(trainer.precision), type(trainer.strategy).__name__
    mixed = precision.replace("true", "mixed")
    alone = trainer.world_size == 1 or isinstance(trainer.strategy, DDPStrategy)
    for wrong, what in (
        (trainer.gradient_clip_val, "gradient_clip_val: use Rates(clip=...)"),
        (trainer.max_steps != -1, "max_steps counts each network's steps: use max_updates"),
        (trainer.accumulate_grad_batches != 1, "accumulate_grad_batches: use larger batches"),
        (precision in ("16-true", "bf16-true"), f"precision {precision}: use {mixed}"),
        (not alone, f"strategy {strategy}: several processes train with ddp"),
    ):
        if wrong:
            raise MisconfigurationException(f"GFlowNetEM: {what}")


def leave_gradients_alone(trainer: pl.Trainer) -> None:
    """Has DistributedDataParallel not average gradients in this update.

    It waits for every parameter at once, but each of the two losses is of one network. `GFlowNetEM`
    averages them itself.
    """
    wrapped = trainer.strategy.model
    if isinstance(wrapped, DistributedDataParallel):
        wrapped.require_backward_grad_sync = False


def loss_scaler(trainer: pl.Trainer) -> Any | None:
    """What multiplies the losses of 16-bit training, if anything does."""
    plugin = trainer.precision_plugin
    return plugin.scaler if isinstance(plugin, MixedPrecision) else None

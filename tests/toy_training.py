"""Training of the toy world."""

import warnings

import pytorch_lightning as pl
import torch
from toy import BitModel, BitPolicy, BitSpace

from gfnem.lightning import GFlowNetEM


def make(seed=0, ordered=False, fixed=False, scale=1.0, **options):
    torch.manual_seed(seed)
    model = BitModel(scale=scale, fixed=fixed)
    return GFlowNetEM(model, BitSpace(ordered=ordered), BitPolicy(), **options)


def fit(module, data, callback=None, epochs=-1, resume=None):
    trainer = pl.Trainer(
        accelerator="cpu",
        devices=1,
        max_epochs=epochs,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        reload_dataloaders_every_n_epochs=1,
        callbacks=[callback] if callback else [],
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer.fit(module, data, ckpt_path=resume, weights_only=True if resume else None)
    return trainer

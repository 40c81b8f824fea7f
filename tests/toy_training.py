"""Training of the toy world."""

import warnings

import pytorch_lightning as pl
import torch
from toy import BitModel, BitPolicy, BitSpace

from gfnem.lightning import GFlowNetEM
from gfnem.rates import Rates
from gfnem.recipes import RECIPES

MODULE = ("eval_samples", "max_updates", "max_m_updates", "metadata")


def make(
    seed=0, ordered=False, fixed=False, scale=1.0, recipe="gflownet", schedule=None, rates=None,
    **options,
):  # fmt: skip
    """A module of the toy world; what is not the module's own is a setting of the recipe."""
    torch.manual_seed(seed)
    model = BitModel(scale=scale, fixed=fixed)
    own = {name: options.pop(name) for name in MODULE if name in options}
    recipe = RECIPES[recipe](**options) if isinstance(recipe, str) else recipe
    parts = (model, BitSpace(ordered=ordered), BitPolicy(), recipe, schedule)
    return GFlowNetEM(*parts, Rates(**(rates or {})), **own)


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

"""Run folders: what a training run writes, and how it is found again.

A run folder holds `config.yaml` (the resolved configuration), `last.ckpt` (the whole state of the
run), `metrics.csv` (a row for each validation), `curves.png`, and the pictures that the data's
`draw` makes. Every file is written under another name first and then renamed.
"""

from __future__ import annotations

import csv
import io
import os
import pickle
import time
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch

from gfnem.arguments import read_settings
from gfnem.em import GFlowNetEM
from gfnem.errors import UserError
from gfnem.files import write_atomically

CHECKPOINT = "last.ckpt"
CONFIG = "config.yaml"
METRICS = "metrics.csv"
CURVES = "curves.png"


class RunFolder(pl.Callback):
    """After every interval: metrics to CSV, and a checkpoint that holds the same rows.

    A resumed run takes the rows from its checkpoint, so its file ends as if it had never stopped.

    Args:
        folder: the run folder.
    """

    def __init__(self, folder: str | os.PathLike):
        self.folder = Path(folder)
        self.rows: list[dict[str, float]] = []
        self._started = time.monotonic()
        self._seconds = 0.0

    def state_dict(self) -> dict[str, Any]:
        """Rows so far and the training time they took."""
        return {"rows": self.rows, "seconds": self._clock()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Takes them up again."""
        self.rows = [dict(row) for row in state_dict["rows"]]
        self._seconds = state_dict["seconds"]

    def on_train_start(self, trainer: pl.Trainer, pl_module: GFlowNetEM) -> None:
        """Starts the clock."""
        self._started = time.monotonic()

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: GFlowNetEM) -> None:
        """Writes metrics and checkpoint."""
        figures = {name: float(value) for name, value in trainer.callback_metrics.items()}
        figures["m_updates"] = int(pl_module.m_updates)
        row = {"update": int(pl_module.updates), "seconds": round(self._clock(), 2), **figures}
        self.rows.append(row)
        if trainer.is_global_zero:
            write_atomically(self.folder / METRICS, _csv(self.rows))
        temporary = self.folder / f".{CHECKPOINT}.tmp"
        trainer.save_checkpoint(temporary)
        if trainer.is_global_zero:
            os.replace(temporary, self.folder / CHECKPOINT)

    def on_train_end(self, trainer: pl.Trainer, pl_module: GFlowNetEM) -> None:
        """Draws the training curves."""
        if trainer.is_global_zero and self.rows:
            from gfnem.curves import draw_curves

            draw_curves(self.rows, self.folder / CURVES)

    def _clock(self) -> float:
        return self._seconds + time.monotonic() - self._started


def _csv(rows: list[dict[str, float]]) -> str:
    names = list(dict.fromkeys(name for row in rows for name in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, names, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def checkpoint_path(run: str | os.PathLike) -> Path:
    """The checkpoint meant by a run folder or by a checkpoint's own path.

    Raises:
        UserError: if there is none.
    """
    path = Path(run)
    if path.is_dir():
        path = path / CHECKPOINT
        if not path.exists():
            raise UserError(f"{run}: no {CHECKPOINT} in this folder; is it a finished run?")
    if not path.exists():
        raise UserError(f"{run}: no such run folder or checkpoint")
    return path


def read_config(run: str | os.PathLike) -> dict[str, Any]:
    """The resolved configuration beside a run's checkpoint.

    Raises:
        UserError: if it is missing or not YAML.
    """
    return read_settings(checkpoint_path(run).parent / CONFIG)


def load_run(run: str | os.PathLike, device: str = "cpu") -> GFlowNetEM:
    """The trained module of a run folder or checkpoint, ready for inference.

    Raises:
        UserError: if it is missing, damaged, or not a gfnem checkpoint.
    """
    path = checkpoint_path(run)
    content = read_checkpoint(path)
    try:
        module = GFlowNetEM(**content["hyper_parameters"])
    except UserError as error:
        raise UserError(f"{path}: {error}") from error
    except (TypeError, ValueError) as error:
        raise UserError(f"{path}: not a gfnem checkpoint ({error})") from error
    try:
        module.load_state_dict(content["state_dict"])
    except (RuntimeError, TypeError, AttributeError) as error:
        raise UserError(f"{path}: the weights do not fit the model it names") from error
    return module.to(device).eval()


def read_checkpoint(path: str | os.PathLike) -> dict[str, Any]:
    """A checkpoint's content, read without running any code in it.

    Raises:
        UserError: if the file is damaged or was not written by gfnem.
    """
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise UserError(f"{path}: cannot read ({error.strerror or error})") from error
    except Exception as error:  # there is no end to what damaged bytes can raise
        if isinstance(error, pickle.UnpicklingError) and "Unsupported global" in str(error):
            why = "it holds more than plain data, and nothing in it has been run"
            raise UserError(f"{path}: not a gfnem checkpoint ({why})") from error
        raise UserError(f"{path}: not a checkpoint, or a damaged one") from error
    parts = ("hyper_parameters", "state_dict")
    if not isinstance(content, dict) or not all(
        isinstance(content.get(part), dict) for part in parts
    ):
        raise UserError(f"{path}: not a gfnem checkpoint")
    if not {"model", "space", "policy"} <= set(content["hyper_parameters"]):
        raise UserError(f"{path}: not a gfnem checkpoint (no model, space and policy in it)")
    return content

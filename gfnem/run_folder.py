"""What a training run writes into its folder, and when."""

from __future__ import annotations

import csv
import io
import os
import time
from pathlib import Path
from typing import Any

import pytorch_lightning as pl

from gfnem.em import GFlowNetEM
from gfnem.files import write_atomically
from gfnem.runs import CHECKPOINT, CURVES, METRICS


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

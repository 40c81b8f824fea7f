"""What a training run writes into its folder, and when."""

from __future__ import annotations

import csv
import io
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Checkpoint

from gfnem.errors import UserError
from gfnem.files import write_atomically
from gfnem.lightning import GFlowNetEM
from gfnem.running.runs import BEST, CHECKPOINT, CURVES, LOCK, METRICS
from gfnem.running.trust import sign

try:
    import fcntl
except ImportError:  # not on Windows, where two runs in one folder are not noticed
    fcntl = None


class RunFolder(Checkpoint):
    """After every interval: metrics to CSV, and a checkpoint that holds the same rows.

    A resumed run takes the rows from its checkpoint, so its file ends as if it had never stopped.
    The checkpoint with the lowest held-out NLL, or bound on it, is kept as `best.ckpt` beside
    `last.ckpt`.

    Args:
        folder: the run folder.
        patience: validations without a lower held-out NLL after which training stops; None goes on.
        settings: what the run is made of, for the signature that lets its user open it again.
    """

    def __init__(
        self,
        folder: str | os.PathLike,
        patience: int | None = None,
        settings: dict[str, Any] | None = None,
    ):
        self.folder, self.patience, self.settings = Path(folder), patience, settings
        self.rows: list[dict[str, float]] = []
        self.best: dict[str, float] | None = None
        self._waited = 0
        self._started = time.monotonic()
        self._seconds = 0.0

    def state_dict(self) -> dict[str, Any]:
        """Rows so far, the training time they took, and which was best."""
        return {
            "rows": self.rows,
            "seconds": self._clock(),
            "best": self.best,
            "waited": self._waited,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Takes them up again."""
        self.rows = [dict(row) for row in state_dict["rows"]]
        self._seconds = state_dict["seconds"]
        self.best, self._waited = state_dict.get("best"), state_dict.get("waited", 0)

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: GFlowNetEM, checkpoint: dict[str, Any]
    ) -> None:
        """Signs the checkpoint as this user's own (see `gfnem.running.trust`)."""
        checkpoint["trust"] = sign([self.settings, dict(pl_module.hparams)])

    @property
    def out_of_patience(self) -> bool:
        """Whether the held-out NLL has not fallen for too long."""
        return self.patience is not None and self._waited >= self.patience

    def on_train_start(self, trainer: pl.Trainer, pl_module: GFlowNetEM) -> None:
        """Starts the clock."""
        self._started = time.monotonic()
        trainer.should_stop = trainer.should_stop or self.out_of_patience

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: GFlowNetEM) -> None:
        """Writes metrics and checkpoints; of an interval that is cut short a checkpoint alone."""
        improved = False
        if trainer.is_last_batch or not pl_module.stopping:
            figures = {name: float(value) for name, value in trainer.callback_metrics.items()}
            improved = self._judge(int(pl_module.updates), figures.get("val_nll"))
            figures["m_updates"] = int(pl_module.m_updates)
            row = {"update": int(pl_module.updates), "seconds": round(self._clock(), 2), **figures}
            self.rows.append(row)
            if trainer.is_global_zero:
                write_atomically(self.folder / METRICS, _csv(self.rows))
            trainer.should_stop = trainer.should_stop or self.out_of_patience
        self._save(trainer, improved)

    def _judge(self, update: int, nll: float | None) -> bool:
        """Whether this is the best held-out NLL so far; of equal ones it is the latest.

        Where there is no model to train, the exact NLL stays as it is and the sampler gets better.
        """
        if nll is None:
            return False
        lower = self.best is None or not nll >= self.best["nll"]
        self._waited = 0 if lower else self._waited + 1
        if not lower and self.best is not None and nll > self.best["nll"]:
            return False
        self.best = {"update": update, "nll": nll}
        return True

    def _save(self, trainer: pl.Trainer, improved: bool) -> None:
        temporary = self.folder / f".{CHECKPOINT}.tmp"
        try:
            trainer.save_checkpoint(temporary)
            if not trainer.is_global_zero:
                return
            with open(temporary, "rb") as stream:
                os.fsync(stream.fileno())
            if improved:
                twin(temporary, self.folder / BEST)
            os.replace(temporary, self.folder / CHECKPOINT)
        except (OSError, RuntimeError) as error:
            if not isinstance(error, OSError) and "write" not in str(error):
                raise
            temporary.unlink(missing_ok=True)
            why = getattr(error, "strerror", None) or "is the disk full?"
            again = (self.folder / CHECKPOINT).exists()
            then = f"go on with --resume {self.folder}" if again else "start again"
            raise UserError(
                f"{self.folder}: cannot write {CHECKPOINT} ({why}); make room and {then}"
            ) from error

    def on_train_end(self, trainer: pl.Trainer, pl_module: GFlowNetEM) -> None:
        """Draws the training curves."""
        if trainer.is_global_zero and self.rows:
            from gfnem.running.curves import draw_curves

            draw_curves(self.rows, self.folder / CURVES)

    def _clock(self) -> float:
        return self._seconds + time.monotonic() - self._started


def twin(source: Path, target: Path) -> None:
    """A second name for a file that is about to be renamed, or a copy where there are no links."""
    temporary = target.with_name(f".{target.name}.tmp")
    temporary.unlink(missing_ok=True)
    try:
        os.link(source, temporary)
    except OSError:
        shutil.copyfile(source, temporary)
    os.replace(temporary, target)


def _csv(rows: list[dict[str, float]]) -> str:
    names = list(dict.fromkeys(name for row in rows for name in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, names, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


@contextmanager
def held(folder: Path, fresh: bool) -> Iterator[None]:
    """Makes the run folder and keeps other processes from training in it.

    A `fresh` folder must not have been there. What a killed run left half-written is swept away,
    and so is a new folder whose run fails before its first checkpoint: it would only be in the way.
    """
    made = not folder.exists()
    try:
        folder.mkdir(parents=True, exist_ok=not fresh)
        lock = open(folder / LOCK, "a")
    except OSError as error:
        raise UserError(f"{folder}: cannot make this folder ({error.strerror})") from error
    with lock:
        if fcntl is not None:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # ends with the process
            except OSError as error:
                raise UserError(f"{folder}: another process is training in this folder") from error
        for path in folder.glob(".*.tmp"):
            path.unlink(missing_ok=True)
        try:
            yield
        except UserError:
            if made and not (folder / CHECKPOINT).exists():
                shutil.rmtree(folder, ignore_errors=True)
            raise

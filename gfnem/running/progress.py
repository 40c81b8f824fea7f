"""What a person sees while a run trains."""

from __future__ import annotations

import sys
import time
from typing import Any

import pytorch_lightning as pl
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

#: figures shown, in order: name in the metrics, how it is written
SHOWN = (
    ("e_loss", "E-loss {:.3g}"),
    ("threshold", "threshold {:.3g}"),
    ("m_updates", "M-updates {:.0f}"),
    ("elbo", "ELBO {:.2f}"),
    ("m_loss", "M-loss {:.2f}"),
    ("val_nll", "held-out NLL/{unit} {:.3f}"),
    ("val_elbo_gap", "ELBO gap {:.2f}"),
    ("val_free_gap", "free gap {:.2f}"),
    ("val_ess", "ESS {:.0%}"),
)


#: nats that a sampler may miss on the mean before it is said (see `Posterior.missed`)
MISSED = 1.0


class TrainingProgress(pl.Callback):
    """A bar over all updates where there is a terminal, and a line after every validation."""

    def __init__(self) -> None:
        # a log file is not 80 columns wide
        width = None if sys.stdout.isatty() else 200
        self.console = Console(highlight=False, width=width)
        self._bar: Progress | None = None
        self._task: Any = None
        self._started, self._first = 0.0, 0

    def on_train_start(self, trainer: pl.Trainer, pl_module: Any) -> None:
        """Shows the bar."""
        self._started, self._first = time.monotonic(), int(pl_module.updates)
        if trainer.is_global_zero and self.console.is_terminal:
            self._bar = Progress(
                TextColumn("training"),
                BarColumn(),
                MofNCompleteColumn(),
                TimeElapsedColumn(),
                TimeRemainingColumn(),
                TextColumn("{task.fields[figures]}"),
                console=self.console,
            )
            self._task = self._bar.add_task(
                "", total=pl_module.max_updates, completed=int(pl_module.updates), figures=""
            )
            self._bar.start()

    def on_train_batch_end(self, trainer, pl_module: Any, outputs, batch, batch_idx) -> None:
        """Moves the bar."""
        if self._bar is not None:
            figures = f"E-loss {pl_module.em.clock.average():.3g}, M-updates {pl_module.m_updates}"
            if not pl_module.has_policy:
                figures = f"M-updates {pl_module.m_updates}"
            self._bar.update(self._task, completed=int(pl_module.updates), figures=figures)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        """Prints the figures of the interval."""
        if not trainer.is_global_zero:
            return
        metrics = trainer.callback_metrics
        total = f"/{pl_module.max_updates}" if pl_module.max_updates else ""
        parts = [f"update {int(pl_module.updates)}{total}"]
        for name, form in SHOWN:
            if name == "m_updates":
                parts.append(form.format(int(pl_module.m_updates)))
            elif name in metrics and not (name == "m_loss" and "elbo" in metrics):
                parts.append(form.format(float(metrics[name]), unit=pl_module.model.unit))
        parts.append(self._time(int(pl_module.updates), pl_module.max_updates))
        self.console.print("  ".join(parts), soft_wrap=True)
        if (missed := float(metrics.get("val_missed", 0.0))) > MISSED:
            self.console.print(
                f"the sampler misses what samples that stray find ({missed:.1f} nats): it may have "
                "collapsed; its ELBO gap and ESS are of its own samples and cannot see it",
                soft_wrap=True,
            )

    def _time(self, updates: int, whole: int | None) -> str:
        """How long it has taken, and how long it still may."""
        spent = time.monotonic() - self._started
        text = f"{_clock(spent)} gone"
        if whole is not None and whole > updates > self._first:
            text += f", {_clock(spent / (updates - self._first) * (whole - updates))} to go"
        return text

    def on_train_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        """Takes the bar away."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def on_exception(self, trainer: pl.Trainer, pl_module: Any, exception: BaseException) -> None:
        """Takes the bar away."""
        self.on_train_end(trainer, pl_module)


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"

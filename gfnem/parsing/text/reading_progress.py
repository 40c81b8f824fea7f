"""What a person sees while a large text is read: a bar, or a line now and then, on stderr."""

from __future__ import annotations

import sys
import time
from typing import Any

#: seconds before anything is shown, and between two lines where there is no terminal
_PATIENCE, _INTERVAL = 2.0, 10.0


class ReadingProgress:
    """A context that is told how much has been read.

    Args:
        name: what is read.
        total: how much there is, None if that is unknown.
        unit: of what is counted, "bytes" or "rows".
    """

    def __init__(self, name: str, total: int | None, unit: str):
        self.name, self.total, self.unit = name, total, unit
        self.done = 0
        self._shown = self._begun = time.monotonic()
        self._bar: Any = None
        self._task: Any = None

    def __enter__(self) -> ReadingProgress:
        return self

    def __exit__(self, *error: object) -> None:
        if self._bar is not None:
            self._bar.stop()

    def add(self, size: int, sentences: int) -> None:
        """So much more has been read, with so many sentences in all."""
        self.done += size
        if self.total is not None:
            self.done = min(self.done, self.total)
        now = time.monotonic()
        if now - self._begun < _PATIENCE:
            return
        if sys.stderr.isatty():
            self._move(sentences)
        elif now - self._shown >= _INTERVAL or self._shown == self._begun:
            self._shown = now
            print(f"gfnem: {self._line(now, sentences)}", file=sys.stderr, flush=True)

    def _line(self, now: float, sentences: int) -> str:
        amount = _amount(self.done, self.unit)
        line = f"reading {self.name}: {amount}"
        if self.total:
            left = (now - self._begun) * (self.total / max(self.done, 1) - 1)
            line += f" of {_amount(self.total, self.unit)}, about {left:.0f} s left"
        return f"{line} ({sentences:,} sentences kept)"

    def _move(self, sentences: int) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

        if self._bar is None:
            self._bar = Progress(
                TextColumn("reading {task.fields[name]}", markup=False),
                BarColumn(),
                TextColumn("{task.fields[amount]}"),
                TimeRemainingColumn(),
                console=Console(stderr=True),
                transient=True,
            )
            self._task = self._bar.add_task("", total=self.total, name=self.name, amount="")
            self._bar.start()
        amount = f"{_amount(self.done, self.unit)}, {sentences:,} sentences"
        self._bar.update(self._task, completed=self.done, amount=amount)


def _amount(number: int, unit: str) -> str:
    return f"{number / 1e6:.1f} MB" if unit == "bytes" else f"{number:,} {unit}"

"""Standard output of a long run: that nobody reads it any more is no reason to stop."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TextIO


class _Forgiving:
    """A text stream whose first failed write sends all that follows nowhere."""

    def __init__(self, stream: TextIO):
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        """Writes, or gives up."""
        self._attempt(lambda: self._stream.write(text))
        return len(text)

    def flush(self) -> None:
        """Flushes, or gives up."""
        self._attempt(self._stream.flush)

    def _attempt(self, action: Any) -> None:
        try:
            action()
        except OSError as error:
            try:
                os.dup2(os.open(os.devnull, os.O_WRONLY), self._stream.fileno())
            except (OSError, ValueError):
                return
            why = error.strerror or type(error).__name__
            print(f"gfnem: standard output: {why}; training goes on", file=sys.stderr)


@contextmanager
def forgiving_output() -> Iterator[None]:
    """Lets a closed pipe or a full disk behind standard output cost the output alone."""
    before = sys.stdout
    sys.stdout = _Forgiving(before)
    try:
        yield
        sys.stdout.flush()
    finally:
        sys.stdout = before

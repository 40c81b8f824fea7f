"""Signals that end a run: the first one in good order, the second one at once."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from gfnem.lightning import GFlowNetEM


@contextmanager
def heeding_signals(module: GFlowNetEM) -> Iterator[list[int]]:
    """Has the first signal to end stop training in good order; a second one ends it at once."""
    heard: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield heard
        return

    def listen(number: int, frame: Any) -> None:
        heard.append(number)
        module.stop_soon()
        if len(heard) > 1:
            raise KeyboardInterrupt

    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    for number in before:
        signal.signal(number, listen)
    try:
        yield heard
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)

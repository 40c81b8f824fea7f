"""Work on the pieces of something in several processes, in order."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
import time
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any, TypeVar

from gfnem.errors import UserError

Piece, Made = TypeVar("Piece"), TypeVar("Made")

_work: Callable[[Any], Any] | None = None


def cores() -> int:
    """How many cores this process may use."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not on every system
        return os.cpu_count() or 1


def can_fork() -> bool:
    """Whether processes can be started that need not import anything, nor run the user's script."""
    return "fork" in multiprocessing.get_all_start_methods() and sys.platform != "darwin"


def in_processes(
    work: Callable[[Piece], Made], pieces: Iterable[Piece], processes: int
) -> Iterator[Made]:
    """`map(work, pieces)`, done by so many processes (1: by this one); pieces are taken as needed.

    Raises:
        UserError: as `work` does, or if a process dies.
    """
    if processes < 2 or not can_fork():
        yield from map(work, pieces)
        return
    pool = ProcessPoolExecutor(
        processes,
        multiprocessing.get_context("fork"),
        initializer=_begin,
        initargs=(work, os.getpid()),
    )
    waiting: deque[Future] = deque()
    try:
        for piece in pieces:
            with warnings.catch_warnings():
                # some Pythons warn of forking beside other threads; the workers use none of these
                warnings.simplefilter("ignore", DeprecationWarning)
                waiting.append(pool.submit(_do, piece))
            if len(waiting) > 2 * processes:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    except BrokenProcessPool as error:
        raise UserError(
            "a process that reads text was ended from outside (is there too little memory?); "
            "--dataset.processes 1 reads without other processes"
        ) from error
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _begin(work: Callable[[Any], Any], parent: int) -> None:
    global _work
    _work = work
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the first process hears it and ends the others
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()


def _end_with(parent: int) -> None:
    """Ends this process soon after the one that started it, however that ended."""
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)


def _do(piece: Any) -> Any:
    return _work(piece)

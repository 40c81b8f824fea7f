"""Work that a command shares out: copies of its process, each with one thread of torch."""

from __future__ import annotations

import signal
import sys
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeout
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from functools import partial
from multiprocessing import active_children, get_context
from typing import Any

import torch

from gfnem.errors import UserError
from gfnem.running.processes import end_with_parent

#: more have too little to do, and each of them is made at the start
_MOST = 16
#: seconds until copies of this process must have begun, which takes hundredths of one
_PATIENCE = 10.0
#: what a copy of this process does; a copy has it from this process, nothing is sent
_work: Callable[[Any], Any] | None = None


@contextmanager
def workers(
    work: Callable[[Any], Any], orderly: bool = False
) -> Iterator[Callable[[Any], Future[Any]]]:
    """As many workers as torch has threads, for operations that are too small to be divided.

    Workers are copies of this process where the system makes copies and autograd works in them,
    which it may not where a GPU has been used. Elsewhere they are threads, which wait for each
    other's Python.

    Args:
        work: what to do with an item. Items and what comes of them can be pickled.
        orderly: whether the work draws random numbers, so that threads must do it one by one.

    Yields:
        A function that begins the work on an item; what it returns has the outcome.
    """
    before = torch.get_num_threads()
    count = min(before, _MOST)
    pool: Executor | None = _copies(work, count) if count > 1 else None
    call: Callable[[Any], Any] = _work_here
    if pool is None:
        threads = 1 if orderly else count
        begin = partial(torch.set_num_threads, count // threads)
        pool, call = ThreadPoolExecutor(threads, initializer=begin), work
    try:
        yield partial(pool.submit, call)
    except BrokenProcessPool as error:
        raise UserError(
            "a process of this command was ended by another one, or for want of memory; "
            "OMP_NUM_THREADS=1 does all in one"
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)
        torch.set_num_threads(before)


def _copies(work: Callable[[Any], Any], count: int) -> ProcessPoolExecutor | None:
    if sys.platform != "linux":  # others have no fork, or libraries that do not survive one
        return None
    pool = ProcessPoolExecutor(count, get_context("fork"), initializer=_begin, initargs=(work,))
    others = set(active_children())
    try:
        with warnings.catch_warnings():  # Python warns of threads; torch's are idle, and not needed
            warnings.simplefilter("ignore", DeprecationWarning)
            tried = pool.submit(_try_autograd)
        tried.result(_PATIENCE)
    except (RuntimeError, OSError, FutureTimeout):
        for copy in set(active_children()) - others:  # they may wait for what never comes
            copy.kill()
        pool.shutdown()
        return None
    return pool


def _begin(work: Callable[[Any], Any]) -> None:
    global _work
    _work = work
    torch.set_num_threads(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the first process ends the others
    end_with_parent()


def _try_autograd() -> None:
    with torch.enable_grad():
        torch.ones((), requires_grad=True).exp().backward()


def _work_here(item: Any) -> Any:
    assert _work is not None
    return _work(item)

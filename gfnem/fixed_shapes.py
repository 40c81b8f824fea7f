"""Whether data may decide how much is computed.

On a CPU it pays to look at few things: nodes that differ, rules that are used. On a GPU to choose
some things takes a wait for it, and an update whose sizes depend on what it finds cannot be
recorded (see `gfnem.recording`). There, all are looked at, and what does not count is masked.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from torch import Tensor

_ASKED: ContextVar[bool | None] = ContextVar("fixed_shapes", default=None)


def fixed_shapes(tensor: Tensor) -> bool:
    """Whether sizes of what is made of a tensor of any shape depend on the shape: on a GPU.

    If not, they may depend on what it holds.
    """
    asked = _ASKED.get()
    return tensor.is_cuda if asked is None else asked


@contextmanager
def shapes_fixed(fixed: bool = True) -> Iterator[None]:
    """Meanwhile answers `fixed_shapes` so on all devices: to compare both ways."""
    token = _ASKED.set(fixed)
    try:
        yield
    finally:
        _ASKED.reset(token)

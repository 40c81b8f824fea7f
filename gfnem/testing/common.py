"""What the test cases share."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any
from unittest import SkipTest

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from gfnem.component import build


class Rows:
    """How to take one observation out of a batch."""

    def take(self, x: Any, row: int) -> Any:
        """Observation `row` as a batch of one, without the others' padding.

        Override it where that takes more than `x[row : row + 1]`.
        """
        return x[row : row + 1]

    def take_latent(self, z: Any, row: int) -> Any:
        """The latents of observation `row`, leading axes `(1, samples)`.

        Override it where padding must be cut off for `take(x, row)` to accept them.
        """
        return z[row : row + 1]


#: functions of torch that make a tensor where no other says on which device
_FACTORIES = frozenset(
    getattr(torch, name)
    for name in (
        "arange empty eye full linspace logspace ones rand randint randn randperm tensor "
        "tril_indices triu_indices zeros"
    ).split()
)
_TORCH = Path(torch.__file__).parent


class DevicesNamed(TorchFunctionMode):
    """Fails where a tensor is made on the default device: it would be wrong on any other.

    So a machine without a GPU finds what would fail on one. What torch does inside is its own.
    """

    def __torch_function__(self, func, types, args=(), kwargs=None):
        """Looks at each call of torch, then makes it."""
        kwargs = kwargs or {}
        if func in _FACTORIES and kwargs.get("device") is None:
            caller = sys._getframe(1)
            if _TORCH not in Path(caller.f_code.co_filename).parents:
                place = f"{Path(caller.f_code.co_filename).name}, line {caller.f_lineno}"
                raise AssertionError(f"{place}: torch.{func.__name__} without a device")
        return func(*args, **kwargs)


def devices() -> list[str]:
    """The devices that are there."""
    return ["cpu"] + (["cuda"] if torch.cuda.is_available() else [])


def moved(value: Any, device: str) -> Any:
    """An observation or a latent on another device."""
    return value.to(device) if hasattr(value, "to") else value


def rebuild(component: Any, base: type) -> Any:
    """The component made again from plain data; skips the test where that cannot be."""
    try:
        spec = json.loads(json.dumps(component.spec()))
    except TypeError as error:
        raise SkipTest(f"constructor arguments are not plain data: {error}") from None
    return build(spec, base)


def close(value: Tensor, expected: Tensor, tolerance: float, what: str) -> None:
    """Asserts that tensors of one shape differ nowhere by more than `tolerance`."""
    assert value.shape == expected.shape, f"{what}: {value.shape} against {expected.shape}"
    if value.numel():
        error = float((value.double() - expected.double()).abs().max())
        assert error <= tolerance, f"{what}: off by {error}"

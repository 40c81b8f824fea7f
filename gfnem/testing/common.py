"""What the test cases share."""

from __future__ import annotations

import json
from dataclasses import fields
from typing import Any
from unittest import SkipTest

import torch
from torch import Tensor

from gfnem.component import build


class Rows:
    """How to take one observation out of a batch."""

    def take(self, x: Any, row: int) -> Any:
        """Observation `row` as a batch of one, without the others' padding.

        Handles tensors, and whatever has `select(index)`; else override it.
        """
        if isinstance(x, Tensor):
            return x[row : row + 1]
        return x.select(torch.tensor([row]))

    def take_latent(self, z: Any, row: int) -> Any:
        """The latents of observation `row`, leading axes `(1, samples)`.

        Handles tensors, whatever has `select(index)`, and dataclasses of tensors that lead with
        `(batch,)`. Override it where padding must be cut off for `take(x, row)` to accept them.
        """
        if isinstance(z, Tensor):
            return z[row : row + 1]
        if hasattr(z, "select"):
            return z.select(torch.tensor([row]))
        return type(z)(*(getattr(z, f.name)[row : row + 1] for f in fields(z)))


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

"""Normal numbers that are a function of a sentence."""

from __future__ import annotations

import torch
from torch import Tensor

from gfnem.parsing.text.sentences import Sentences

#: odd multipliers that mix the bits of a number (Steele et al., 2014, "Fast splittable pseudorandom
#: number generators", section 4.1), as signed numbers
_FIRST, _SECOND, _STEP = -0x40A7B892E31B1A47, -0x6B2FB644ECCEEE15, -0x61C8864680B583EB


def sentence_noise(x: Sentences, size: int, step: int) -> Tensor:
    """`(batch, size)` standard normal numbers, made of a sentence's words and of `step` alone.

    They look like draws that are independent from sentence to sentence and from step to step, and
    are the same wherever a sentence comes up. Equal sentences of a batch have equal numbers.
    """
    device = x.tokens.device
    place = torch.arange(1, x.max_length + 1, device=device) * _STEP
    words = _mixed((x.tokens + 1) * _SECOND + place).masked_fill(~x.mask(), 0)
    key = _mixed(words.sum(1) + torch.full_like(x.lengths, step) * _FIRST)
    numbers = _mixed(key[:, None] + torch.arange(1, size + 1, device=device) * _STEP)
    share = (_shifted(numbers, 12).double() + 0.5) / 2**52  # float32 would round some of them to 1
    return torch.special.ndtri(share).to(torch.get_default_dtype())


def _mixed(number: Tensor) -> Tensor:
    number = (number ^ _shifted(number, 30)) * _FIRST
    number = (number ^ _shifted(number, 27)) * _SECOND
    return number ^ _shifted(number, 31)


def _shifted(number: Tensor, bits: int) -> Tensor:
    """The bits of an int64 moved to the right, zeros from the left."""
    return (number >> bits) & ((1 << (64 - bits)) - 1)

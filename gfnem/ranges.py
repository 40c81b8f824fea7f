"""Which numbers a setting may have, said where the setting is declared.

    def __init__(self, samples: Count = 16, clip: Positive = 5.0): ...

Every `Component` checks its constructor's numbers against these when it is made, from a settings
file, from the command line and in Python alike.
"""

from __future__ import annotations

import functools
import inspect
import math
import typing
from collections.abc import Callable, Iterator
from typing import Annotated, Any


class Range:
    """An interval of numbers, named in an annotation: `Annotated[float, Range(0, 1)]`.

    Args:
        low: the least number (None: no limit).
        high: the greatest.
        above: numbers must be greater than this.
        below: numbers must be less than this.
    """

    def __init__(
        self,
        low: float | None = None,
        high: float | None = None,
        *,
        above: float | None = None,
        below: float | None = None,
    ):
        self.low, self.high, self.above, self.below = low, high, above, below

    def holds(self, number: float) -> bool:
        """Whether a number lies in the interval; NaN and the infinities never do."""
        return (
            math.isfinite(number)
            and (self.low is None or number >= self.low)
            and (self.high is None or number <= self.high)
            and (self.above is None or number > self.above)
            and (self.below is None or number < self.below)
        )

    def __str__(self) -> str:
        parts = []
        if self.low is not None:
            parts.append(f"at least {self.low:g}")
        if self.above is not None:
            parts.append(f"more than {self.above:g}")
        if self.high is not None:
            parts.append(f"at most {self.high:g}")
        if self.below is not None:
            parts.append(f"less than {self.below:g}")
        return " and ".join(parts) or "a finite number"

    __repr__ = __str__


Positive = Annotated[float, Range(above=0)]
NotNegative = Annotated[float, Range(0)]
Share = Annotated[float, Range(0, 1)]
#: a share that may not be the whole
PartialShare = Annotated[float, Range(0, below=1)]
#: how many of something there must be; how many there may be
Count = Annotated[int, Range(1)]
Amount = Annotated[int, Range(0)]


def check_range(name: str, value: Any, allowed: Range) -> None:
    """Raises `ValueError` for a number outside; any other value has its type to answer for."""
    for number in _numbers(value):
        if not allowed.holds(number):
            raise ValueError(f"{name} {number:g}: {allowed} is needed")


def _numbers(value: Any) -> Iterator[float]:
    """The numbers that a setting stands for: itself, its entries, the ends of a schedule."""
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        yield value
    elif isinstance(value, (list, tuple)):
        for entry in value:
            yield from _numbers(entry)
    elif isinstance(value, Scheduled):
        yield from value.extremes()


class Scheduled:
    """A setting that moves: its range holds for the numbers it moves between."""

    def extremes(self) -> tuple[float, ...]:
        """The least and the greatest number it can give."""
        raise NotImplementedError


def _ranges(annotation: Any) -> Iterator[Range]:
    """The ranges named in an annotation or in the alternatives and entries of it."""
    for extra in getattr(annotation, "__metadata__", ()):
        if isinstance(extra, Range):
            yield extra
    if typing.get_origin(annotation) is Annotated:
        annotation = annotation.__origin__
    for part in typing.get_args(annotation):
        yield from _ranges(part)


@functools.cache
def _declared(function: Callable) -> dict[str, list[Range]]:
    """The ranges of a function's parameters."""
    try:
        hints = typing.get_type_hints(function, include_extras=True)
    except (NameError, TypeError):  # annotations that only a type checker can read
        return {}
    found = {name: list(_ranges(hint)) for name, hint in hints.items()}
    return {name: ranges for name, ranges in found.items() if ranges}


def check_arguments(function: Callable, arguments: dict[str, Any]) -> None:
    """Checks arguments, by name, against the ranges of a function's annotations.

    Raises:
        ValueError: naming the argument, its value and what is allowed.
    """
    for name, ranges in _declared(function).items():
        for allowed in ranges:
            if name in arguments:
                check_range(name, arguments[name], allowed)


def checked(function: Callable) -> Callable:
    """A constructor that checks its numbers before anything else."""
    signature = inspect.signature(function)

    @functools.wraps(function)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        try:
            given = signature.bind_partial(*args, **kwargs).arguments
        except TypeError:
            given = {}  # the call itself reports it
        check_arguments(function, given)
        return function(*args, **kwargs)

    return wrapper

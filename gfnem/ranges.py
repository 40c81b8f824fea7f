"""Which numbers a setting may have, said where the setting is declared.

    def __init__(self, samples: Count = 16, clip: Positive = 5.0): ...

Every `Component` checks its constructor's numbers against these when it is made, from a settings
file, from the command line and in Python alike.
"""

from __future__ import annotations

import functools
import inspect
import math
import types
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
        needed: whether None, which a setting may be by default, has to be replaced by a number
            before anything is made: the data or the model tell it.
    """

    def __init__(
        self,
        low: float | None = None,
        high: float | None = None,
        *,
        above: float | None = None,
        below: float | None = None,
        needed: bool = False,
    ):
        self.low, self.high, self.above, self.below = low, high, above, below
        self.needed = needed

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
            parts.append(f"at least {self.low}")
        if self.above is not None:
            parts.append(f"more than {self.above}")
        if self.high is not None:
            parts.append(f"at most {self.high}")
        if self.below is not None:
            parts.append(f"less than {self.below}")
        return " and ".join(parts) or "a finite number"

    __repr__ = __str__


#: any number but NaN and the infinities
Finite = Annotated[float, Range()]
Positive = Annotated[float, Range(above=0)]
NotNegative = Annotated[float, Range(0)]
Share = Annotated[float, Range(0, 1)]
#: a share that may not be the whole
PartialShare = Annotated[float, Range(0, below=1)]
#: how many of something there must be; how many there may be
Count = Annotated[int, Range(1)]
Amount = Annotated[int, Range(0)]
#: a count that a settings file leaves out, because the data or the model tell it
Fact = Annotated[int, Range(1, needed=True)] | None
#: of random numbers
Seed = Annotated[int, Range(0, 2**32 - 1)]


class Missing(ValueError):
    """A fact that neither the user nor the data nor the model has told."""


def check_range(name: str, value: Any, allowed: Range) -> None:
    """Raises `ValueError` for a number outside; any other value has its type to answer for."""
    for number in _numbers(value):
        if not allowed.holds(number):
            raise ValueError(f"{name} {number}: {allowed} is needed")


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


def ranges_of(annotation: Any) -> Iterator[Range]:
    """The ranges named in an annotation or in the alternatives and entries of it."""
    for extra in getattr(annotation, "__metadata__", ()):
        if isinstance(extra, Range):
            yield extra
    if typing.get_origin(annotation) is Annotated:
        annotation = annotation.__origin__
    for part in typing.get_args(annotation):
        yield from ranges_of(part)


def hints_of(function: Callable) -> dict[str, Any]:
    """The annotations of a function's parameters, without those that cannot be evaluated.

    (What is imported for type checkers alone is not there when the program runs.)
    """
    hints = {}
    for name, annotation in inspect.get_annotations(function).items():
        alone = types.SimpleNamespace(__annotations__={name: annotation})
        try:
            hints |= typing.get_type_hints(alone, function.__globals__, include_extras=True)
        except (NameError, AttributeError, TypeError):
            continue
    hints.pop("return", None)
    return hints


@functools.cache
def _declared(function: Callable) -> dict[str, list[Range]]:
    """The ranges of a function's parameters."""
    found = {name: list(ranges_of(hint)) for name, hint in hints_of(function).items()}
    return {name: ranges for name, ranges in found.items() if ranges}


def check_arguments(function: Callable, arguments: dict[str, Any]) -> None:
    """Checks arguments, by name, against the ranges of a function's annotations.

    Raises:
        Missing: naming the arguments that are None and must not be.
        ValueError: naming the argument, its value and what is allowed.
    """
    declared = _declared(function)
    missing = [
        name
        for name, ranges in declared.items()
        if arguments.get(name) is None and any(allowed.needed for allowed in ranges)
    ]
    if missing:
        raise Missing(f"{', '.join(missing)} {'is' if len(missing) == 1 else 'are'} needed")
    for name, ranges in declared.items():
        for allowed in ranges:
            check_range(name, arguments.get(name), allowed)


def checked(function: Callable) -> Callable:
    """A constructor that checks its numbers before anything else."""
    signature = inspect.signature(function)

    @functools.wraps(function)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        try:
            given = signature.bind(*args, **kwargs).arguments
        except TypeError:
            pass  # the call itself reports it
        else:
            check_arguments(function, given)
        return function(*args, **kwargs)

    # the command line reads the ranges off the signature, where strings would lose them
    hints = hints_of(function)
    wrapper.__signature__ = signature.replace(
        parameters=[
            parameter.replace(annotation=hints.get(name, parameter.annotation))
            for name, parameter in signature.parameters.items()
        ]
    )
    return wrapper

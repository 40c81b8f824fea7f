"""Which numbers a setting may have, said where the setting is declared.

    def __init__(self, samples: Count = 16, clip: Positive = 5.0): ...

Every `Component` checks its constructor's numbers against these when it is made, from a settings
file, from the command line and in Python alike.
"""

from __future__ import annotations

import functools
import inspect
import math
import reprlib
import types
import typing
from collections.abc import Callable, Iterator, Mapping
from typing import Annotated, Any

#: what torch can still hold: numbers beyond are infinite in single precision
_LARGEST = 3.4e38


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
        """Whether a number lies in the interval; NaN and what float32 cannot hold never do."""
        return (
            -_LARGEST <= number <= _LARGEST
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
            beyond = _LARGEST < abs(number) < math.inf
            wanted = f"no more than {_LARGEST:g}" if beyond else allowed
            raise ValueError(f"{name} {number}: {wanted} is needed")


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
    hints, names = {}, inspect.unwrap(function).__globals__  # those of where it was written
    for name, annotation in inspect.get_annotations(function).items():
        alone = types.SimpleNamespace(__annotations__={name: annotation})
        try:
            hints |= typing.get_type_hints(alone, names, include_extras=True)
        except (NameError, AttributeError, TypeError):
            continue
    hints.pop("return", None)
    return hints


class _Kinds:
    """What a setting with a range may be beside a number: what its annotation says.

    Args:
        hint: the annotation.
    """

    def __init__(self, hint: Any):
        self.kinds: set[type] = set()
        self._visit(hint)
        self.kinds |= {list} if tuple in self.kinds else set()  # as settings files write it
        self.whole = int in self.kinds and float not in self.kinds

    def _visit(self, hint: Any) -> None:
        if typing.get_origin(hint) is Annotated:
            hint = hint.__origin__
        origin = typing.get_origin(hint)
        if isinstance(origin or hint, type):
            self.kinds.add(origin or hint)
        for part in typing.get_args(hint):
            self._visit(part)

    def check(self, name: str, value: Any) -> None:
        """Raises `ValueError` for plain data that is no number and nothing else that is allowed."""
        if isinstance(value, float) and self.whole and not value.is_integer():
            wanted = math.isfinite(value) and "a whole number"
        elif isinstance(value, (list, tuple)):
            wanted = not any(issubclass(type(value), kind) for kind in self.kinds) and "a number"
            for entry in () if wanted else value:
                if entry is None:
                    raise ValueError(f"{name}: a number is needed, not None")
                self.check(name, entry)
        elif isinstance(value, (bool, str, bytes, set)):
            wanted = type(value) not in self.kinds and "a number"
        elif isinstance(value, Mapping):  # a component's spec
            wanted = self.kinds <= {int, float, type(None)} and "a number"
        else:
            return
        if wanted:
            raise ValueError(f"{name} {reprlib.repr(value)}: {wanted} is needed")


@functools.cache
def _declared(function: Callable) -> dict[str, tuple[_Kinds, list[Range]]]:
    """The ranges of a function's parameters, and what else these may be."""
    found = {name: (hint, list(ranges_of(hint))) for name, hint in hints_of(function).items()}
    return {name: (_Kinds(hint), ranges) for name, (hint, ranges) in found.items() if ranges}


def check_arguments(function: Callable, arguments: dict[str, Any]) -> None:
    """Checks arguments, by name, against the ranges of a function's annotations.

    Raises:
        Missing: naming the arguments that are None and must not be.
        ValueError: naming the argument, its value and what is allowed: numbers of a range, whole
            ones where the annotation says `int`, and no text, list or truth value in their place.
    """
    declared = _declared(function)
    missing = [
        name
        for name, (_, ranges) in declared.items()
        if arguments.get(name) is None and any(allowed.needed for allowed in ranges)
    ]
    if missing:
        raise Missing(f"{', '.join(missing)} {'is' if len(missing) == 1 else 'are'} needed")
    for name, (kinds, ranges) in declared.items():
        if name in arguments and arguments[name] is None and type(None) not in kinds.kinds:
            raise ValueError(f"{name}: a number is needed, not None")
        kinds.check(name, arguments.get(name))
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
    vars(wrapper)["__signature__"] = signature.replace(
        parameters=[
            parameter.replace(annotation=hints.get(name, parameter.annotation))
            for name, parameter in signature.parameters.items()
        ]
    )
    return wrapper

"""Objects that remember how they were made, so that a checkpoint can make them again."""

from __future__ import annotations

import functools
import importlib
import inspect
import reprlib
import sys
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

from gfnem.errors import UserError, too_large
from gfnem.ranges import Missing, checked

#: levels of plain data within each other: more than anything needs, fewer than Python can go
_DEEPEST = 100
_PLAIN = (str, int, float, bool, type(None))


class Component:
    """Base of everything a run is assembled from: models, spaces, policies, objectives, data.

    A component records its constructor's arguments. `spec()` returns them as plain data (what a
    YAML file or a `weights_only` checkpoint can hold) and `build(spec)` makes an equal component.

    One that lacks a size that the data or the model tell is not an error yet: it is `Unfinished`,
    good for being a part of a run and for nothing else.
    """

    #: whether it is among the parts of a run that help and errors list; False for what others hold
    listed: ClassVar[bool] = True
    #: what makes a class of this kind of a function, if anything does
    decorator: ClassVar[str] = ""
    #: whether updates that it is part of can be recorded: see `gfnem.recording`
    recordable: bool = False
    _arguments: dict[str, Any]

    def __init_subclass__(cls, **kwargs: Any):
        """Has the constructor's numbers checked against their ranges (see `gfnem.ranges`)."""
        super().__init_subclass__(**kwargs)
        if "__init__" in cls.__dict__:
            cls.__init__ = _finished_later(checked(cls.__init__))

    def __new__(cls, *args, **kwargs):
        """Creates the object and notes the arguments it is about to be initialised with."""
        self = super().__new__(cls)
        try:
            bound = inspect.signature(cls.__init__).bind(self, *args, **kwargs)
        except TypeError:
            arguments = {}  # copying and unpickling call __new__ bare; __init__ reports the rest
        else:
            arguments = dict(list(bound.arguments.items())[1:])
            for name, parameter in inspect.signature(cls.__init__).parameters.items():
                if parameter.kind is inspect.Parameter.VAR_KEYWORD:
                    arguments.update(arguments.pop(name, {}))
        object.__setattr__(self, "_arguments", arguments)
        return self

    def spec(self) -> dict[str, Any]:
        """`{"class_path": ..., "init_args": {...}}`, plain data all the way down.

        Raises:
            TypeError: if an argument is neither plain data nor a component.
        """
        cls = type(self).finished if isinstance(self, Unfinished) else type(self)
        return {
            "class_path": public_path(cls),
            "init_args": {
                name: plain(value, f"{cls.__name__}({name}=...)")
                for name, value in self._arguments.items()
            },
        }


def public_path(cls: type) -> str:
    """The shortest import path of a class: files that name it survive a move behind it."""
    name, parts = cls.__qualname__, cls.__module__.split(".")
    for depth in range(1, len(parts)):
        package = sys.modules.get(".".join(parts[:depth]))
        if package is not None and getattr(package, name, None) is cls:
            return f"{package.__name__}.{name}"
    return f"{cls.__module__}.{name}"


class Unfinished(Component):
    """A component whose constructor lacks a size; `build` makes it once the size is known.

    Its class derives from the one that was called. Any use of it raises `Missing`.
    """

    missing: Missing
    finished: type  # the class that was called

    def __getattribute__(self, name: str) -> Any:
        if name in ("missing", "spec", "_arguments") or name.startswith("__"):
            return object.__getattribute__(self, name)
        missing = object.__getattribute__(self, "missing")
        raise Missing(
            f"{type(self).finished.__name__}: {missing} (a part of a run is told by its data)"
        )

    def __repr__(self) -> str:
        given = ", ".join(f"{name}={value!r}" for name, value in self._arguments.items())
        return f"{type(self).finished.__name__}({given}), unfinished: {self.missing}"


def _finished_later(init: Callable) -> Callable:
    """A constructor that makes the object `Unfinished` where a size is missing."""

    @functools.wraps(init)
    def wrapper(self: Component, *args: Any, **kwargs: Any) -> None:
        try:
            init(self, *args, **kwargs)
        except Missing as missing:
            cls = type(self)
            if cls.__init__ is not wrapper:  # a base's, called by one that cannot go on either
                raise
            names = {"__module__": cls.__module__, "finished": cls}
            object.__setattr__(self, "missing", missing)
            object.__setattr__(
                self, "__class__", type(cls)(f"_{cls.__name__}", (Unfinished, cls), names)
            )

    return wrapper


def plain(value: Any, where: str, depth: int = 0) -> Any:
    """`value` with every component replaced by its spec.

    Raises:
        TypeError: naming `where`, if something is neither plain data nor a component.
        ValueError: likewise, if there is more within each other than can be read again.
    """
    if depth > _DEEPEST:
        raise ValueError(f"{where} goes more than {_DEEPEST} levels deep")
    if isinstance(value, Component):
        return value.spec()
    if isinstance(value, _PLAIN):
        return value
    if isinstance(value, Mapping):
        return {str(key): plain(entry, where, depth + 1) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(entry, where, depth + 1) for entry in value]
    raise TypeError(f"{where} must be plain data or a gfnem component, not {type(value).__name__}")


def build(spec: Any, base: type, **facts: Any) -> Any:
    """Makes the component that `spec` describes.

    Args:
        spec: a `Component.spec()`; a component is returned as it is, unless it is `Unfinished`,
            and None stays None.
        base: the class that the result must derive from.
        facts: arguments known from elsewhere (such as a vocabulary size read off the data), given
            to the constructor where it has a parameter of that name that `spec` leaves unset, and
            likewise to those of the components it is made of.

    Raises:
        UserError: if the class cannot be imported, is not a `base`, or rejects its arguments.
    """
    if isinstance(spec, Unfinished):
        spec = spec.spec()
    if spec is None or isinstance(spec, base):
        return spec
    cls, path = class_of(spec, base), spec["class_path"]
    refuse_abstract(cls, path)
    given = spec.get("init_args") or {}
    if not isinstance(given, Mapping):
        raise UserError(f"{path}: init_args are names with values, not {reprlib.repr(given)}")
    try:
        arguments = {name: _built(value, facts) for name, value in given.items()}
    except RecursionError as error:
        raise UserError(f"{path}: components within components, too deeply") from error
    parameters = inspect.signature(cls.__init__).parameters
    for name, value in facts.items():
        if name in parameters and arguments.get(name) is None:
            arguments[name] = value
    try:
        made = cls(**arguments)
        if isinstance(made, Unfinished):
            raise made.missing
        return made
    except (TypeError, ValueError) as error:
        if (why := too_large(error)) is not None:
            raise UserError(f"{path}: too large ({why})") from error
        what = (str(error).splitlines() or [type(error).__name__])[0]  # torch adds its own stack
        told = f"the data and the model tell: {', '.join(sorted(facts)) or 'nothing'}"
        if isinstance(error, Missing):
            raise UserError(f"{path}: {what} ({told})") from error
        unset = [
            name
            for name, parameter in list(parameters.items())[1:]
            if parameter.default in (None, parameter.empty)
            and parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
            and arguments.get(name) is None
        ]
        if isinstance(error, TypeError) and unset:  # None where a number was wanted, it may be
            raise UserError(f"{path}: {what} (not set: {', '.join(unset)}; {told})") from error
        raise UserError(f"{path}: {what}") from error
    except (MemoryError, OverflowError, RuntimeError) as error:
        if (why := too_large(error)) is None:
            raise
        raise UserError(f"{path}: too large ({why})") from error


def _built(value: Any, facts: Mapping[str, Any]) -> Any:
    """An argument with specs, also those in a list, replaced by what they describe."""
    if _is_spec(value):
        return build(value, Component, **facts)
    if isinstance(value, (list, tuple)):
        return [_built(entry, facts) for entry in value]
    return value


def class_of(spec: Any, base: type) -> type:
    """The class that a spec names.

    Raises:
        UserError: if `spec` is none, or its class cannot be imported or is not a `base`.
    """
    if not _is_spec(spec):
        shown = reprlib.repr(spec)
        raise UserError(f"expected a {base.__name__} or its class_path and init_args, not {shown}")
    path = spec["class_path"]
    cls = imported(path)
    if not (isinstance(cls, type) and issubclass(cls, base)):
        raise UserError(f"{path} is {unlike(cls, base)}")
    return cls


def unlike(thing: Any, base: type) -> str:
    """What something is that is not a class derived from `base`, for people."""
    if inspect.isfunction(thing) and issubclass(base, Component) and base.decorator:
        return f"a function without the decorator {base.decorator}, which makes a part of it"
    return f"not a {base.__name__}"


def derived(base: type[Component]) -> list[type[Component]]:
    """A class and all imported ones that derive from it."""
    classes = [base]
    for cls in classes:  # grows while it is gone through
        classes += [below for below in cls.__subclasses__() if below not in classes]
    return classes


def known(base: type[Component]) -> list[str]:
    """The names of the imported classes that derive from `base` and are listed, sorted."""
    classes = [cls for cls in derived(base) if cls.listed and not inspect.isabstract(cls)]
    return sorted({cls.__name__ for cls in classes if not cls.__name__.startswith("_")})


def imported(path: str) -> Any:
    """What an import path names, as `module.name` or, in an entry point, `module:name`.

    Raises:
        UserError: if it cannot be imported.
    """
    module, _, name = path.rpartition(":" if ":" in path else ".")
    try:
        return getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError, TypeError) as error:
        raise UserError(
            f"cannot import {path} ({error}); if it is your own file, name it with --code FILE, or "
            "run from its folder"
        ) from error


def refuse_abstract(cls: type, path: str) -> None:
    """Refuses a class that leaves methods undefined.

    Raises:
        UserError: naming them.
    """
    if lacking := ", ".join(sorted(getattr(cls, "__abstractmethods__", ()))):
        raise UserError(f"{path} lacks methods that it must define: {lacking}")


def _is_spec(value: Any) -> bool:
    return isinstance(value, Mapping) and isinstance(value.get("class_path"), str)

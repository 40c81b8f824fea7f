"""Every number that a component is made with says which numbers it may be."""

import importlib
import inspect
import pkgutil
import typing

import pytest

import gfnem
from gfnem.component import Component
from gfnem.ranges import hints_of, ranges_of

#: numbers without a range, and why
WITHOUT = {
    ("DataModule", "seed"): "any number will do",
}


def components():
    """Every component of the package that has a constructor of its own."""
    for module in pkgutil.walk_packages(gfnem.__path__, "gfnem."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    found, waiting = {}, [Component]
    while waiting:
        cls = waiting.pop()
        waiting.extend(cls.__subclasses__())
        if cls.__module__.startswith("gfnem.") and "__init__" in cls.__dict__:
            found[f"{cls.__module__}.{cls.__name__}"] = cls
    return [found[name] for name in sorted(found)]


def is_number(annotation) -> bool:
    """Whether an annotation allows whole numbers or decimals, alone or in a sequence."""
    if typing.get_origin(annotation) is typing.Annotated:
        annotation = annotation.__origin__
    return annotation in (int, float) or any(map(is_number, typing.get_args(annotation)))


@pytest.mark.parametrize("cls", components(), ids=lambda cls: cls.__name__)
def test_numbers_have_ranges(cls):
    constructor = inspect.unwrap(cls.__init__)
    hints = hints_of(constructor)
    for name, parameter in list(inspect.signature(constructor).parameters.items())[1:]:
        unannotated = parameter.annotation is parameter.empty
        assert not (unannotated and isinstance(parameter.default, (int, float))), name
        if name in hints and is_number(hints[name]) and (cls.__name__, name) not in WITHOUT:
            assert list(ranges_of(hints[name])), f"{cls.__name__}({name}=...) has no range"


def test_all_kinds_of_component_are_looked_at():
    names = {cls.__name__ for cls in components()}
    kinds = {"TextData", "Images", "Petals", "NeuralPCFG", "PetalSpace", "TopDownPolicy"}
    kinds |= {"SubTrajectoryBalance", "Anneal", "Alternating", "TreebankBrackets", "BracketEnergy"}
    assert kinds <= names and len(names) > 30

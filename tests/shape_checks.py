"""Shapes in the core's annotations, checked when a test calls what is annotated.

A test that trains calls some functions thousands of times, and checks took two fifths of its time:
of each function the first calls of a test are checked, and then every fiftieth. `conftest.py` has
jaxtyping wrap the functions that name a shape, in the modules below, as these are imported. Whether
other annotations hold is pyright's matter.
"""

from __future__ import annotations

import ast
import inspect
from collections import Counter
from collections.abc import Callable
from functools import wraps
from typing import Any, get_args

import jaxtyping
from beartype import beartype
from jaxtyping import AbstractArray, _import_hook, install_import_hook

MODULES = (
    "batch batched enumeration estimates hierarchical kernels mcmc objectives phases policy "
    "posterior refinement sampling soft_rl space state_graph target"
).split()
SHAPED = {"Bool", "Float", "Int", "Shaped"}
#: calls of a function that are checked in a test, and which of the others are
FIRST, EVERY = 20, 50
#: calls of each function in the present test
CALLS: Counter[int] = Counter()


class OnlyShapes(_import_hook.JaxtypingTransformer):
    """Leaves functions alone that name no shape: each wrapped call takes a tenth of a millisecond.

    Functions within functions would be wrapped anew in each call of the outer one.
    """

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.FunctionDef:
        parts = [argument.annotation for argument in ast.walk(node.args)
                 if isinstance(argument, ast.arg)] + [node.returns]  # fmt: skip
        names = {name.id for part in parts if part is not None for name in ast.walk(part)
                 if isinstance(name, ast.Name)}  # fmt: skip
        if not names & SHAPED:
            return node
        node = super().visit_FunctionDef(node)
        # what checks is the last decorator; the module imports jaxtyping
        often = ast.Attribute(ast.Name("jaxtyping", ast.Load()), often_enough.__name__, ast.Load())
        node.decorator_list.insert(-1, ast.copy_location(often, node))
        return node


def names_a_shape(annotation: Any) -> bool:
    if inspect.isclass(annotation) and issubclass(annotation, AbstractArray):
        return True
    return any(map(names_a_shape, get_args(annotation)))


def often_enough(checked: Callable) -> Callable:
    """A function that is checked in some of its calls."""
    plain, name = inspect.unwrap(checked), id(checked)

    @wraps(plain)
    def call(*args, **kwargs):
        CALLS[name] += 1
        check = CALLS[name] <= FIRST or CALLS[name] % EVERY == 0
        return (checked if check else plain)(*args, **kwargs)

    return call


def shapes_in_some_calls(function: Any) -> Any:
    """Checks arguments and results whose annotations name a shape, and no others."""
    hints = inspect.get_annotations(function)
    function.__annotations__ = {name: hint for name, hint in hints.items() if names_a_shape(hint)}
    return beartype(function) if function.__annotations__ else function


def install() -> None:
    _import_hook.JaxtypingTransformer = OnlyShapes
    setattr(jaxtyping, often_enough.__name__, often_enough)
    # compiled modules are kept by the checker's name: give another one another name
    checker = f"shape_checks.{shapes_in_some_calls.__name__}"
    install_import_hook([f"gfnem.{name}" for name in MODULES], checker)

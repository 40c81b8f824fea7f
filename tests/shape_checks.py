"""Shapes in the core's annotations, checked whenever a test calls what is annotated.

`conftest.py` has jaxtyping wrap the functions that name a shape, in the modules below, as these are
imported. Whether other annotations hold is pyright's matter.
"""

from __future__ import annotations

import ast
import inspect
from typing import Any, get_args

from beartype import beartype
from jaxtyping import AbstractArray, _import_hook, install_import_hook

MODULES = (
    "batch batched enumeration estimates hierarchical kernels mcmc objectives phases policy "
    "posterior refinement sampling soft_rl space state_graph target"
).split()
SHAPED = {"Bool", "Float", "Int", "Shaped"}


class OnlyShapes(_import_hook.JaxtypingTransformer):
    """Leaves functions alone that name no shape: each wrapped call takes a tenth of a millisecond.

    Functions within functions would be wrapped anew in each call of the outer one.
    """

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.FunctionDef:
        parts = [argument.annotation for argument in ast.walk(node.args)
                 if isinstance(argument, ast.arg)] + [node.returns]  # fmt: skip
        names = {name.id for part in parts if part is not None for name in ast.walk(part)
                 if isinstance(name, ast.Name)}  # fmt: skip
        return super().visit_FunctionDef(node) if names & SHAPED else node


def names_a_shape(annotation: Any) -> bool:
    if inspect.isclass(annotation) and issubclass(annotation, AbstractArray):
        return True
    return any(map(names_a_shape, get_args(annotation)))


def shapes(function: Any) -> Any:
    """Checks arguments and results whose annotations name a shape, and no others."""
    hints = inspect.get_annotations(function)
    function.__annotations__ = {name: hint for name, hint in hints.items() if names_a_shape(hint)}
    return beartype(function) if function.__annotations__ else function


def install() -> None:
    _import_hook.JaxtypingTransformer = OnlyShapes
    install_import_hook([f"gfnem.{name}" for name in MODULES], "shape_checks.shapes")

"""Dependency trees: the dependency model with valence, its exact inference and its sampler."""

from typing import Any

from gfnem.lazy import public_names

_attribute, __dir__, __all__ = public_names(
    "gfnem.parsing.dependencies",
    {
        "data": ("DependencyData",),
        "model": ("DMV", "NeuralDMV", "TabularDMV"),
        "policy": ("HeadsPolicy",),
        "rewards": ("ArcReward", "Harmonic"),
        "space": ("HeadsSpace",),
    },
)


def __getattr__(name: str) -> Any:
    return _attribute(name)

"""Points in the plane: a hierarchical Gaussian mixture whose posterior is known exactly."""

from typing import Any

from gfnem.lazy import public_names

_attribute, __dir__, __all__ = public_names(
    "gfnem.mixtures",
    {
        "assignments": ("ClusterPosterior", "LabelPolicy", "LabelSpace"),
        "data": ("Petals",),
        "model": ("PetalMixture",),
        "policy": ("PetalPolicy",),
        "space": ("PetalSpace", "PetalState"),
    },
)


def __getattr__(name: str) -> Any:
    return _attribute(name)

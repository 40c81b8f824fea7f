"""Small worlds where every claim about samplers can be computed: grids, walks, factor graphs."""

from typing import Any

from gfnem.lazy import public_names

_attribute, __dir__, __all__ = public_names(
    "gfnem.toys",
    {
        "conditional": ("ConditionalPolicy", "ConditionalTorus"),
        "data": ("Copies",),
        "factors": ("FactorGraph", "Unobserved"),
        "hypergrid": ("Hypergrid", "HypergridReward", "Place"),
        "network": ("NetworkPolicy",),
        "table": ("TablePolicy",),
        "walks": ("TimeStamped", "TorusReward", "TorusWalk", "Walk"),
    },
)


def __getattr__(name: str) -> Any:
    return _attribute(name)

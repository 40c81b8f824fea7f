"""Tables of measurements: the posterior over directed acyclic graphs of their columns."""

from typing import Any

from gfnem.lazy import public_names

_attribute, __dir__, __all__ = public_names(
    "gfnem.graphs",
    {
        "completion": ("CompletedPolicy",),
        "dags": ("closure_of", "every_dag", "number_of_dags"),
        "data": ("Measurements",),
        "exact": ("LayerProgramme",),
        "layer_policy": ("LayerPolicy",),
        "layers": ("LayerSpace", "LayerState"),
        "model": ("DagPosterior",),
        "network_policy": ("NetworkPolicy",),
        "networks": ("NetworkPosterior", "Networks"),
        "policy": ("FlatPolicy", "GraphPolicy"),
        "priors": ("EdgePrior", "GraphTerm", "PathPrior"),
        "scores": ("BDeu", "BGe", "BIC", "LocalScore"),
        "sinks": ("SinkProgramme",),
        "space": ("DagSpace", "DagState"),
        "tables": ("Tables",),
        "weights": ("KnownNoise", "Weighted", "WeightedPosterior"),
    },
)


def __getattr__(name: str) -> Any:
    return _attribute(name)

"""Energies of rows of small whole numbers, with and without latent units, and their samplers."""

from typing import Any

from gfnem.lazy import public_names

_attribute, __dir__, __all__ = public_names(
    "gfnem.energies",
    {
        "data": ("BinaryImages", "Points", "Spins", "TableRows"),
        "masked": ("MaskedPolicy",),
        "chains": ("BlockGibbs", "DiscreteLangevin", "Gibbs", "GibbsWithGradients"),
        "machines": ("RBM", "BoltzmannMachine"),
        "models": ("AssignmentEnergy", "MLPEnergy", "Pairwise", "Torus"),
        "recipes": ("contrastive", "energy_discrepancy", "pseudo_likelihood"),
        "policies": ("AssignmentPolicy",),
        "space": ("Assignment", "AssignmentSpace"),
        "towers": ("TwoTowers",),
    },
)


def __getattr__(name: str) -> Any:
    return _attribute(name)

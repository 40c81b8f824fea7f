"""GFlowNet-EM: latent-variable models whose latents are structures."""

import importlib
import os
from typing import Any

# Threads that spin while they wait make the many small tensors here tens of times slower as soon as
# another process wants the cores. It must be said before torch is imported; the user's word counts.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

_HOMES = {
    "component": ("Component",),
    "data": ("DataModule",),
    "em": ("GFlowNetEM",),
    "objectives": (
        "BalancedVarGrad",
        "DetailedBalance",
        "ForwardKL",
        "Objective",
        "ReverseKL",
        "SubTrajectoryBalance",
        "TrajectoryBalance",
        "VarGrad",
    ),
    "policy": ("Policy", "Scores", "Step"),
    "posterior": ("Posterior",),
    "schedules": ("AdaptiveThreshold", "Alternating", "Anneal", "EveryUpdate"),
    "side": ("SideInformation",),
    "space": ("LatentSpace", "Trajectories"),
    "target": ("EnergyModel", "GenerativeModel", "Target"),
}
__all__ = sorted(name for names in _HOMES.values() for name in names)


def __getattr__(name: str) -> Any:
    """Imports a public name when it is first asked for: `gfnem --help` need not load torch."""
    for home, names in _HOMES.items():
        if name in names:
            return getattr(importlib.import_module(f"gfnem.{home}"), name)
    raise AttributeError(f"module 'gfnem' has no attribute {name!r}")

"""GFlowNet-EM: latent-variable models whose latents are structures."""

from typing import Any

from gfnem.lazy import public_names

__version__ = "0.1.0"

# `gfnem --help` need not load torch, nor `gfnem parse` what training needs
_attribute, __dir__, __all__ = public_names(
    "gfnem",
    {
        "component": ("Component",),
        "data": ("DataModule",),
        "em": ("GFlowNetEM",),
        "front_door": ("load", "train"),
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
        "running.runs": ("load_run",),
        "schedules": ("AdaptiveThreshold", "Alternating", "Anneal", "EveryUpdate"),
        "side": ("SideInformation",),
        "space": ("LatentSpace", "Trajectories"),
        "target": ("EnergyModel", "GenerativeModel", "Target"),
        "running.run": ("Run",),
        "running.trained": ("Trained",),
        "world": ("Observed", "World"),
    },
)


def __getattr__(name: str) -> Any:
    return _attribute(name)

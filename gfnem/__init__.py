"""GFlowNet-EM: latent-variable models whose latents are structures."""

from typing import Any

from gfnem.lazy import public_names

__version__ = "0.1.0"

# `gfnem --help` need not load torch, nor `gfnem parse` what training needs
_attribute, __dir__, __all__ = public_names(
    "gfnem",
    {
        "batched": ("Batched",),
        "component": ("Component",),
        "data": ("DataModule",),
        "em": ("EM",),
        "front_door": ("load", "train"),
        "lightning": ("GFlowNetEM",),
        "objectives": (
            "BalancedVarGrad",
            "DetailedBalance",
            "ForwardKL",
            "MaximumLikelihood",
            "Objective",
            "ReverseKL",
            "SubTrajectoryBalance",
            "TrajectoryBalance",
            "VarGrad",
        ),
        "policy": ("Policy", "Scores", "Step"),
        "posterior": ("Posterior",),
        "running.runs": ("load_run",),
        "offers": ("NotOffered",),
        "phases": (
            "ClimbMarginal",
            "LearnBeside",
            "Phase",
            "Together",
            "TrainModel",
            "TrainPolicy",
        ),
        "rates": ("Descent", "Rates"),
        "recipes": ("Recipe", "recipe"),
        "schedules": ("AdaptiveThreshold", "Alternating", "Anneal", "EveryUpdate", "Schedule"),
        "sources": (
            "Chains",
            "Given",
            "ModelSamples",
            "Own",
            "PosteriorSamples",
            "Refined",
            "Replay",
            "Source",
        ),
        "reward": ("Reward", "Rewarded"),
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

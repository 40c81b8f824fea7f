"""Whether training can run where, and in the precision, that the user asks for."""

from __future__ import annotations

import importlib.util

import torch

from gfnem.errors import UserError

#: accelerators of Lightning that torch alone does not drive, and the package that does
_PACKAGES = {"tpu": "torch_xla", "hpu": "lightning_habana"}


def check(accelerator: str, devices: int | str, precision: str | int) -> None:
    """Refuses what would end in an error of the first update.

    Args:
        accelerator: Lightning's name of it, or "auto".
        devices: how many.
        precision: Lightning's name of it.

    Raises:
        UserError: naming the flag and the way out.
    """
    name = str(accelerator).lower()
    package = _PACKAGES.get(name)
    if package is not None and importlib.util.find_spec(package) is None:
        raise UserError(f"--accelerator {accelerator}: needs {package}, which is not installed")
    count = torch.cuda.device_count()
    there = {"cuda": count, "mps": int(torch.backends.mps.is_available())}
    there["gpu"] = max(there.values())
    if name in there and not there[name]:
        raise UserError(f"--accelerator {accelerator}: there is none here; use cpu or auto")
    if name in ("cuda", "gpu", "auto") and count and isinstance(devices, int) and devices > count:
        raise UserError(f"--devices {devices}: there are {count} GPUs here")
    if str(precision) in ("16-true", "bf16-true"):
        raise UserError(
            f"--precision {precision}: weights of half precision are too coarse for sums of log "
            "probabilities; bf16-mixed computes in it and keeps the weights in full"
        )
    if str(precision).startswith("transformer-engine"):
        raise UserError(f"--precision {precision}: has nothing to do here; use bf16-mixed")

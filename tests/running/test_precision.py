"""Accelerators and precisions that training cannot use are refused in one line."""

import pytest
import torch

from gfnem.errors import UserError
from gfnem.running import devices


@pytest.mark.parametrize(
    ("accelerator", "count", "precision", "says"),
    [
        ("tpu", 1, "32-true", "--accelerator tpu: needs torch_xla"),
        ("TPU", 1, "32-true", "--accelerator TPU: needs torch_xla"),
        ("hpu", 1, "32-true", "lightning_habana"),
        ("cpu", 1, "16-true", "--precision 16-true: .*bf16-mixed"),
        ("auto", 1, "bf16-true", "--precision bf16-true: .*bf16-mixed"),
        ("cpu", 1, "transformer-engine", "--precision transformer-engine"),
    ],
)
def test_refused(accelerator, count, precision, says):
    with pytest.raises(UserError, match=says):
        devices.check(accelerator, count, precision)


@pytest.mark.parametrize(("gpus", "name"), [(0, "gpu"), (0, "cuda"), (2, "gpu")])
def test_gpus_that_are_not_there(monkeypatch, gpus, name):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    says = "--devices 3: there are 2" if gpus else f"--accelerator {name}: there is none"
    with pytest.raises(UserError, match=says):
        devices.check(name, 3, "32-true")


@pytest.mark.parametrize("precision", ["32-true", "64-true", "16-mixed", "bf16-mixed", 32, "32"])
def test_allowed(precision):
    devices.check("cpu", 4, precision)
    devices.check("auto", 1, precision)

"""Run folders: what a training run writes, and how it is found again.

A run folder holds `config.yaml` (the resolved configuration), `last.ckpt` (the whole state of the
run), `best.ckpt` (likewise, from when the held-out NLL was lowest), `metrics.csv` (a row for each
validation), `curves.png`, and the pictures that the data's `draw` makes. Every file is written
under another name first and then renamed.
"""

from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import Any, cast

from gfnem.errors import UserError
from gfnem.running.run import Run
from gfnem.running.torch_files import load_plain
from gfnem.running.trained import CLOCK
from gfnem.running.trust import opening
from gfnem.settings import read_settings
from gfnem.world import World, find

CHECKPOINT = "last.ckpt"
BEST = "best.ckpt"
CONFIG = "config.yaml"
METRICS = "metrics.csv"
CURVES = "curves.png"
#: held by the process that trains in the folder
LOCK = ".lock"


def checkpoint_path(run: str | os.PathLike) -> Path:
    """The checkpoint meant by a run folder, its best if it has one, or by a checkpoint's own path.

    Raises:
        UserError: if there is none.
    """
    path = Path(run)
    if path.is_dir():
        path = path / (BEST if (path / BEST).exists() else CHECKPOINT)
        if not path.exists():
            raise UserError(f"{run}: no {CHECKPOINT} in this folder; is it a finished run?")
    if not path.exists():
        raise UserError(f"{run}: no such run folder or checkpoint")
    return path


def is_run(path: str | os.PathLike) -> bool:
    """Whether there is a run folder or a checkpoint of this name."""
    path = Path(path)
    if path.is_dir():
        return (path / CHECKPOINT).exists() or (path / BEST).exists()
    return path.suffix == ".ckpt" and path.is_file()


def read_config(run: str | os.PathLike) -> dict[str, Any]:
    """The resolved configuration beside a run's checkpoint.

    Raises:
        UserError: if it is missing or not YAML.
    """
    return read_settings(checkpoint_path(run).parent / CONFIG)


def load_run(run: str | os.PathLike, device: str = "cpu") -> Run:
    """The trained model and sampler of a run folder or checkpoint, ready for inference.

    Raises:
        UserError: if it is missing, damaged, or not a gfnem checkpoint, or the device is not there.
    """
    path = checkpoint_path(run)
    content = read_checkpoint(path, mmap=True)
    try:
        with opening(content["hyper_parameters"], content.get("trust")):
            world = find((content["hyper_parameters"].get("metadata") or {}).get("world"))
            loaded = cast("Run", world.run_class().from_checkpoint(content))
    except UserError as error:
        raise UserError(f"{path}: {error}") from error
    except (RuntimeError, AttributeError) as error:
        raise UserError(
            f"{path}: the weights do not fit the model it names; is it from an older version?"
        ) from error
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise UserError(f"{path}: not a gfnem checkpoint ({error})") from error
    loaded.world, loaded.path = world, path
    try:
        return loaded.to(device)
    except (RuntimeError, AssertionError) as error:  # as torch says it where it has no CUDA
        raise UserError(f"device {device!r}: {str(error).splitlines()[0]}") from error


def world_of(run: str | os.PathLike) -> World:
    """The world that a run was trained in.

    Raises:
        UserError: if there is no such run, or it is damaged.
    """
    path = checkpoint_path(run)
    content = read_checkpoint(path, mmap=True)
    metadata = content["hyper_parameters"].get("metadata") or {}
    with opening(content["hyper_parameters"], content.get("trust")):
        return find(metadata.get("world"))


def read_checkpoint(path: str | os.PathLike, mmap: bool = False) -> dict[str, Any]:
    """A checkpoint's content, read without running any code in it.

    Args:
        path: the file.
        mmap: whether tensors are read from the file when they are first used, as where most of
            them, the optimisers', are not used at all.

    Raises:
        UserError: if the file is damaged, or was not written by gfnem or by an older version.
    """
    try:
        content = load_plain(path, mmap)
    except OSError as error:
        raise UserError(f"{path}: cannot read ({error.strerror or error})") from error
    except Exception as error:  # there is no end to what damaged bytes can raise
        if isinstance(error, pickle.UnpicklingError) and "Unsupported global" in str(error):
            why = "it holds more than plain data, and nothing in it has been run"
            raise UserError(f"{path}: not a gfnem checkpoint ({why})") from error
        raise UserError(f"{path}: not a checkpoint, or a damaged one") from error
    parts = ("hyper_parameters", "state_dict")
    if not isinstance(content, dict) or not all(
        isinstance(content.get(part), dict) for part in parts
    ):
        raise UserError(f"{path}: not a gfnem checkpoint")
    if not {"model", "space", "policy"} <= set(content["hyper_parameters"]):
        raise UserError(f"{path}: not a gfnem checkpoint (no model, space and policy in it)")
    if not isinstance(content["hyper_parameters"].get("metadata") or {}, dict):
        raise UserError(f"{path}: not a gfnem checkpoint (its metadata is none)")
    if CLOCK not in content["state_dict"]:
        raise UserError(
            f"{path}: from an older version of gfnem, which this one cannot read; train it anew"
        )
    return content

"""The front door in Python: train on a file, open a run.

run = gfnem.train("text.txt", out="runs/mine", max_updates=2000)
run = gfnem.load("runs/mine")
run.parse("the old man saw a bird")
"""

from __future__ import annotations

import os
import warnings
from typing import TYPE_CHECKING, Any

from gfnem.errors import UserError

if TYPE_CHECKING:
    from gfnem.running.run import Run


def load(run: str | os.PathLike, device: str = "cpu") -> Run:
    """A trained run, ready for inference.

    Args:
        run: run folder or checkpoint.
        device: where to put it.

    Returns:
        The run with `infer`, `sample` and `evaluate`, and with the methods of its world: a run on
        text has `parse`.

    Raises:
        UserError: if it is missing, damaged, or not a gfnem checkpoint.
    """
    from gfnem.running.runs import load_run

    return load_run(run, device)


def train(
    data: str | os.PathLike | None = None,
    out: str | os.PathLike | None = None,
    world: Any = None,
    **settings: Any,
) -> Run:
    """Trains a run as `gfnem train` does, with the same defaults, and loads it.

    Args:
        data: what to train on, as `gfnem worlds` says; None is what the world has without it.
        out: run folder to make; None is `runs/1`, `runs/2`, ...
        world: the name of a world, or a `World` class of yours.
        settings: those of a settings file, with underscores as in `max_updates=2000`. A part of
            the run, such as `model`, is a component (`NeuralPCFG(nonterminals=20)`: sizes that the
            data tell may be left out), a class, its name, or a dict of settings of the world's
            default class (`model={"nonterminals": 20}`).

    Returns:
        The trained run.

    Raises:
        UserError: if data or settings are unusable, or the folder already holds a run.
        Interrupted: if a signal ended training; what was done is saved.
    """
    import torch

    from gfnem.cli.train import settings_of
    from gfnem.running.restarts import train as train_run
    from gfnem.running.training import quietly

    content = dict(settings)
    for name, value in (("data", data), ("out", out)):
        if value is not None:
            if not isinstance(value, (str, os.PathLike)):
                raise UserError(f"{name}: a path is wanted, not {type(value).__name__}")
            content[name] = os.fspath(value)
    if world is not None:
        named = isinstance(world, type)
        content["world"] = f"{world.__module__}.{world.__qualname__}" if named else world
    complete = settings_of(content)
    deterministic = torch.are_deterministic_algorithms_enabled()
    try:
        with warnings.catch_warnings():
            folder = train_run(complete, quietly)
    finally:
        torch.use_deterministic_algorithms(deterministic)
    return load(folder)

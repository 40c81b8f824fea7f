"""`gfnem evaluate`: text runs are scored against trees, other worlds report as they choose."""

from __future__ import annotations

import json
from pathlib import Path

import yaml

from gfnem.component import build
from gfnem.data import DataModule
from gfnem.errors import UserError
from gfnem.runs import CONFIG, checkpoint_path, load_run


def evaluate(
    run: str,
    data: str | None = None,
    decode: str = "mbr",
    samples: int = 64,
    limit: int | None = None,
    format: str = "text",
) -> None:
    """Prints the figures of a run.

    Raises:
        UserError: if run or data are unusable.
    """
    module = load_run(run)
    if module.metadata.get("kind") == "text":
        from gfnem.parsing.commands import evaluate as evaluate_text

        return evaluate_text(module, data, decode, samples, limit, format)
    config = Path(checkpoint_path(run)).parent / CONFIG
    if not config.exists():
        raise UserError(f"{run}: no {CONFIG} beside the checkpoint, so its data is not known")
    settings = yaml.safe_load(config.read_text(encoding="utf-8"))
    figures = build(settings["dataset"], DataModule).evaluate(module, data)
    if format == "json":
        print(json.dumps(figures))
    else:
        for name, value in figures.items():
            print(f"{name:32} {value:.4f}" if isinstance(value, float) else f"{name:32} {value}")
    return None

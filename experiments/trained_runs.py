"""Runs that a table is made of: started, gone on with, or there already."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path


def gfnem(*words: str) -> str:
    """What a command prints."""
    command = [sys.executable, "-m", "gfnem", *words]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


def trained(run: Path, *words: str) -> None:
    """A `gfnem train` into a folder; one that was interrupted goes on."""
    if (run / "config.yaml").exists():
        gfnem("train", "--resume", str(run))
    else:
        gfnem("train", *words, "--out", str(run))


def evaluated(run: Path, names: Mapping[str, str], *words: str) -> dict[str, str]:
    """Figures of a `gfnem evaluate` as a row shows them, those that there are.

    Args:
        run: the run.
        names: the figures by their names in the row, each with the command's own.
        words: more flags of the command.
    """
    found = json.loads(gfnem("evaluate", str(run), *words, "--samples", "16", "--format", "json"))
    return {
        name: f"{found[key]:.4g}" if isinstance(found[key], float) else found[key]
        for name, key in names.items()
        if key in found
    }

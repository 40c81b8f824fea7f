"""Runs that a table is made of: started, gone on with, or there already."""

from __future__ import annotations

import subprocess
import sys
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

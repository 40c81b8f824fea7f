"""mkdocs hook: the command reference, made from the parsers themselves at each build."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGE = "commands.md"
#: the parts of a run, whose defaults' settings are listed too
PARTS = ("dataset", "model", "space", "policy", "recipe", "schedule", "rates")


def help_of(*words: str) -> str:
    """What `gfnem WORDS` prints, 90 columns wide.

    Raises:
        RuntimeError: if the command fails.
    """
    environment = {**os.environ, "COLUMNS": "90", "NO_COLOR": "1", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-m", "gfnem", *words], env=environment, capture_output=True, text=True
    )
    if done.returncode:
        raise RuntimeError(f"gfnem {' '.join(words)}: {done.stderr.strip()}")
    return done.stdout.rstrip()


def commands(overview: str) -> list[str]:
    """The commands that `gfnem --help` lists, in its order."""
    listed = overview.split("Available subcommands:")[1]
    return re.findall(r"^ {4}([a-z][a-z-]*)\b", listed, re.MULTILINE)


def reference() -> str:
    """The page: every command's help, and the settings of the default parts of a run."""
    overview = help_of("--help")
    shown = [("gfnem", overview)]
    shown += [(f"gfnem {name}", help_of(name, "--help")) for name in commands(overview)]
    training = dict(shown)["gfnem train"]
    parts = [part for part in PARTS if f"--{part}.help" in training]
    shown += [(f"gfnem train --{part}.help", help_of("train", f"--{part}.help")) for part in parts]
    blocks = [f"## `{title}`\n\n```text\n{text}\n```\n" for title, text in shown]
    intro = "Made from the parsers when these pages are built: what `--help` prints.\n"
    return "\n".join(["# Commands\n", intro, *blocks])


def on_files(files, config):
    """Adds the page, which is nowhere on disk."""
    from mkdocs.structure.files import File

    files.append(File.generated(config, PAGE, content=reference()))
    return files


if __name__ == "__main__":
    print(reference())

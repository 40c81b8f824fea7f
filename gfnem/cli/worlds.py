"""`gfnem worlds`."""

from __future__ import annotations

from typing import Any

import jsonargparse

from gfnem.cli.arguments import CommandParser
from gfnem.errors import UserError
from gfnem.files import write
from gfnem.world import WORLDS, declared, find

HELP = "what kinds of data there are"


def parser(*_: Any) -> jsonargparse.ArgumentParser:
    """`worlds` has no flags."""
    return CommandParser(
        usage="gfnem worlds",
        description="List the worlds that gfnem train --world NAME knows: what is observed, what "
        "is latent, and what --data takes. A world of your own is --world my_file.MyWorld.",
    )


def run(settings: jsonargparse.Namespace) -> int:
    """Runs `worlds`; returns the exit code."""
    for name in declared(WORLDS):
        try:
            world = find(name)
            write(f"{name:12} {world.about}; --data: {world.data}\n")
        except UserError as error:
            write(f"{name:12} cannot be used: {error}\n")
    return 0

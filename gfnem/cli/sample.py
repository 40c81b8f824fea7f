"""`gfnem sample`."""

from __future__ import annotations

from typing import Any

import jsonargparse

from gfnem.cli.arguments import CommandParser
from gfnem.cli.shared import code_argument, options_of, run_argument, seed_argument
from gfnem.files import as_json, write
from gfnem.ranges import Count

HELP = "observations with their latents, drawn from the model"


def parser(*_: Any) -> jsonargparse.ArgumentParser:
    """The flags of `sample`."""
    parser = CommandParser(
        usage="gfnem sample RUN [-n N] [--seed N]",
        description="Draw observations of a trained model with their latents. Prints a JSON object "
        "for each, with log p(x, z) in nats.",
    )
    run_argument(parser)
    parser.add_argument("-n", "--count", metavar="N", type=Count, default=5, help="how many")
    code_argument(parser)
    seed_argument(parser)
    return parser


def run(settings: jsonargparse.Namespace) -> int:
    """Runs `sample`; returns the exit code."""
    from gfnem.running.runs import load_run

    options = options_of(settings)
    drawn = load_run(options["run"]).sample(options["count"])
    write("".join(f"{as_json(record)}\n" for record in drawn))
    return 0

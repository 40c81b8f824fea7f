"""`gfnem sample`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jsonargparse

from gfnem.cli.arguments import CommandParser
from gfnem.cli.shared import (
    code_argument,
    options_of,
    record_format,
    run_argument,
    seed_argument,
    world_of_run,
)
from gfnem.files import as_json, write
from gfnem.ranges import Count

HELP = "observations with their latents, drawn from the model"


def parser(arguments: Sequence[str], _: Any = None) -> jsonargparse.ArgumentParser:
    """The flags of `sample`."""
    parser = CommandParser(
        usage="gfnem sample RUN [-n N] [--format FORM] [--seed N]",
        description="Draw observations of a trained model with their latents. Prints a JSON object "
        "for each, with log p(x, z) in nats. Where all data are one observation, as a table of "
        "measurements is, its latents are drawn by the sampler.",
    )
    run_argument(parser)
    parser.add_argument("-n", "--count", metavar="N", type=Count, default=5, help="how many")
    record_format(parser, world_of_run(arguments))
    code_argument(parser)
    seed_argument(parser)
    return parser


def run(settings: jsonargparse.Namespace) -> int:
    """Runs `sample`; returns the exit code."""
    from gfnem.running.runs import load_run

    options = options_of(settings)
    run, form = load_run(options["run"]), options["format"]
    drawn = run.sample(options["count"])
    if form == "json":
        write("".join(f"{as_json(record)}\n" for record in drawn))
    else:
        write(run.world.draws_written(run, drawn, form))
    return 0

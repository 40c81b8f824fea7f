"""`gfnem infer`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
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

HELP = "the most probable latents of new data"


def parser(arguments: Sequence[str], _: Any = None) -> jsonargparse.ArgumentParser:
    """The flags of `infer`."""
    parser = CommandParser(
        usage="gfnem infer RUN FILE [-k K] [--samples N] [--format FORM] [--seed N]",
        description="Print a JSON object for each observation of a file: the observation, its "
        "log p(x), and its most probable latents with their log p(z|x) and log p(x, z), in nats. "
        "Latents are drawn by the run's sampler; the most probable of them are printed.",
    )
    run_argument(parser)
    parser.add_argument("file", help="new data, as --data of train takes them (see gfnem worlds)")
    parser.add_argument(
        "-k", "--count", metavar="K", type=Count, default=5, help="most latents of an observation"
    )
    parser.add_argument(
        "--samples", metavar="N", type=Count, default=64, help="latents drawn for each observation"
    )
    record_format(parser, world_of_run(arguments))
    code_argument(parser)
    seed_argument(parser)
    return parser


def run(settings: jsonargparse.Namespace) -> int:
    """Runs `infer`; returns the exit code."""
    from gfnem.running.runs import load_run

    options = options_of(settings)
    run, file = load_run(options["run"]), Path(options["file"])
    form = options["format"]
    for record in run.inferences(file, options["count"], options["samples"]):
        write(f"{as_json(record)}\n" if form == "json" else run.world.written(run, record, form))
    return 0

"""`gfnem evaluate`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jsonargparse

from gfnem.cli.arguments import CommandParser
from gfnem.cli.shared import (
    code_argument,
    refuse_flags_of_others,
    run_argument,
    seed_argument,
    world_of_run,
)
from gfnem.files import as_json, write
from gfnem.ranges import Count

HELP = "figures on held-out data"


def parser(arguments: Sequence[str], _: Any = None) -> jsonargparse.ArgumentParser:
    """The flags of `evaluate`."""
    parser = CommandParser(
        usage="gfnem evaluate RUN [--data PATH] [--samples N] [--format json] ...",
        description="Figures of a trained run on held-out data. Flags and figures beyond NLL, ELBO "
        "gap and effective sample size are those of the run's world: gfnem evaluate RUN --help.",
    )
    run_argument(parser)
    parser.add_argument(
        "--data",
        metavar="PATH",
        type=str | None,
        help="as for train; trees are scored where the data has them (default: what the run held "
        "out, or new sentences of the embedded grammar)",
    )
    parser.add_argument(
        "--samples",
        metavar="N",
        type=Count,
        default=64,
        help="importance samples for each observation",
    )
    world = world_of_run(arguments)
    world.flags("evaluate", parser)
    parser.add_argument(
        "--format", choices=("text", "json"), default="text", help="tables, or one JSON object"
    )
    code_argument(parser)
    seed_argument(parser)
    refuse_flags_of_others(parser, world, "evaluate", arguments)
    return parser


def run(settings: jsonargparse.Namespace) -> int:
    """Runs `evaluate`; returns the exit code."""
    from gfnem.running.runs import load_run

    options = settings.as_dict()
    run, format = load_run(options.pop("run")), options.pop("format")
    figures = run.evaluate(options.pop("data"), **options)
    write(f"{as_json(figures)}\n" if format == "json" else run.world.table(run, figures))
    return 0

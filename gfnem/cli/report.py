"""`gfnem report`."""

from __future__ import annotations

from typing import Any

import jsonargparse

from gfnem.cli.arguments import CommandParser
from gfnem.cli.shared import code_argument, run_argument, seed_argument
from gfnem.files import write
from gfnem.ranges import Count

HELP = "a web page: what was learned, and how far it can be trusted"


def parser(*_: Any) -> jsonargparse.ArgumentParser:
    """The flags of `report`."""
    parser = CommandParser(
        usage="gfnem report RUN [--out FILE] [--samples N] [--seed N]",
        description="Write one web page about a run: what was learned, examples with their "
        "posterior, how good it is in words, curves and settings. The page is one file that loads "
        "nothing from elsewhere. Figures are those of `gfnem evaluate` with the same seed.",
    )
    run_argument(parser)
    parser.add_argument(
        "--out",
        metavar="FILE",
        type=str | None,
        help="the file to write (default: report.html in the run folder)",
    )
    parser.add_argument(
        "--samples", metavar="N", type=Count, default=64, help="structures drawn for each x"
    )
    code_argument(parser)
    seed_argument(parser)
    return parser


def run(settings: jsonargparse.Namespace) -> int:
    """Runs `report`; returns the exit code."""
    from gfnem.report import write_report

    write(f"{write_report(**settings.as_dict())}\n")
    return 0

"""`gfnem show`."""

from __future__ import annotations

from typing import Any

import jsonargparse

from gfnem.cli.arguments import CommandParser
from gfnem.cli.shared import options_of, run_argument, seed_argument
from gfnem.ranges import Count

HELP = "what a trained grammar has learned"


def parser(*_: Any) -> jsonargparse.ArgumentParser:
    """The flags of `show`."""
    parser = CommandParser(
        usage="gfnem show RUN [--data PATH] [--top N]",
        description="Print what a trained grammar has learned: how often each symbol is used, and "
        "its most probable rules and words. The whole grammar is a text file in the run folder.",
    )
    run_argument(parser)
    parser.add_argument(
        "--data",
        metavar="PATH",
        type=str | None,
        help="sentences to count uses in, as for train (default: sentences drawn from the model)",
    )
    parser.add_argument(
        "--top", metavar="N", type=Count, default=5, help="rules or words of each symbol"
    )
    seed_argument(parser)
    return parser


def run(settings: jsonargparse.Namespace) -> int:
    """Runs `show`; returns the exit code."""
    from gfnem.parsing.commands import show

    show(**options_of(settings))
    return 0

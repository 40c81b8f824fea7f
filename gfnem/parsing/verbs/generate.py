"""`gfnem generate`."""

from __future__ import annotations

from typing import Any

import jsonargparse

from gfnem.cli.arguments import CommandParser
from gfnem.cli.shared import (
    code_argument,
    format_argument,
    import_nltk_alone,
    run_argument,
    seed_argument,
)
from gfnem.ranges import Count

HELP = "sentences with their trees"


def parser(*_: Any) -> jsonargparse.ArgumentParser:
    """The flags of `generate`."""
    parser = CommandParser(
        usage="gfnem generate RUN [-n N] [--format bracket|json|svg] [--seed N]",
        description="Draw sentences of a trained model, with their trees.",
    )
    run_argument(parser)
    parser.add_argument("-n", "--count", metavar="N", type=Count, default=10, help="how many")
    format_argument(parser)
    code_argument(parser)
    seed_argument(parser)
    return parser


def run(settings: jsonargparse.Namespace) -> int:
    """Runs `generate`; returns the exit code."""
    import_nltk_alone()
    from gfnem.parsing.commands import generate

    generate(**settings.as_dict())
    return 0

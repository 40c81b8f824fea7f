"""`gfnem parse`."""

from __future__ import annotations

from typing import Any

import jsonargparse

from gfnem.cli.arguments import CommandParser
from gfnem.cli.shared import (
    code_argument,
    format_argument,
    import_nltk_alone,
    seed_argument,
)
from gfnem.ranges import Count

HELP = "draw trees for sentences"


def parser(*_: Any) -> jsonargparse.ArgumentParser:
    """The flags of `parse`."""
    parser = CommandParser(
        usage="gfnem parse RUN [RUN ...] [FILE] [--decode map|mbr|sample] "
        "[--format bracket|json|svg] ...",
        description="Print a tree for each line of a text. Several runs parse together: the tree "
        "is the one that agrees best with what each run says of the sentence.",
    )
    parser.add_argument(
        "runs",
        metavar="RUN",
        nargs="+",
        help="run folders or checkpoints, and last the text, one sentence a line; without it, or "
        "where it is -, standard input is read",
    )
    parser.add_argument(
        "--decode",
        choices=("map", "mbr", "sample"),
        default="mbr",
        help="map: most probable tree; mbr: the tree with the most probable spans; "
        "sample: draws from the sampler. Several runs vote for spans, by their most probable trees "
        "(map) or by how probable each span is (mbr)",
    )
    parser.add_argument(
        "--samples",
        metavar="N",
        type=Count | None,
        help="trees to print with --decode sample (default 1); otherwise importance samples "
        "instead of exact inference",
    )
    parser.add_argument(
        "--pauses",
        type=bool,
        default=False,
        help="with --decode mbr: spans that cross the text's punctuation, which the model does not "
        "read, count less. Trees of real text are better so",
    )
    format_argument(parser)
    code_argument(parser)
    parser.add_argument(
        "--max-length", metavar="N", type=Count, default=150, help="longer lines are left out"
    )
    seed_argument(parser)
    return parser


def run(settings: jsonargparse.Namespace) -> int:
    """Runs `parse`; returns the exit code."""
    import_nltk_alone()
    from gfnem.parsing.commands import parse
    from gfnem.running.runs import is_run

    options = settings.as_dict()
    runs = options.pop("runs")
    if len(runs) > 1 and not is_run(runs[-1]):
        options["file"] = runs.pop()
    parse(runs, **options)
    return 0

"""`gfnem evaluate`."""

from __future__ import annotations

import jsonargparse

from gfnem.cli.arguments import CommandParser
from gfnem.cli.shared import code_argument, options_of
from gfnem.errors import UserError
from gfnem.files import as_json, write
from gfnem.ranges import Count, Seed
from gfnem.running.trust import opening, signature_of

HELP = "figures on held-out data"


def parser() -> jsonargparse.ArgumentParser:
    """The flags of `evaluate`."""
    parser = CommandParser(
        usage="gfnem evaluate RUN [--data PATH] [--decode map|mbr] [--limit N] ...",
        description="Figures of a trained run on held-out data.",
    )
    parser.add_argument("run", help="run folder or checkpoint")
    parser.add_argument(
        "--data",
        metavar="PATH",
        type=str | None,
        help="as for train; trees are scored where the data has them (default: new sentences of "
        "the embedded grammar, if the run was trained on it; else what the run held out)",
    )
    parser.add_argument(
        "--decode",
        choices=("map", "mbr"),
        help="how trees are chosen, as for parse (text alone; default: mbr)",
    )
    parser.add_argument(
        "--samples",
        metavar="N",
        type=Count | None,
        help="importance samples a sentence (text alone; default: 64)",
    )
    parser.add_argument(
        "--limit",
        metavar="N",
        type=Count | None,
        help="evaluate only the first so many (text alone)",
    )
    parser.add_argument(
        "--max-length",
        metavar="N",
        type=Count | None,
        help="longer sentences are left out and counted (text alone; default: 150)",
    )
    parser.add_argument(
        "--format", choices=("text", "json"), default="text", help="tables, or one JSON object"
    )
    code_argument(parser)
    parser.add_argument("--seed", metavar="N", type=Seed, default=0, help="of samples")
    return parser


def run(settings: jsonargparse.Namespace) -> int:
    """Runs `evaluate`; returns the exit code."""
    from gfnem.running.runs import load_run, read_config

    options = {name: value for name, value in options_of(settings).items() if value is not None}
    module = load_run(options["run"])
    if module.metadata.get("kind") == "text":
        from gfnem.parsing.commands import evaluate

        evaluate(module, **options)
        return 0
    for name in ("decode", "samples", "limit", "max_length"):
        if name in options:
            flag = f"--{name.replace('_', '-')}"
            raise UserError(f"{flag}: for runs on text alone, and {options['run']} is none")
    from gfnem.running.training import build_data

    config = read_config(options["run"])
    with opening(config, signature_of(options["run"])):
        data = build_data(config)
    figures = data.evaluate(module, options.get("data"))
    if options["format"] == "json":
        write(f"{as_json(figures)}\n")
    else:
        for name, value in figures.items():
            value = f"{value:.4f}" if isinstance(value, float) else value
            write(f"{name:32} {value}\n")
    return 0

"""Flags that several verbs have, and what they do with them."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Sequence
from typing import Any

import jsonargparse

from gfnem.cli.arguments import CommandParser
from gfnem.errors import UserError
from gfnem.ranges import Seed
from gfnem.world import DEFAULT, WORLDS, World, declared, find


def world_of_run(arguments: Sequence[str]) -> World:
    """The world of the run that a command is about; the default one where none is there yet."""
    from gfnem.running.runs import is_run, world_of

    run = next((word for word in arguments[1:] if is_run(word)), None)
    return find(DEFAULT) if run is None else world_of(run)


def refuse_flags_of_others(
    parser: jsonargparse.ArgumentParser, world: World, verb: str, arguments: Sequence[str]
) -> None:
    """Says whose a flag is that this parser, which has all of its flags, does not know.

    Raises:
        UserError: if a flag of another world is given.
    """
    given = {word.partition("=")[0] for word in arguments if word.startswith("--")}
    strange = {flag for flag in given if "." not in flag}.difference(parser._option_string_actions)
    known: dict[str, list[str]] = {}
    for name in declared(WORLDS) if strange else ():
        other = CommandParser()
        with contextlib.suppress(UserError):  # a world that cannot be imported has no say
            find(name).flags(verb, other)
        for flag in strange.intersection(other._option_string_actions):
            known.setdefault(flag, []).append(name)
    if known:
        flag, names = min(known.items())
        raise UserError(
            f"{flag}: of the world {' or '.join(names)}, where {world.name or 'none'} is used"
        )


def run_argument(parser: jsonargparse.ArgumentParser) -> None:
    """Adds the run that a verb is about."""
    parser.add_argument("run", help="run folder or checkpoint")


def seed_argument(parser: jsonargparse.ArgumentParser) -> None:
    """Adds `--seed` of what a verb draws."""
    parser.add_argument("--seed", metavar="N", type=Seed, default=0, help="of samples")


def code_argument(parser: jsonargparse.ArgumentParser) -> None:
    """Adds `--code`."""
    parser.add_argument(
        "--code",
        metavar="FILE",
        action="append",
        type=str,
        help="a Python file of yours, or a module, that holds classes which the run names; may be "
        "repeated. Without it only gfnem's own classes are used, and yours in runs of your own",
    )


def record_format(parser: jsonargparse.ArgumentParser, world: World) -> None:
    """Adds `--format` of records: JSON, and what else their world writes."""
    others = "".join(f", {form} ({name})" for form, name in world.formats.items())
    parser.add_argument(
        "--format",
        choices=("json", *world.formats),
        default="json",
        help=f"a JSON object on each line{others}",
    )


def format_argument(parser: jsonargparse.ArgumentParser) -> None:
    """Adds `--format` of trees."""
    parser.add_argument(
        "--format",
        choices=("bracket", "json", "svg"),
        default="bracket",
        help="a tree in brackets on each line, a JSON object on each line, or one web page with "
        "the trees drawn as SVG",
    )


def import_nltk_alone() -> None:
    """Imports NLTK without the optional packages that it would load for what is not used here.

    With SciPy and scikit-learn, where they are installed, it takes a second longer. Only for a
    process that is the program's own.
    """
    optional = [name for name in ("scipy", "sklearn") if name not in sys.modules]
    modules: dict[str, Any] = sys.modules
    modules.update(dict.fromkeys(optional))  # None: importing them fails
    try:
        import nltk  # noqa: F401
    finally:
        for name in optional:
            del sys.modules[name]


def options_of(settings: jsonargparse.Namespace) -> dict[str, Any]:
    """The settings as keyword arguments; their seed is used here."""
    import torch

    options = settings.as_dict()
    torch.manual_seed(options.pop("seed"))
    return options

"""The verbs put together: which there are, and how their flags and settings files are read."""

from __future__ import annotations

import contextlib
import importlib
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import jsonargparse

from gfnem import __version__
from gfnem.cli.arguments import (
    CommandParser,
    SettingsError,
    check_ranges,
    file_beside_run,
    values_of,
)
from gfnem.cli.train import OPTIONAL_PARTS, PARTS, arranged
from gfnem.errors import UserError
from gfnem.running.trust import opening, signature_of, use_code
from gfnem.settings import find_settings, read_settings
from gfnem.world import VERBS as VERBS_OF_WORLDS
from gfnem.world import declared

#: in a run folder (`gfnem.running.runs` says so too, but takes seconds to import)
CONFIG = "config.yaml"
#: the verbs that every world has
VERBS = {
    "train": "gfnem.cli.train",
    "infer": "gfnem.cli.infer",
    "sample": "gfnem.cli.sample",
    "evaluate": "gfnem.cli.evaluate",
    "report": "gfnem.cli.report",
    "worlds": "gfnem.cli.worlds",
}


def run(arguments: list[str]) -> int:
    """Runs one command; returns the exit code.

    Raises:
        UserError: if flags, settings or files are unusable.
    """
    if not arguments:
        _make_parser(arguments).print_help(sys.stderr)
        return 2
    arguments = _configs_by_name(file_beside_run(arguments))
    use_code(values_of("--code", arguments))
    files = values_of("--config", arguments)
    if arguments[0] == "train":
        # a user's own file is found where the user is, and beside the settings that name it
        _search([os.getcwd(), *(os.path.dirname(os.path.abspath(file)) for file in files)])
        if runs := values_of("--resume", arguments):
            return _resume(runs[-1], arguments, files)
    name, settings = _settings(arguments, files)
    return _verbs()[name].run(settings)


def _settings(arguments: list[str], files: list[str]) -> tuple[str, jsonargparse.Namespace]:
    """The command and its settings, from flags and settings files."""
    contents = [read_settings(file) for file in files]
    for file, content in zip(files, contents, strict=True):
        for name in PARTS:
            absent = name in OPTIONAL_PARTS and content.get(name) is None
            if name in content and not (absent or isinstance(content[name], (dict, str))):
                raise UserError(
                    f"{file}: {name}: settings are wanted under it, as `name: value` (or leave it "
                    "out)"
                )
    if arguments[0] == "train":
        arguments = arranged(arguments, contents)
    parser = _make_parser(arguments, contents)
    try:
        settings = parser.parse_args(arguments)
    except SettingsError as error:
        # a setting that no flag speaks of can only come from a file
        name = str(error).split(":")[0].split()[-1].split(".")[-1].replace("_", "-")
        flags = " ".join(word for word in arguments if word.startswith("--")).replace("_", "-")
        if files and name not in flags and "argument" not in str(error):
            raise UserError(f"{', '.join(files)}: {error}") from error
        raise
    chosen = settings[settings.command]
    assert parser._subcommands_action is not None
    check_ranges(parser._subcommands_action.choices[settings.command], chosen)
    chosen.pop("code", None)  # it is there already
    return settings.command, chosen


def _search(folders: list[str]) -> None:
    """Has modules looked for in these folders too, after all other places."""
    sys.path.extend(folder for folder in dict.fromkeys(folders) if folder not in sys.path)


def _configs_by_name(arguments: list[str]) -> list[str]:
    """Puts the file in the place of a shipped configuration's name: `--config text`."""
    found = []
    for before, word in zip(["", *arguments], arguments, strict=False):
        flag, equals, name = word.partition("=")
        if before == "--config":
            word = find_settings(word)
        elif flag == "--config" and equals:
            word = f"{flag}={find_settings(name)}"
        found.append(word)
    return found


def _make_parser(
    arguments: Sequence[str], contents: Sequence[dict[str, Any]] = ()
) -> jsonargparse.ArgumentParser:
    """The parser of all commands, with the flags of the one that is used."""
    parser = CommandParser(
        prog="gfnem",
        version=__version__,
        description="Train latent-variable models whose latents are structures (such as parse "
        "trees), with GFlowNet-EM.\n\nFirst steps: `gfnem train` learns a grammar from embedded "
        "example sentences, `gfnem train --data TEXT --out RUN` from a text of yours with one "
        "sentence a line; `gfnem parse RUN FILE` then prints trees. `gfnem worlds` lists what "
        "else there is to learn from.",
    )
    commands = parser.add_subcommands(dest="command", metavar="COMMAND")
    verb = next((word for word in arguments if not word.startswith("-")), None)
    for name, module in _verbs().items():
        made = module.parser(arguments, contents) if name == verb else CommandParser()
        commands.add_subcommand(name, made, help=module.HELP)
    return parser


def _verbs() -> dict[str, ModuleType]:
    """The module of each verb: its `HELP`, its `parser` and its `run`."""
    homes = {**VERBS, **declared(VERBS_OF_WORLDS)}
    return {name: importlib.import_module(home) for name, home in homes.items()}


def _resume(run: str, arguments: list[str], files: list[str]) -> int:
    """Goes on with a run: its own settings stand before the flags, which may change them."""
    config = Path(run) / CONFIG
    if not config.is_file():
        raise UserError(f"{run}: no {CONFIG} in it, so there is no run to resume")
    for value in (value for part in PARTS for value in values_of(f"--{part}", arguments)):
        with contextlib.suppress(ImportError, ValueError):  # the parser reports it
            importlib.import_module(value.rpartition(".")[0])  # named by the user, not by the run
    content, signed = read_settings(config), signature_of(run)
    arguments = [arguments[0], "--config", str(config), *arguments[1:]]
    with opening(content, signed, suspicious=True):
        name, settings = _settings(arguments, [str(config), *files])
    with opening(settings.as_dict(), signed):
        return _verbs()[name].run(settings)

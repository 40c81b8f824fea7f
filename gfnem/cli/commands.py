"""The verbs put together: which there are, and how their flags and settings files are read."""

from __future__ import annotations

import contextlib
import importlib
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jsonargparse

from gfnem import __version__
from gfnem.cli import evaluate, generate, parse, show, train, train_prior
from gfnem.cli.arguments import (
    CommandParser,
    SettingsError,
    check_ranges,
    classes_first,
    file_beside_run,
    help_on_chosen,
    values_of,
)
from gfnem.errors import UserError
from gfnem.running.trust import opening, signature_of, use_code
from gfnem.settings import read_settings

#: in a run folder (`gfnem.running.runs` says so too, but takes seconds to import)
CONFIG = "config.yaml"
#: in the order of their use
VERBS = {
    "train": train,
    "parse": parse,
    "evaluate": evaluate,
    "generate": generate,
    "show": show,
    "train-prior": train_prior,
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
    return VERBS[name].run(settings)


def _settings(arguments: list[str], files: list[str]) -> tuple[str, jsonargparse.Namespace]:
    """The command and its settings, from flags and settings files."""
    contents = [read_settings(file) for file in files]
    for file, content in zip(files, contents, strict=True):
        for name in train.DEFAULTS:
            if name in content and not isinstance(content[name], (dict, str)):
                raise UserError(
                    f"{file}: {name}: settings are wanted under it, as `name: value` (or leave it "
                    "out)"
                )
    arguments = classes_first(help_on_chosen(arguments, contents, train.DEFAULTS), train.DEFAULTS)
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
    check_ranges(parser, settings)
    chosen = settings[settings.command]
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
            word = _config_file(word)
        elif flag == "--config" and equals:
            word = f"{flag}={_config_file(name)}"
        found.append(word)
    return found


def _config_file(name: str) -> str:
    if os.path.exists(name) or Path(name).name != name or Path(name).suffix:
        return name
    package = Path(__file__).parents[1]
    # in an installed package, and in a source checkout
    shipped = {
        file.stem: file
        for folder in (package.parent / "experiments", package / "configs")
        for file in folder.glob("*.yaml")
    }
    if name not in shipped:
        known = ", ".join(sorted(shipped)) or "none"
        raise UserError(f"--config {name}: no such file; the configurations shipped are: {known}")
    return str(shipped[name])


def _make_parser(
    arguments: Sequence[str], contents: Sequence[dict[str, Any]] = ()
) -> jsonargparse.ArgumentParser:
    """The parser of all commands; that of `train`, which takes seconds, only where it is used."""
    parser = CommandParser(
        prog="gfnem",
        version=__version__,
        description="Train latent-variable models whose latents are structures (such as parse "
        "trees), with GFlowNet-EM.\n\nFirst steps: `gfnem train` learns a grammar from embedded "
        "example sentences, `gfnem train --data TEXT --out RUN` from a text of yours with one "
        "sentence a line; `gfnem parse RUN SENTENCES` then prints trees.",
    )
    commands = parser.add_subcommands(dest="command", metavar="COMMAND")
    verb = next((word for word in arguments if not word.startswith("-")), None)
    for name, module in VERBS.items():
        if module is train:
            made = train.parser(arguments, contents) if verb == name else CommandParser()
        else:
            made = module.parser()
        commands.add_subcommand(name, made, help=module.HELP)
    return parser


def _resume(run: str, arguments: list[str], files: list[str]) -> int:
    """Goes on with a run: its own settings stand before the flags, which may change them."""
    config = Path(run) / CONFIG
    if not config.is_file():
        raise UserError(f"{run}: no {CONFIG} in it, so there is no run to resume")
    for value in (value for part in train.DEFAULTS for value in values_of(f"--{part}", arguments)):
        with contextlib.suppress(ImportError, ValueError):  # the parser reports it
            importlib.import_module(value.rpartition(".")[0])  # named by the user, not by the run
    content, signed = read_settings(config), signature_of(run)
    arguments = [arguments[0], "--config", str(config), *arguments[1:]]
    with opening(content, signed, suspicious=True):
        name, settings = _settings(arguments, [str(config), *files])
    with opening(settings.as_dict(), signed):
        return VERBS[name].run(settings)

"""How the command line speaks: help for newcomers, and errors of one line."""

from __future__ import annotations

import argparse
import math
import re
import sys
from collections.abc import Sequence
from itertools import chain, zip_longest
from typing import Any

import jsonargparse

from gfnem.cli.renamed import renamed
from gfnem.errors import UserError
from gfnem.ranges import check_range, ranges_of


class SettingsError(UserError):
    """A flag, or a setting of a YAML file, that the command does not take."""


class HelpFormatter(jsonargparse.DefaultHelpFormatter):
    """Help without what only Python people read: no module paths, no `Optional[...]`, no nulls."""

    def _expand_help(self, action: argparse.Action) -> str:
        text = super()._expand_help(action)
        text = re.sub(r"default: \{'class_path': '([\w.]+)'.*?\}+", _last_name, text)
        text = re.sub(r"known subclasses: ([\w., ]+)", _names, text)
        text = text.replace(", a finite number]", "]")  # any, that is
        text = re.sub(r"Annotated\[(\w+)(, [^\[\]]+)?\]", r"\1\2", text)
        text = re.sub(r"type: Optional\[\w+\], ", "", text)
        text = re.sub(r"Optional\[([^\[\]]+)\]", r"\1", text)
        text = re.sub(r"Union\[([^\[\]]+)\]", _alternatives, text)
        text = text.replace(" | null", "").replace(", default: null", "")
        text = text.replace("(default: null, ", "(")
        return re.sub(r"\s*\((?:type: str)?\)$", "", text)

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        paragraphs = (super(HelpFormatter, self)._fill_text(part, width, indent) for part in
                      text.split("\n\n"))  # fmt: skip
        return "\n\n".join(paragraphs)


def _last_name(match: re.Match) -> str:
    return f"default: {match[1].rpartition('.')[2]}"


def _alternatives(match: re.Match) -> str:
    return re.sub(r", (?=[A-Z])", " | ", match[1])  # classes; the rest are ranges of numbers


def _names(match: re.Match) -> str:
    from gfnem.component import Component, derived

    hidden = {cls.__name__ for cls in derived(Component) if not cls.listed}
    names = sorted({path.rpartition(".")[2] for path in match[1].split(", ")} - hidden)
    return f"known: {', '.join(names)}"


class CommandParser(jsonargparse.ArgumentParser):
    """A parser whose mistakes are `SettingsError`s of one line, with a hint where to look."""

    def __init__(self, *args: Any, **kwargs: Any):
        kwargs.setdefault("formatter_class", HelpFormatter)
        super().__init__(*args, **kwargs)

    def error(self, message: str, ex: Exception | None = None):
        """Raises `SettingsError` (where the library asks for an exception, the library's own)."""
        if not self.exit_on_error:
            super().error(message, ex)
        parser = getattr(ex, "subcommand_parser", None) or self
        command = parser.prog.replace(" [options]", "")
        if missing := re.match(r"the following arguments are required: ([\w-]+)\.", message):
            command = f"{command} {missing[1]}"
        text = in_one_line(message)
        now = renamed(text) if "unknown" in text else ""
        raise SettingsError(f"{text} ({now or f'see {command} --help'})") from ex


def check_ranges(parser: jsonargparse.ArgumentParser, settings: jsonargparse.Namespace) -> None:
    """Checks the numbers of a command against the ranges in the types of its flags.

    (The settings of components are checked by these, when they are made.)

    Raises:
        UserError: naming the flag, its value and what is allowed.
    """
    for action in parser._actions:
        for allowed in ranges_of(getattr(action, "_typehint", None)):
            flag = max(action.option_strings, key=len)
            try:
                check_range(flag, settings.get(action.dest), allowed)
            except ValueError as error:
                raise UserError(str(error)) from error


def in_one_line(message: str) -> str:
    """The library's account of what is wrong with a setting, shortened to what a person needs."""
    keys = re.findall(r'Parser key "([^"]+)":', message)
    if len(keys) > 1:  # a setting of a setting: the innermost account says what is wrong
        inner = message.split(f'Parser key "{keys[-1]}":')[-1]
        inner = re.sub(r"\n\s*- Expected a (?:path\b|<class 'NoneType'>).*", "", inner)
        message = f'Parser key "{".".join(keys)}":{inner}'
    if abstract := re.search(r"but (?:([\w.]+) )?is abstract", message):
        named = abstract[1] or message.split("Given value: ")[1].split()[0]
        return f"{'.'.join(keys)}: {_lacking(named, '.'.join(keys))}"
    lines = [line.strip() for line in message.splitlines() if line.strip()]
    key = re.match(r'Parser key "([^"]+)":\s*(.*)', lines[0])
    if key:
        lines = [key[2], *lines[1:]] if key[2] else lines[1:]
    lines = [line for line in lines if not line.startswith("Given value")]
    if "Errors:" in lines:  # one bullet for each type the setting may have
        lines = lines[lines.index("Errors:") + 1 :]
        bullets = [" ".join(part.split()) for part in " ".join(["", *lines]).split(" - ")[1:]]
        lines = ["; ".join(bullet for bullet in bullets if "NoneType" not in bullet)]
    text = " ".join(lines)
    # the innermost class that was wanted, and what was given
    wanted = r".*Subtypes: \[<class '(\w+\.[\w.]+)'>.*?Given value: (\S+)"
    if found := re.match(wanted, message, re.DOTALL):
        text = _other_than(found[1], found[2], text)
    for pattern, plainly in (
        (r"Expected a dot import path string: (\S+)", r"there is no class \1"),
        # a setting is wrong, not the class
        (r"Problem with given class_path '[\w.]*?(\w+)': (?=Option|Parser|the following)", r"\1: "),
        (r'Parser key "([^"]+)"', r"\1"),
        (r"Problem with given class_path '([^']+)':", r"cannot import \1:"),
        (r"<class '(?:\w+\.)*(\w+)'>", r"\1"),
        (r"\. Got value: (.*)", r", not \1"),
        (r"Expected a (int|float|bool|str)\b", r"expected \1"),
        (r"(?:^- )?Expected a Sequence", "expected a list"),
        (r"Expected a ", "expected a "),
        (r"^Subcommand '\w+' does not accept option '([^']+)'", r"unknown setting \1"),
        (r"Option '([^']+)' is not accepted", r"unknown setting \1"),
        (r"^unrecognized arguments:", "unknown argument:"),
        (r"the following arguments are required: (?:[\w-]+\.)?", "missing: "),
    ):
        text = re.sub(pattern, plainly, text)
    return f"{key[1]}: {text}" if key else text


def _other_than(kind: str, given: str, text: str) -> str:
    """What is wrong with a class that is not there, or is of another kind.

    Args:
        kind: the import path of the class wanted.
        given: what was given.
        text: the library's account.
    """
    from gfnem.component import imported, known, unlike

    if absent := re.search(r"Expected a dot import path string: (\S+)", text):
        there = ", ".join(known(imported(kind)))
        without = "; null goes without" if absent[1] == "none" else ""
        there = f"there are {there}, and yours as" if there else "this world has none, but yours as"
        return f"there is no class {absent[1]}{without}; {there} my_file.MyClass"
    if other := re.search(r"Import path (?:(\S+) )?does not correspond to", text):
        path = other[1] or given
        return f"{path} is {unlike(imported(path), imported(kind))}"
    return text


def _lacking(path: str, key: str) -> str:
    """What is wrong with an abstract class that has just been imported, as a setting's value."""
    from gfnem.component import imported, known

    module, _, name = path.rpartition(".")
    if module.split(".")[0] == "gfnem" and (there := known(imported(path))):
        return (
            f"say which {name} it is first, as --{key} {there[0]}; there are {', '.join(there)}, "
            "and yours as my_file.MyClass"
        )
    methods = getattr(getattr(sys.modules.get(module), name, None), "__abstractmethods__", ())
    if not methods:
        return f"{path} is abstract; name a class that defines all its methods"
    return f"{path} lacks methods that it must define: {', '.join(sorted(methods))}"


def values_of(flag: str, arguments: Sequence[str]) -> list[str]:
    """Every value given to a flag, as `--flag value` or `--flag=value`."""
    values = []
    for word, following in zip_longest(arguments, arguments[1:]):
        name, equals, value = word.partition("=")
        if name == flag and (equals or following is not None):
            values.append(value if equals else following)
    return values


def is_chosen(name: str, arguments: Sequence[str], contents: Sequence[dict[str, Any]]) -> bool:
    """Whether the class of a part is named by flag or file (then ours must not leak into it)."""
    return bool(values_of(f"--{name}", arguments)) or any(
        content.get(name) is not None for content in contents
    )


def file_beside_run(arguments: list[str]) -> list[str]:
    """Lets the file of `parse RUN --format svg FILE` stand where people put it."""
    if arguments[0] != "parse":
        return arguments
    names: list[str] = []
    flags: list[str] = []
    for word in arguments[1:]:
        value = flags and flags[-1].startswith("--") and "=" not in flags[-1]
        (flags if value or word.startswith("--") else names).append(word)
    return ["parse", *names, *flags]


def classes_first(arguments: list[str]) -> list[str]:
    """Puts settings files before flags, and each class before its settings, the outer one first."""
    flags: list[list[str]] = []  # each with its values
    for word in arguments[1:]:
        if word.startswith("--") or not flags:
            flags.append([])
        flags[-1].append(word)
    names = [flag[0].partition("=")[0] for flag in flags]

    def rank(flag: list[str]) -> float:
        name = flag[0].partition("=")[0]
        if name == "--config":
            return 0
        has_settings = any(other.startswith(f"{name}.") for other in names)
        return 1 + name.count(".") if has_settings else math.inf

    return [arguments[0], *chain.from_iterable(sorted(flags, key=rank))]


def help_on_chosen(
    arguments: list[str], contents: Sequence[dict[str, Any]], defaults: dict[str, str]
) -> list[str]:
    """Makes `--model.help` speak of the class that is chosen rather than of all models."""
    helped = []
    for word, following in zip(arguments, [*arguments[1:], "--"], strict=True):
        name = word.removeprefix("--").removesuffix(".help")
        if word == f"--{name}.help" and name in defaults and following.startswith("-"):
            named = values_of(f"--{name}", arguments)
            named += [class_path(content[name]) for content in contents if content.get(name)]
            word = f"{word}={named[0] if named else defaults[name]}"
        helped.append(word)
    return helped


def class_path(part: Any) -> str:
    """The class that a part of a settings file names; "" if none."""
    return str(part.get("class_path", "")) if isinstance(part, dict) else str(part)

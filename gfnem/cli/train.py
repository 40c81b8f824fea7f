"""`gfnem train`."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from typing import Any

import jsonargparse

from gfnem.cli.arguments import (
    CommandParser,
    check_ranges,
    class_path,
    classes_first,
    help_on_chosen,
    is_chosen,
    values_of,
)
from gfnem.cli.shared import code_argument, refuse_flags_of_others
from gfnem.errors import UserError
from gfnem.ranges import Count, Seed
from gfnem.world import DEFAULT, Unnamed, World, find, spec_of

HELP = "train a model; without --data on sentences sampled from an embedded grammar"
#: what a run is made of
PARTS = ("dataset", "model", "space", "policy", "recipe", "schedule", "rates", "reward")
#: those of them that a run may do without: `--reward none`
OPTIONAL_PARTS = ("reward",)
#: what it is made of in every world where nothing else is asked for
DEFAULTS = {
    "recipe": {
        "class_path": "gfnem.recipes.gflownet",
        "init_args": {"objective": {"class_path": "gfnem.objectives.BalancedVarGrad"}},
    },
    "schedule": {"class_path": "gfnem.schedules.EveryUpdate"},
    "rates": {"class_path": "gfnem.rates.Rates"},
}


def parser(
    arguments: Sequence[str], contents: Sequence[dict[str, Any]]
) -> jsonargparse.ArgumentParser:
    """The flags of `train`."""
    from gfnem.data import DataModule
    from gfnem.policy import Policy
    from gfnem.rates import Rates
    from gfnem.recipes import RECIPES, Recipe
    from gfnem.reward import Reward
    from gfnem.schedules import Schedule
    from gfnem.space import LatentSpace
    from gfnem.target import Target

    world = _world(arguments, contents)
    world.import_classes()
    defaults = _defaults(world, arguments, contents)
    parser = CommandParser(
        usage="gfnem train [--world WORLD] [--data PATH] [--out RUN] [--max-updates N]\n"
        "                   [--config FILE] [--PART CLASS] [--PART.SETTING VALUE] ...",
        description="Train a model and its sampler. A run is made of eight parts (dataset, "
        "model, space, policy, recipe, schedule, rates, reward), each with settings that "
        "`--model.help`, `--dataset.help` and so on list. Every setting can be given as a flag or "
        "in a YAML file; the settings of a run are kept in its folder.\n\nExample: gfnem train "
        "--data text.txt --out runs/mine --max-updates 5000 --model.nonterminals 20 "
        "--rates.policy 0.002 --recipe.samples 8",
    )
    parser.add_argument(
        "--config",
        action="config",
        help="settings in a YAML file, or the name of a shipped one, such as text",
    )
    parser.add_argument(
        "--world",
        metavar="WORLD",
        type=str | None,
        default=world.name or None,
        help="what kind of data there are: a name that `gfnem worlds` lists, with a dataset of it "
        "if you like (energies.Points), or a class of yours as my_file.MyWorld",
    )
    parser.add_argument(
        "--data",
        metavar="PATH",
        type=str | None,
        help=f"what to train on: {world.data or 'see the dataset'} (short for --dataset.path)",
    )
    parser.add_argument(
        "--valid",
        metavar="PATH",
        type=str | None,
        help="held-out data, likewise (short for --dataset.valid)",
    )
    world.flags("train", parser)
    parser.add_argument(
        "--out",
        metavar="RUN",
        type=str | None,
        help="run folder to make (default: runs/1, runs/2, ...)",
    )
    parser.add_argument(
        "--resume",
        metavar="RUN",
        type=str | None,
        help="run folder of an interrupted run to go on with, with its own settings; flags given "
        "beside it change them (a finished run goes on with a larger --max-updates)",
    )
    code_argument(parser)
    parser.add_argument(
        "--max-updates", metavar="N", type=Count, default=1000, help="updates to train for"
    )
    parser.add_argument(
        "--max-m-updates",
        metavar="N",
        type=Count | None,
        help="stop after so many M-updates",
    )
    parser.add_argument(
        "--seed",
        metavar="N",
        type=Seed,
        default=0,
        help="of weights and sampling, and of the data unless --dataset.seed is given",
    )
    parser.add_argument(
        "--accelerator", metavar="NAME", default="auto", help="cpu, gpu, ... or auto (Lightning's)"
    )
    parser.add_argument(
        "--devices",
        metavar="N",
        type=Count,
        default=1,
        help="processes on this machine, each with a device of its own; they share every batch",
    )
    parser.add_argument(
        "--num-nodes",
        metavar="M",
        type=Count,
        default=1,
        help="machines; run the same command on each, or use torchrun",
    )
    parser.add_argument(
        "--patience",
        metavar="N",
        type=Count | None,
        help="stop after so many validations without a lower held-out NLL (default: go on)",
    )
    parser.add_argument(
        "--restarts",
        metavar="N",
        type=Count,
        default=1,
        help="train from so many seeds, one after the other, and keep the run with the lowest "
        "held-out NLL; the others stay in RUN/restart-1, RUN/restart-2, ...",
    )
    parser.add_argument(
        "--precision", metavar="NAME", default="32-true", help="Lightning's precision setting"
    )
    parser.add_argument(
        "--record",
        metavar="BOOL",
        type=bool,
        default=True,
        help="on a GPU: record updates, and repeat them, where all parts of the run allow it",
    )
    parser.add_argument(
        "--eval-samples",
        metavar="N",
        type=Count,
        default=16,
        help="structures drawn for each held-out observation",
    )
    for name, base, about in (
        ("dataset", DataModule, "what is learned from, and how it is read"),
        ("model", Target, "the joint p(x, z)"),
        ("space", LatentSpace, "how a structure is built"),
        ("policy", Policy, "the sampler"),
        ("recipe", Recipe, f"what an update is made of: {', '.join(RECIPES)}, or one of your own"),
        ("schedule", Schedule, "when sampler and model are trained"),
        ("rates", Rates, "learning rates"),
        ("reward", Reward, "what a structure is worth beside its likelihood; none for nothing"),
    ):
        parser.add_subclass_arguments(
            base,
            name,
            skip=set(world.told),
            required=False,
            metavar="CLASS",
            help=f"a class listed here, or one of your own as my_file.MyClass; its settings are "
            f"--{name}.SETTING",
        )
        assert parser.groups is not None
        parser.groups[name].title = f"{name}: {about}"
        if is_chosen(name, arguments, contents):
            defaults.pop(name, None)
    parser.set_defaults(defaults)
    refuse_flags_of_others(parser, world, "train", arguments)
    for action in parser._actions:
        if action.dest.endswith(".help"):
            action.help, action.metavar = "the settings of the class chosen, or named here", "CLASS"
        elif action.dest == "print_config":
            action.help, action.metavar = "print all settings as YAML and stop", ""
    return parser


def _world(arguments: Sequence[str], contents: Sequence[dict[str, Any]]) -> World:
    """The world that flags or files name; that of the dataset they name; else the default one."""
    named = [content["world"] for content in contents if content.get("world") is not None]
    if named := [*named, *values_of("--world", arguments)]:
        return find(named[-1])
    datasets = [class_path(content["dataset"]) for content in contents if content.get("dataset")]
    datasets += values_of("--dataset", arguments)
    if datasets and "." in datasets[-1]:
        from gfnem.component import class_of
        from gfnem.data import DataModule

        with contextlib.suppress(UserError):  # the parser reports it
            return find(class_of({"class_path": datasets[-1]}, DataModule).world)
    return find(DEFAULT)


def _defaults(
    world: World, arguments: Sequence[str], contents: Sequence[dict[str, Any]]
) -> dict[str, Any]:
    """Settings where the user says nothing, as in a settings file."""
    if isinstance(world, Unnamed):
        return dict(DEFAULTS)
    given = {word.partition("=")[0].removeprefix("--") for word in arguments}
    for content in contents:
        given |= {name for name, value in content.items() if value is not None}
        dataset = content.get("dataset")
        told = dataset.get("init_args") if isinstance(dataset, Mapping) else None
        given |= {f"dataset.{name}" for name, value in (told or {}).items() if value is not None}
    if "dataset.path" in given:
        given.add("data")
    return {**DEFAULTS, **world.defaults(given)}


def _without_parts(arguments: Sequence[str]) -> list[str]:
    """`--reward none` as the parser wants it."""
    found = []
    for before, word in zip(["", *arguments], arguments, strict=False):
        flag, equals, value = word.partition("=")
        if before.removeprefix("--") in OPTIONAL_PARTS and word == "none":
            word = "null"
        elif flag.removeprefix("--") in OPTIONAL_PARTS and equals and value == "none":
            word = f"{flag}=null"
        found.append(word)
    return found


def arranged(arguments: list[str], contents: Sequence[dict[str, Any]]) -> list[str]:
    """The command line in the order that its parser needs, its help that of the chosen classes."""
    arguments = _without_parts(arguments)
    defaults = _defaults(_world(arguments, contents), arguments, contents)
    classes = {name: class_path(defaults.get(name, "")) for name in PARTS}
    return classes_first(help_on_chosen(arguments, contents, classes))


def settings_of(content: Mapping[str, Any]) -> dict[str, Any]:
    """The complete settings of a run from some of them, as `gfnem.train` takes them.

    Args:
        content: as in a settings file. A part may also be a component, a class, or a dict of
            settings of the default class of its world.

    Raises:
        UserError: if a setting is unknown or its value is not allowed.
    """
    from gfnem.component import Component

    none = {name: None for name in OPTIONAL_PARTS if content.get(name) == "none"}
    content = {**content, **none}
    made = {name for name in PARTS if isinstance(content.get(name), Component)}
    try:
        parts = {
            name: content[name].spec() if name in made else spec_of(content[name])
            for name in PARTS
            if content.get(name) is not None
        }
    except TypeError as error:
        raise UserError(str(error)) from error
    defaults = _defaults(_world([], [{**content, **parts}]), [], [{**content, **parts}])
    for name, part in parts.items():
        if isinstance(part, Mapping) and "class_path" not in part and name in defaults:
            default = defaults[name]
            arguments = {**(default.get("init_args") or {}), **part}
            parts[name] = {"class_path": default["class_path"], "init_args": arguments}
    content = {**content, **parts}
    train = parser([], [content])
    train.prog = "gfnem train"
    settings = train.parse_object({k: v for k, v in content.items() if k not in made})
    check_ranges(train, settings)
    settings.pop("code", None)
    return {**settings.as_dict(), **{name: parts[name] for name in made}}


def run(settings: jsonargparse.Namespace) -> int:
    """Runs `train`; returns the exit code."""
    from gfnem.running.output import forgiving_output
    from gfnem.running.restarts import train
    from gfnem.running.training import quietly

    with forgiving_output():
        train(settings.as_dict(), quietly)
    return 0

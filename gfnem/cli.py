"""The command line: `gfnem train`, `parse`, `evaluate`, `generate`, `train-prior`."""

from __future__ import annotations

import argparse
import json
import logging
import os
import sys
import warnings
from collections.abc import Callable, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import jsonargparse

from gfnem.arguments import (
    CommandParser,
    SettingsError,
    classes_first,
    file_beside_run,
    help_on_chosen,
    is_chosen,
    read_settings,
    values_of,
)
from gfnem.errors import UserError

#: what a run is made of when nothing else is asked for
DEFAULTS = {
    "dataset": "gfnem.parsing.data.TextData",
    "model": "gfnem.parsing.neural_pcfg.NeuralPCFG",
    "space": "gfnem.parsing.topdown.TopDownSpace",
    "policy": "gfnem.parsing.topdown_policy.TopDownPolicy",
    "objective": "gfnem.objectives.BalancedVarGrad",
    "timing": "gfnem.schedules.EveryUpdate",
}
#: constructor arguments that come from the data or the model, never from the user
FACTS = {"vocab_size", "vocabulary"}


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command; returns the exit code (2 for bad input, 130 when interrupted)."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    # a user's own model file is found as Python itself would find it
    if "" not in sys.path and os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        if not arguments:
            _parser(arguments).print_help(sys.stderr)
            return 2
        return _run(arguments)
    except UserError as error:
        print(f"gfnem: error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except KeyboardInterrupt as interrupt:
        print("gfnem: interrupted", *interrupt.args, file=sys.stderr)
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def _run(arguments: list[str]) -> int:
    arguments = _resumed(file_beside_run(arguments))
    files = values_of("--config", arguments)
    contents = [read_settings(file) for file in files]
    arguments = classes_first(help_on_chosen(arguments, contents, DEFAULTS), DEFAULTS)
    try:
        settings = _parser(arguments, contents).parse_args(arguments)
    except SettingsError as error:
        # a setting that no flag speaks of can only come from a file
        name = str(error).split(":")[0].split()[-1].split(".")[-1].replace("_", "-")
        flags = " ".join(word for word in arguments if word.startswith("--")).replace("_", "-")
        if files and name not in flags and "argument" not in str(error):
            raise UserError(f"{', '.join(files)}: {error}") from error
        raise
    return _COMMANDS[settings.command](settings[settings.command])


def _resumed(arguments: list[str]) -> list[str]:
    """Puts the interrupted run's own settings before the flags, which may change them."""
    if not (arguments[0] == "train" and (runs := values_of("--resume", arguments))):
        return arguments
    config = Path(runs[-1]) / "config.yaml"
    if not config.is_file():
        raise UserError(f"{runs[-1]}: no config.yaml in it, so there is no run to resume")
    return [arguments[0], "--config", str(config), *arguments[1:]]


def _parser(
    arguments: Sequence[str], contents: Sequence[dict[str, Any]] = ()
) -> jsonargparse.ArgumentParser:
    """The parser of all commands; that of `train`, which takes seconds, only where it is used."""
    parser = CommandParser(
        prog="gfnem",
        version=f"gfnem {_version()}",
        description="Train latent-variable models whose latents are structures (such as parse "
        "trees), with GFlowNet-EM.\n\nFirst steps: `gfnem train` learns a grammar from embedded "
        "example sentences, `gfnem train --data TEXT --out RUN` from a text of yours with one "
        "sentence a line; `gfnem parse RUN SENTENCES` then prints trees.",
    )
    commands = parser.add_subcommands(dest="command", metavar="COMMAND")
    verb = next((word for word in arguments if not word.startswith("-")), None)
    commands.add_subcommand(
        "train",
        _train_parser(arguments, contents) if verb == "train" else CommandParser(),
        help="train a model; without --data on sentences sampled from an embedded grammar",
    )
    commands.add_subcommand("parse", _parse_parser(), help="draw trees for sentences")
    commands.add_subcommand("evaluate", _evaluate_parser(), help="figures on held-out data")
    commands.add_subcommand("generate", _generate_parser(), help="sentences with their trees")
    commands.add_subcommand(
        "train-prior", _prior_parser(), help="learn what shapes the trees of a treebank have"
    )
    return parser


def _version() -> str:
    try:
        return metadata.version("gfnem")
    except metadata.PackageNotFoundError:  # a checkout on the path, not installed
        return "of this checkout"


def _train_parser(
    arguments: Sequence[str], contents: Sequence[dict[str, Any]]
) -> jsonargparse.ArgumentParser:
    from gfnem import objectives, schedules
    from gfnem.data import DataModule
    from gfnem.em import GFlowNetEM
    from gfnem.esteps import E_STEPS
    from gfnem.parsing import (  # noqa: F401  imported to be known by their bare names
        data,
        forest,
        forest_policy,
        neural_pcfg,
        parent_grammar,
        rnng,
        shaped_grammar,
        shift_reduce,
        shift_reduce_policy,
        tabular_pcfg,
        topdown,
        topdown_policy,
        treebank_shapes,
    )
    from gfnem.policy import Policy
    from gfnem.space import LatentSpace
    from gfnem.target import Target

    parser = CommandParser(
        usage="gfnem train [--data PATH] [--out RUN] [--max-updates N] [--config FILE]\n"
        "                   [--PART CLASS] [--PART.SETTING VALUE] ...",
        description="Train a model and its sampler. A run is made of six parts (dataset, model, "
        "space, policy, objective, timing), each a class with settings of its own, which "
        "`--model.help`, `--dataset.help` and so on list. Every setting can be given as a flag or "
        "in a YAML file; the settings of a run are kept in its folder.\n\nExample: gfnem train "
        "--data text.txt --out runs/mine --max-updates 5000 --model.nonterminals 20 "
        "--em.policy_lr 0.002",
    )
    parser.add_argument("--config", action="config", help="settings in a YAML file")
    parser.add_argument(
        "--data",
        metavar="PATH",
        type=str | None,
        help="what to train on: a text file with one sentence a line, a file or folder of "
        "bracketed trees (.mrg .ptb .tree .psd), a folder of .txt files, a column of a table as "
        "FILE.csv:COLUMN, or hf:NAME[/CONFIG]:COLUMN (short for --dataset.path)",
    )
    parser.add_argument(
        "--valid",
        metavar="PATH",
        type=str | None,
        help="held-out data, likewise (short for --dataset.valid)",
    )
    parser.add_argument(
        "--shapes",
        metavar="TREEBANK",
        type=str | None,
        help="bracketed trees whose shapes, without words and labels, a grammar is to learn from "
        "beside the text (short for --em.side TreebankShapes --em.side.treebank TREEBANK, with a "
        "weight that falls from 10 to 1 in the first half of the updates)",
    )
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
    parser.add_argument(
        "--max-updates", metavar="N", type=int, default=1000, help="updates to train for"
    )
    parser.add_argument(
        "--max-m-updates",
        metavar="N",
        type=int | None,
        help="stop after so many M-updates",
    )
    parser.add_argument(
        "--seed",
        metavar="N",
        type=int,
        default=0,
        help="of weights and sampling, and of the data unless --dataset.seed is given",
    )
    parser.add_argument(
        "--accelerator", metavar="NAME", default="auto", help="cpu, gpu, ... or auto (Lightning's)"
    )
    parser.add_argument("--devices", metavar="N", type=int, default=1, help="how many of them")
    parser.add_argument(
        "--precision", metavar="NAME", default="32-true", help="Lightning's precision setting"
    )
    parser.add_argument(
        "--e-step",
        metavar="NAME",
        type=str | None,
        help="where the structures that the model learns from come from (short for --em.e_step): "
        + "; ".join(f"{name}: {step.about}" for name, step in E_STEPS.items()),
    )
    for name, base, about in (
        ("dataset", DataModule, "what is learned from, and how it is read"),
        ("model", Target, "the joint p(x, z)"),
        ("space", LatentSpace, "how a structure is built"),
        ("policy", Policy, "the sampler"),
        ("objective", objectives.Objective, "the E-step's loss"),
        ("timing", schedules.Timing, "when sampler and model are trained"),
    ):
        parser.add_subclass_arguments(
            base,
            name,
            skip=FACTS,
            required=False,
            metavar="CLASS",
            help=f"a class listed here, or one of your own as my_file.MyClass; its settings are "
            f"--{name}.SETTING",
        )
        parser.groups[name].title = f"{name}: {about}"
        if not is_chosen(name, arguments, contents):
            parser.set_defaults({name: {"class_path": DEFAULTS[name]}})
    components = {"model", "space", "policy", "objective", "timing"}
    skip = components | {"max_updates", "max_m_updates", "metadata"}
    parser.add_class_arguments(GFlowNetEM, "em", skip=skip, instantiate=False)
    parser.groups["em"].title = "em: the settings of GFlowNet-EM"
    for action in parser._actions:
        if action.dest == "em" or (action.dest.startswith("em.") and action.dest.endswith(".help")):
            action.help = argparse.SUPPRESS  # both would only be in a reader's way
        elif action.dest.endswith(".help"):
            action.help, action.metavar = "the settings of the class chosen, or named here", "CLASS"
        elif action.dest == "print_config":
            action.help, action.metavar = "print all settings as YAML and stop", ""
    return parser


def _parse_parser() -> jsonargparse.ArgumentParser:
    parser = CommandParser(
        usage="gfnem parse RUN [FILE] [--decode map|mbr|sample] [--format bracket|json|svg] ...",
        description="Print a tree for each line of a text.",
    )
    parser.add_argument("run", help="run folder or checkpoint")
    parser.add_argument("file", nargs="?", default="-", help="one sentence a line; - is stdin")
    parser.add_argument(
        "--decode",
        choices=("map", "mbr", "sample"),
        default="mbr",
        help="map: most probable tree; mbr: the tree with the most probable spans; "
        "sample: draws from the sampler",
    )
    parser.add_argument(
        "--samples",
        metavar="N",
        type=int | None,
        help="trees to print with --decode sample (default 1); otherwise importance samples "
        "instead of exact inference",
    )
    _format_argument(parser)
    parser.add_argument(
        "--max-length", metavar="N", type=int, default=150, help="longer lines are left out"
    )
    parser.add_argument("--seed", metavar="N", type=int, default=0, help="of samples")
    return parser


def _evaluate_parser() -> jsonargparse.ArgumentParser:
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
        "the embedded grammar, if the run was trained on it)",
    )
    parser.add_argument(
        "--decode", choices=("map", "mbr"), default="mbr", help="how trees are chosen, as for parse"
    )
    parser.add_argument(
        "--samples", metavar="N", type=int, default=64, help="importance samples a sentence"
    )
    parser.add_argument(
        "--limit", metavar="N", type=int | None, help="evaluate only the first so many"
    )
    parser.add_argument(
        "--max-length",
        metavar="N",
        type=int,
        default=150,
        help="longer sentences are left out and counted",
    )
    parser.add_argument(
        "--format", choices=("text", "json"), default="text", help="tables, or one JSON object"
    )
    parser.add_argument("--seed", metavar="N", type=int, default=0, help="of samples")
    return parser


def _generate_parser() -> jsonargparse.ArgumentParser:
    parser = CommandParser(
        usage="gfnem generate RUN [-n N] [--format bracket|json|svg] [--seed N]",
        description="Draw sentences of a trained model, with their trees.",
    )
    parser.add_argument("run", help="run folder or checkpoint")
    parser.add_argument("-n", "--count", metavar="N", type=int, default=10, help="how many")
    _format_argument(parser)
    parser.add_argument("--seed", metavar="N", type=int, default=0, help="of samples")
    return parser


def _prior_parser() -> jsonargparse.ArgumentParser:
    parser = CommandParser(
        usage="gfnem train-prior --data TREEBANK --out FILE [--valid TREEBANK] [--updates N] ...",
        description="Learn an energy over the shapes of trees from a treebank: which brackets are "
        "usual, whatever words and labels stand in them. Nodes of more than two children are made "
        "binary at random, anew each time they are used. How probable the prior finds the brackets "
        "of short held-out sentences is printed, beside two baselines.\n\nA grammar can then be "
        "trained with its trees drawn to such shapes: gfnem train --model ShapedGrammar "
        "--model.prior FILE --model.temperature Anneal --model.temperature.start 1 "
        "--model.temperature.end 1000 --model.temperature.updates 10000 --model.temperature.shape "
        "exponential. Since the prior has seen trees, this is not unsupervised.",
    )
    parser.add_argument(
        "--data", metavar="TREEBANK", required=True, help="a file or folder of bracketed trees"
    )
    parser.add_argument("--out", metavar="FILE", required=True, help="file to write the prior to")
    parser.add_argument(
        "--valid",
        metavar="TREEBANK",
        type=str | None,
        help="held-out trees (default: a tenth of the data)",
    )
    parser.add_argument("--updates", metavar="N", type=int, default=1000, help="to train for")
    parser.add_argument(
        "--max-length", metavar="N", type=int, default=20, help="longer sentences are left out"
    )
    parser.add_argument("--dim", metavar="N", type=int, default=32, help="size of the network")
    parser.add_argument(
        "--chains", metavar="N", type=int, default=256, help="Markov chains that draw from it"
    )
    parser.add_argument(
        "--moves", metavar="N", type=int, default=10, help="rotations tried by each in an update"
    )
    parser.add_argument(
        "--penalty", metavar="W", type=float, default=1e-3, help="weight of the squared energies"
    )
    parser.add_argument(
        "--rate", metavar="R", type=float, default=3e-3, help="learning rate at the start"
    )
    parser.add_argument("--seed", metavar="N", type=int, default=0, help="of weights and sampling")
    return parser


def _format_argument(parser: jsonargparse.ArgumentParser) -> None:
    parser.add_argument(
        "--format",
        choices=("bracket", "json", "svg"),
        default="bracket",
        help="a tree in brackets on each line, a JSON object on each line, or one web page with "
        "the trees drawn as SVG",
    )


def _train(settings: jsonargparse.Namespace) -> int:
    from gfnem.training import train

    if settings.max_updates < 1:
        raise UserError(f"--max-updates {settings.max_updates}: at least 1 is needed")
    train(settings.as_dict(), _quietly)
    return 0


def _parse(settings: jsonargparse.Namespace) -> int:
    from gfnem.parsing.commands import parse

    parse(**_options(settings))
    return 0


def _generate(settings: jsonargparse.Namespace) -> int:
    from gfnem.parsing.commands import generate

    generate(**_options(settings))
    return 0


def _evaluate(settings: jsonargparse.Namespace) -> int:
    from gfnem.runs import load_run, read_config

    options = _options(settings)
    run = options.pop("run")
    module = load_run(run)
    if module.metadata.get("kind") == "text":
        from gfnem.parsing.commands import evaluate

        evaluate(module, **options)
        return 0
    from gfnem.training import build_data

    data = build_data(read_config(run))
    figures = data.evaluate(module, options["data"])
    if options["format"] == "json":
        print(json.dumps(figures))
    else:
        for name, value in figures.items():
            print(f"{name:32} {value:.4f}" if isinstance(value, float) else f"{name:32} {value}")
    return 0


def _train_prior(settings: jsonargparse.Namespace) -> int:
    from gfnem.parsing.shape_training import train_prior

    train_prior(**_options(settings))
    return 0


def _options(settings: jsonargparse.Namespace) -> dict[str, Any]:
    import torch

    options = settings.as_dict()
    torch.manual_seed(options.pop("seed"))
    return options


def _quietly() -> None:
    """Silences what Lightning says of itself; its warnings are about choices we made."""
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module="pytorch_lightning")


_COMMANDS: dict[str, Callable[[jsonargparse.Namespace], int]] = {
    "train": _train,
    "parse": _parse,
    "evaluate": _evaluate,
    "generate": _generate,
    "train-prior": _train_prior,
}

"""The command line: `gfnem train`, `parse`, `evaluate`, `generate`."""

from __future__ import annotations

import json
import logging
import os
import sys
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jsonargparse
import yaml

from gfnem.errors import UserError

#: what a run is made of when nothing else is asked for
DEFAULTS = {
    "dataset": "gfnem.parsing.data.TextData",
    "model": "gfnem.parsing.neural_pcfg.NeuralPCFG",
    "space": "gfnem.parsing.topdown.TopDownSpace",
    "policy": "gfnem.parsing.topdown_policy.TopDownPolicy",
    "objective": "gfnem.objectives.VarGrad",
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
        arguments = _resumed(arguments)
        settings = _parser(arguments).parse_args(arguments)
        return _COMMANDS[settings.command](settings[settings.command])
    except UserError as error:
        print(f"gfnem: error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("gfnem: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def _resumed(arguments: list[str]) -> list[str]:
    """Puts the interrupted run's own settings before the flags, which may change them."""
    for place, word in enumerate(arguments):
        flag, _, value = word.partition("=")
        if flag == "--resume" and (run := value or "".join(arguments[place + 1 : place + 2])):
            config = Path(run) / "config.yaml"
            if not config.is_file():
                raise UserError(f"{run}: no config.yaml in it, so there is no run to resume")
            at = arguments.index("train") + 1 if "train" in arguments else 0
            return [*arguments[:at], "--config", str(config), *arguments[at:]]
    return arguments


def _parser(arguments: Sequence[str]) -> jsonargparse.ArgumentParser:
    parser = jsonargparse.ArgumentParser(
        prog="gfnem",
        description="Train latent-variable models whose latents are structures, with GFlowNet-EM.",
    )
    commands = parser.add_subcommands(dest="command", metavar="COMMAND")
    verb = next((word for word in arguments if not word.startswith("-")), None)
    commands.add_subcommand(
        "train",
        _train_parser(arguments) if verb == "train" else jsonargparse.ArgumentParser(),
        help="train a model; without --data on sentences sampled from an embedded grammar",
    )
    commands.add_subcommand("parse", _parse_parser(), help="draw trees for sentences")
    commands.add_subcommand("evaluate", _evaluate_parser(), help="figures on held-out data")
    commands.add_subcommand("generate", _generate_parser(), help="sentences with their trees")
    return parser


def _train_parser(arguments: Sequence[str]) -> jsonargparse.ArgumentParser:
    from gfnem import objectives, schedules
    from gfnem.data import DataModule
    from gfnem.em import GFlowNetEM
    from gfnem.parsing import (  # noqa: F401  # noqa: F401
        data,
        forest,
        forest_policy,
        neural_pcfg,
        tabular_pcfg,
        topdown,
        topdown_policy,
    )
    from gfnem.policy import Policy
    from gfnem.space import LatentSpace
    from gfnem.target import Target

    parser = jsonargparse.ArgumentParser(
        prog="gfnem train",
        description="Train a model and its sampler. Every setting can be given as a flag or in a "
        "YAML file; `--model.help`, `--dataset.help` and so on list the settings of each part.",
    )
    parser.add_argument("--config", action="config", help="settings in a YAML file")
    parser.add_argument(
        "--data",
        type=str | None,
        help="what to train on: a text file with one sentence a line, a file or folder of "
        "bracketed trees, or hf:NAME[/CONFIG]:COLUMN (short for --dataset.path)",
    )
    parser.add_argument(
        "--valid", type=str | None, help="held-out data, likewise (short for --dataset.valid)"
    )
    parser.add_argument(
        "--out", type=str | None, help="run folder to make (default: runs/1, runs/2, ...)"
    )
    parser.add_argument(
        "--resume", type=str | None, help="run folder of an interrupted run to go on with"
    )
    parser.add_argument("--max-updates", type=int, default=1000, help="updates to train for")
    parser.add_argument(
        "--max-m-updates", type=int | None, help="stop earlier, after so many M-updates"
    )
    parser.add_argument("--seed", type=int, default=0, help="of weights, sampling and data order")
    parser.add_argument("--accelerator", default="auto", help="cpu, gpu, ... or auto (Lightning's)")
    parser.add_argument("--devices", type=int, default=1, help="how many of them")
    parser.add_argument("--precision", default="32-true", help="Lightning's precision setting")
    for name, base, about in (
        ("dataset", DataModule, "what is learned from, and how it is read"),
        ("model", Target, "the joint p(x, z)"),
        ("space", LatentSpace, "how a structure is built"),
        ("policy", Policy, "the sampler"),
        ("objective", objectives.Objective, "the E-step's loss"),
        ("timing", schedules.Timing, "when sampler and model are trained"),
    ):
        parser.add_subclass_arguments(base, name, skip=FACTS, required=False, help=about)
        parser.groups[name].title = f"{name}: {about}"
        if not _chosen(name, arguments):
            parser.set_defaults({name: {"class_path": DEFAULTS[name]}})
    components = {"model", "space", "policy", "objective", "timing"}
    skip = components | {"max_updates", "max_m_updates", "metadata"}
    parser.add_class_arguments(GFlowNetEM, "em", skip=skip, instantiate=False)
    parser.groups["em"].title = "em: the settings of GFlowNet-EM"
    return parser


def _chosen(name: str, arguments: Sequence[str]) -> bool:
    """Whether the class of a part is named by flag or file (then ours must not leak into it)."""
    for word, following in zip(arguments, [*arguments[1:], ""], strict=True):
        flag, _, value = word.partition("=")
        if flag == f"--{name}":
            return True
        if flag in ("--config", "--resume"):
            path = Path(value or following)
            path = path / "config.yaml" if flag == "--resume" else path
            try:
                content = yaml.safe_load(path.read_text(encoding="utf-8"))
            except (OSError, yaml.YAMLError, UnicodeDecodeError):
                continue  # reported when the file is really read
            if isinstance(content, dict) and content.get(name) is not None:
                return True
    return False


def _parse_parser() -> jsonargparse.ArgumentParser:
    parser = jsonargparse.ArgumentParser(prog="gfnem parse", description="Trees for sentences.")
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
        type=int | None,
        help="trees to print with --decode sample (default 1); otherwise importance samples "
        "instead of exact inference",
    )
    parser.add_argument("--format", choices=("bracket", "json", "svg"), default="bracket")
    parser.add_argument("--max-length", type=int, default=150, help="longer lines are left out")
    parser.add_argument("--seed", type=int, default=0)
    return parser


def _evaluate_parser() -> jsonargparse.ArgumentParser:
    parser = jsonargparse.ArgumentParser(
        prog="gfnem evaluate", description="Figures of a trained run on held-out data."
    )
    parser.add_argument("run", help="run folder or checkpoint")
    parser.add_argument(
        "--data",
        type=str | None,
        help="as for train; trees are scored where the data has them (default: new sentences of "
        "the embedded grammar, if the run was trained on it)",
    )
    parser.add_argument("--decode", choices=("map", "mbr"), default="mbr")
    parser.add_argument("--samples", type=int, default=64, help="importance samples a sentence")
    parser.add_argument("--limit", type=int | None, help="evaluate only the first so many")
    parser.add_argument("--format", choices=("text", "json"), default="text")
    parser.add_argument("--seed", type=int, default=0)
    return parser


def _generate_parser() -> jsonargparse.ArgumentParser:
    parser = jsonargparse.ArgumentParser(
        prog="gfnem generate", description="Sentences of a trained model, with their trees."
    )
    parser.add_argument("run", help="run folder or checkpoint")
    parser.add_argument("-n", "--count", type=int, default=10)
    parser.add_argument("--format", choices=("bracket", "json", "svg"), default="bracket")
    parser.add_argument("--seed", type=int, default=0)
    return parser


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
    from gfnem.component import build
    from gfnem.data import DataModule

    data = build(read_config(run)["dataset"], DataModule)
    figures = data.evaluate(module, options["data"])
    if options["format"] == "json":
        print(json.dumps(figures))
    else:
        for name, value in figures.items():
            print(f"{name:32} {value:.4f}" if isinstance(value, float) else f"{name:32} {value}")
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
}

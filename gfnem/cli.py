"""The command line: `gfnem train`, `parse`, `evaluate`, `generate`, `show`, `train-prior`."""

from __future__ import annotations

import argparse
import contextlib
import errno
import importlib
import io
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jsonargparse

from gfnem import __version__
from gfnem.arguments import (
    CommandParser,
    SettingsError,
    check_ranges,
    classes_first,
    file_beside_run,
    help_on_chosen,
    is_chosen,
    read_settings,
    values_of,
)
from gfnem.errors import Interrupted, UserError
from gfnem.files import as_json, write
from gfnem.ranges import Count, NotNegative, Positive, Seed
from gfnem.running.trust import opening, signature_of, use_code

#: what a run is made of when nothing else is asked for
DEFAULTS = {
    "dataset": "gfnem.parsing.text.data.TextData",
    "model": "gfnem.parsing.grammars.neural_pcfg.NeuralPCFG",
    "space": "gfnem.parsing.spaces.topdown.TopDownSpace",
    "policy": "gfnem.parsing.policies.topdown.TopDownPolicy",
    "objective": "gfnem.objectives.BalancedVarGrad",
    "timing": "gfnem.schedules.EveryUpdate",
}
#: in a run folder (`gfnem.running.runs` says so too, but takes seconds to import)
CONFIG = "config.yaml"
#: what is wrong where there is no room to write
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
#: constructor arguments that come from the data or the model, never from the user
FACTS = {"vocab_size", "vocabulary", "shortest"}


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command; returns the exit code (2 for bad input, 130 when interrupted)."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    # Threads that spin while they wait make the many small tensors here tens of times slower as
    # soon as another process wants the cores. It must be said before torch is imported; what the
    # user says counts.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    # trees hold words of any script, and what reads them expects UTF-8; the names of files may hold
    # any bytes
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(encoding="utf-8", errors="backslashreplace")
    try:
        try:
            return _command(arguments)
        finally:
            sys.stdout.flush()
    except BrokenPipeError:  # nobody reads any more
        _drop_output()
        return 0
    except OSError as error:
        if error.errno not in _FULL:
            raise
        _drop_output()
        return _complain(f"cannot write ({error.strerror})")


def _command(arguments: list[str]) -> int:
    try:
        if not arguments:
            _parser(arguments).print_help(sys.stderr)
            return 2
        return _run(arguments)
    except UserError as error:
        return _complain(str(error))
    except KeyboardInterrupt as interrupt:
        print("gfnem: interrupted", *interrupt.args, file=sys.stderr)
        return interrupt.code if isinstance(interrupt, Interrupted) else 130


def _complain(message: str) -> int:
    print(f"gfnem: error: {' '.join(message.split())}", file=sys.stderr)
    return 2


def _drop_output() -> None:
    """Has what is still to be written go nowhere, or Python would fail with it at its end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _run(arguments: list[str]) -> int:
    arguments = _configs_by_name(file_beside_run(arguments))
    use_code(values_of("--code", arguments))
    files = values_of("--config", arguments)
    if arguments[0] == "train":
        # a user's own file is found where the user is, and beside the settings that name it
        _search([os.getcwd(), *(os.path.dirname(os.path.abspath(file)) for file in files)])
        if runs := values_of("--resume", arguments):
            return _resume(runs[-1], arguments, files)
    name, settings = _settings(arguments, files)
    return _COMMANDS[name](settings)


def _resume(run: str, arguments: list[str], files: list[str]) -> int:
    """Goes on with a run: its own settings stand before the flags, which may change them."""
    config = Path(run) / CONFIG
    if not config.is_file():
        raise UserError(f"{run}: no {CONFIG} in it, so there is no run to resume")
    for value in (value for part in DEFAULTS for value in values_of(f"--{part}", arguments)):
        with contextlib.suppress(ImportError, ValueError):  # the parser reports it
            importlib.import_module(value.rpartition(".")[0])  # named by the user, not by the run
    content, signed = read_settings(config), signature_of(run)
    arguments = [arguments[0], "--config", str(config), *arguments[1:]]
    with opening(content, signed, suspicious=True):
        name, settings = _settings(arguments, [str(config), *files])
    with opening(settings.as_dict(), signed):
        return _COMMANDS[name](settings)


def _settings(arguments: list[str], files: list[str]) -> tuple[str, jsonargparse.Namespace]:
    """The command and its settings, from flags and settings files."""
    contents = [read_settings(file) for file in files]
    for file, content in zip(files, contents, strict=True):
        for name in (*DEFAULTS, "em"):
            if name in content and not isinstance(content[name], (dict, str)):
                raise UserError(
                    f"{file}: {name}: settings are wanted under it, as `name: value` (or leave it "
                    "out)"
                )
    arguments = classes_first(help_on_chosen(arguments, contents, DEFAULTS), DEFAULTS)
    parser = _parser(arguments, contents)
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
    package = Path(__file__).parent
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


def _parser(
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
    commands.add_subcommand(
        "train",
        _train_parser(arguments, contents) if verb == "train" else CommandParser(),
        help="train a model; without --data on sentences sampled from an embedded grammar",
    )
    commands.add_subcommand("parse", _parse_parser(), help="draw trees for sentences")
    commands.add_subcommand("evaluate", _evaluate_parser(), help="figures on held-out data")
    commands.add_subcommand("generate", _generate_parser(), help="sentences with their trees")
    commands.add_subcommand("show", _show_parser(), help="what a trained grammar has learned")
    commands.add_subcommand(
        "train-prior", _prior_parser(), help="learn what shapes the trees of a treebank have"
    )
    return parser


def _train_parser(
    arguments: Sequence[str], contents: Sequence[dict[str, Any]]
) -> jsonargparse.ArgumentParser:
    from gfnem import objectives, schedules
    from gfnem.data import DataModule
    from gfnem.em import GFlowNetEM
    from gfnem.esteps import E_STEPS
    from gfnem.parsing.bracket_prior import grammar, treebank_brackets  # noqa: F401
    from gfnem.parsing.grammars import (  # noqa: F401  imported to be known by their bare names
        neural_pcfg,
        parent_grammar,
        rnng,
        tabular_pcfg,
    )
    from gfnem.parsing.policies import forest as forest_policy  # noqa: F401
    from gfnem.parsing.policies import shift_reduce as shift_reduce_policy  # noqa: F401
    from gfnem.parsing.policies import topdown as topdown_policy  # noqa: F401
    from gfnem.parsing.spaces import forest, shift_reduce, topdown  # noqa: F401
    from gfnem.parsing.text import data  # noqa: F401
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
    parser.add_argument(
        "--config",
        action="config",
        help="settings in a YAML file, or the name of a shipped one, such as text",
    )
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
    _code_argument(parser)
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
        type=Count | None,
        help="trees to print with --decode sample (default 1); otherwise importance samples "
        "instead of exact inference",
    )
    _format_argument(parser)
    _code_argument(parser)
    parser.add_argument(
        "--max-length", metavar="N", type=Count, default=150, help="longer lines are left out"
    )
    parser.add_argument("--seed", metavar="N", type=Seed, default=0, help="of samples")
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
    _code_argument(parser)
    parser.add_argument("--seed", metavar="N", type=Seed, default=0, help="of samples")
    return parser


def _generate_parser() -> jsonargparse.ArgumentParser:
    parser = CommandParser(
        usage="gfnem generate RUN [-n N] [--format bracket|json|svg] [--seed N]",
        description="Draw sentences of a trained model, with their trees.",
    )
    parser.add_argument("run", help="run folder or checkpoint")
    parser.add_argument("-n", "--count", metavar="N", type=Count, default=10, help="how many")
    _format_argument(parser)
    _code_argument(parser)
    parser.add_argument("--seed", metavar="N", type=Seed, default=0, help="of samples")
    return parser


def _show_parser() -> jsonargparse.ArgumentParser:
    parser = CommandParser(
        usage="gfnem show RUN [--data PATH] [--top N]",
        description="Print what a trained grammar has learned: how often each symbol is used, and "
        "its most probable rules and words. The whole grammar is a text file in the run folder.",
    )
    parser.add_argument("run", help="run folder or checkpoint")
    parser.add_argument(
        "--data",
        metavar="PATH",
        type=str | None,
        help="sentences to count uses in, as for train (default: sentences drawn from the model)",
    )
    parser.add_argument(
        "--top", metavar="N", type=Count, default=5, help="rules or words of each symbol"
    )
    parser.add_argument("--seed", metavar="N", type=Seed, default=0, help="of samples")
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
    parser.add_argument("--updates", metavar="N", type=Count, default=1000, help="to train for")
    parser.add_argument(
        "--max-length", metavar="N", type=Count, default=20, help="longer sentences are left out"
    )
    parser.add_argument("--dim", metavar="N", type=Count, default=32, help="size of the network")
    parser.add_argument(
        "--chains", metavar="N", type=Count, default=256, help="Markov chains that draw from it"
    )
    parser.add_argument(
        "--moves", metavar="N", type=Count, default=10, help="rotations tried by each in an update"
    )
    parser.add_argument(
        "--penalty",
        metavar="W",
        type=NotNegative,
        default=1e-3,
        help="weight of the squared energies",
    )
    parser.add_argument(
        "--rate", metavar="R", type=Positive, default=3e-3, help="learning rate at the start"
    )
    parser.add_argument("--seed", metavar="N", type=Seed, default=0, help="of weights and sampling")
    return parser


def _code_argument(parser: jsonargparse.ArgumentParser) -> None:
    parser.add_argument(
        "--code",
        metavar="FILE",
        action="append",
        type=str,
        help="a Python file of yours, or a module, that holds classes which the run names; may be "
        "repeated. Without it only gfnem's own classes are used, and yours in runs of your own",
    )


def _format_argument(parser: jsonargparse.ArgumentParser) -> None:
    parser.add_argument(
        "--format",
        choices=("bracket", "json", "svg"),
        default="bracket",
        help="a tree in brackets on each line, a JSON object on each line, or one web page with "
        "the trees drawn as SVG",
    )


def _train(settings: jsonargparse.Namespace) -> int:
    from gfnem.running.output import forgiving_output
    from gfnem.running.training import quietly, train

    with forgiving_output():
        train(settings.as_dict(), quietly)
    return 0


def _parse(settings: jsonargparse.Namespace) -> int:
    _import_nltk_alone()
    from gfnem.parsing.commands import parse

    parse(**settings.as_dict())
    return 0


def _generate(settings: jsonargparse.Namespace) -> int:
    _import_nltk_alone()
    from gfnem.parsing.commands import generate

    generate(**settings.as_dict())
    return 0


def _evaluate(settings: jsonargparse.Namespace) -> int:
    from gfnem.running.runs import load_run, read_config

    options = {name: value for name, value in _options(settings).items() if value is not None}
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


def _show(settings: jsonargparse.Namespace) -> int:
    from gfnem.parsing.commands import show

    show(**_options(settings))
    return 0


def _train_prior(settings: jsonargparse.Namespace) -> int:
    from gfnem.parsing.bracket_prior.training import train_prior

    train_prior(**_options(settings))
    return 0


def _import_nltk_alone() -> None:
    """Imports NLTK without the optional packages that it would load for what is not used here.

    With SciPy and scikit-learn, where they are installed, it takes a second longer. Only for a
    process that is the program's own.
    """
    optional = [name for name in ("scipy", "sklearn") if name not in sys.modules]
    sys.modules.update(dict.fromkeys(optional))  # None: importing them fails
    try:
        import nltk  # noqa: F401
    finally:
        for name in optional:
            del sys.modules[name]


def _options(settings: jsonargparse.Namespace) -> dict[str, Any]:
    import torch

    options = settings.as_dict()
    torch.manual_seed(options.pop("seed"))
    return options


_COMMANDS: dict[str, Callable[[jsonargparse.Namespace], int]] = {
    "train": _train,
    "show": _show,
    "parse": _parse,
    "evaluate": _evaluate,
    "generate": _generate,
    "train-prior": _train_prior,
}

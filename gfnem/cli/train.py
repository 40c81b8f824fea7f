"""`gfnem train`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jsonargparse

from gfnem.cli.arguments import CommandParser, is_chosen
from gfnem.cli.shared import code_argument
from gfnem.ranges import Count, Seed

HELP = "train a model; without --data on sentences sampled from an embedded grammar"
#: what a run is made of when nothing else is asked for
DEFAULTS = {
    "dataset": "gfnem.parsing.text.data.TextData",
    "model": "gfnem.parsing.grammars.neural_pcfg.NeuralPCFG",
    "space": "gfnem.parsing.spaces.topdown.TopDownSpace",
    "policy": "gfnem.parsing.policies.topdown.TopDownPolicy",
    "recipe": "gfnem.recipes.gflownet",
    "schedule": "gfnem.schedules.EveryUpdate",
    "rates": "gfnem.rates.Rates",
}
#: constructor arguments that come from the data or the model, never from the user
FACTS = {"vocab_size", "vocabulary", "shortest"}


def parser(
    arguments: Sequence[str], contents: Sequence[dict[str, Any]]
) -> jsonargparse.ArgumentParser:
    """The flags of `train`."""
    from gfnem.data import DataModule
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
    from gfnem.rates import Rates
    from gfnem.recipes import RECIPES, Recipe
    from gfnem.schedules import Schedule
    from gfnem.space import LatentSpace
    from gfnem.target import Target

    parser = CommandParser(
        usage="gfnem train [--data PATH] [--out RUN] [--max-updates N] [--config FILE]\n"
        "                   [--PART CLASS] [--PART.SETTING VALUE] ...",
        description="Train a model and its sampler. A run is made of seven parts (dataset, "
        "model, space, policy, recipe, schedule, rates), each with settings of its own, which "
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
        "--brackets",
        metavar="TREEBANK",
        type=str | None,
        help="bracketed trees whose brackets, without words and labels, a grammar is to learn from "
        "beside the text (short for --recipe.side TreebankBrackets --recipe.side.treebank "
        "TREEBANK, with a weight that falls from 10 to 1 in the first half of the updates)",
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
        "--precision", metavar="NAME", default="32-true", help="Lightning's precision setting"
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
    for action in parser._actions:
        if action.dest.endswith(".help"):
            action.help, action.metavar = "the settings of the class chosen, or named here", "CLASS"
        elif action.dest == "print_config":
            action.help, action.metavar = "print all settings as YAML and stop", ""
    return parser


def run(settings: jsonargparse.Namespace) -> int:
    """Runs `train`; returns the exit code."""
    from gfnem.running.output import forgiving_output
    from gfnem.running.training import quietly, train

    with forgiving_output():
        train(settings.as_dict(), quietly)
    return 0

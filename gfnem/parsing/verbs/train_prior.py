"""`gfnem train-prior`."""

from __future__ import annotations

from typing import Any

import jsonargparse

from gfnem.cli.arguments import CommandParser
from gfnem.cli.shared import options_of
from gfnem.ranges import Count, NotNegative, Positive, Seed

HELP = "learn how the trees of a treebank are bracketed"


def parser(*_: Any) -> jsonargparse.ArgumentParser:
    """The flags of `train-prior`."""
    parser = CommandParser(
        usage="gfnem train-prior --data TREEBANK --out FILE [--valid TREEBANK] [--updates N] ...",
        description="Learn an energy over bracketings from a treebank: which brackets are usual, "
        "whatever words and labels stand in them. Nodes of more than two children are made binary "
        "at random, anew each time they are used. How probable the prior finds the brackets "
        "of short held-out sentences is printed, beside two baselines.\n\nA grammar can then be "
        "trained with its trees drawn to such bracketings: gfnem train --reward BracketPrior "
        "--reward.prior FILE --reward.temperature Anneal --reward.temperature.start 1 "
        "--reward.temperature.end 1000 --reward.temperature.updates 10000 "
        "--reward.temperature.shape exponential. Since the prior has seen trees, this is not "
        "unsupervised.",
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


def run(settings: jsonargparse.Namespace) -> int:
    """Runs `train-prior`; returns the exit code."""
    from gfnem.parsing.bracket_prior.training import train_prior

    train_prior(**options_of(settings))
    return 0

"""Training of a prior over bracketings."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from gfnem.em import EM
from gfnem.errors import UserError
from gfnem.parsing.bracket_prior.brackets import (
    LISTED,
    Brackets,
    agreeing,
    all_bracketings,
    read_brackets,
)
from gfnem.parsing.bracket_prior.energy import BracketEnergy
from gfnem.parsing.spaces.moves import TreeMoves
from gfnem.parsing.trees.trees import Trees
from gfnem.phases import TrainModel
from gfnem.rates import Descent, Rates
from gfnem.schedules import Anneal
from gfnem.sources import Chains, Given


class _FromData(TreeMoves):
    """Rotations, in chains that start at the data."""

    def initial(self, x: Trees, samples: int) -> Trees:
        return x


class PriorTraining:
    """Persistent contrastive divergence (Tieleman 2008) for an energy over bracketings.

    The model of a bracketing is `p(z | n) = exp(-E(z)) / Z(n)`, one distribution for each length
    `n`. The negative phase comes from chains that are never started again, each of fixed length
    and moved by random rotations. An update pairs each chain with a random tree of its length,
    binarised anew, so that what an energy says of the length alone cancels. The penalty on squared
    energies keeps their common level and their scale where data are few.

    Args:
        energy: what is trained.
        data: the treebank's trees.
        chains: how many; their lengths are spread as the data's are.
        moves: rotations proposed to each chain in each update.
        penalty: weight of the squared energies.
        rate: Adam's learning rate at the start; it falls linearly to 0 over `updates`, so that
            the noise of single updates is averaged out in the end.
        updates: how many are meant to be made.
    """

    def __init__(
        self,
        energy: BracketEnergy,
        data: Brackets,
        chains: int = 256,
        moves: int = 10,
        penalty: float = 1e-3,
        rate: float = 3e-3,
        updates: int = 1000,
    ):
        self.data = data
        self.by_length = data.lengths.argsort(stable=True)
        ordered = data.lengths[self.by_length]
        middles = (torch.arange(chains, device=ordered.device) + 0.5) / chains * len(data)
        lengths = ordered[middles.long()]
        self.first = torch.searchsorted(ordered, lengths)
        self.count = torch.searchsorted(ordered, lengths, right=True) - self.first
        negative = Chains(1, moves, persistent=True, moves=_FromData(1, rotations=1.0))
        phase = TrainModel(Given(), "equal", negative=negative, penalty=penalty)
        em = EM(energy, None, None, [phase])
        self.descent = Descent(em, Rates(model=Anneal(rate, 0.0, updates)))

    def draw(self) -> Trees:
        """A random tree of the treebank for each chain, of the chain's length, made binary."""
        share = torch.rand(len(self.first), device=self.first.device)
        place = self.first + (share * self.count).long()
        place = torch.minimum(place, self.first + self.count - 1)
        return self.data.binarised(self.by_length[place])

    def update(self) -> dict[str, float]:
        """Moves the chains, then the energy; the loss in nats, and the share of moves accepted."""
        figures = self.descent.update(self.draw())
        return {name: float(value) for name, value in figures.items()}


@torch.no_grad()
def log_likelihood(score: Callable[[Trees], Tensor], brackets: Brackets) -> Tensor:
    """Exact log probability, in nats, of each tree's brackets given its length.

    The sum over all binary trees that agree with them, of all that there are: for a binary tree
    its own probability.

    Args:
        score: `(1, how many)` unnormalised log probabilities of shapes.
        brackets: trees of at most `LISTED` words.

    Returns:
        `(count,)`, in the order of the trees.
    """
    value = torch.zeros(len(brackets), device=brackets.lengths.device)
    for n in brackets.lengths.unique().tolist():
        rows = (brackets.lengths == n).nonzero().squeeze(1)
        log_p = score(all_bracketings(n).to(value.device)).log_softmax(1)
        inside = agreeing(brackets[rows])
        value[rows] = log_p.masked_fill(~inside, -torch.inf).logsumexp(1)
    return value


def uniform(trees: Trees) -> Tensor:
    """The score under which all bracketings are equal."""
    return torch.zeros(trees.left.shape[:2], device=trees.left.device)


def right_branching(brackets: Brackets) -> Callable[[Trees], Tensor]:
    """The best score of the form `b` x nodes whose left child is a word: a baseline.

    `b` maximises the likelihood of the brackets given, found by halving an interval of slopes.
    """

    def score(strength: float) -> Callable[[Trees], Tensor]:
        return lambda trees: strength * ((trees.split - trees.left == 1) & trees.mask()).sum(2)

    low, high = -10.0, 10.0
    for _ in range(20):
        middle = (low + high) / 2
        slope = log_likelihood(score(middle + 0.01), brackets).mean()
        slope = slope - log_likelihood(score(middle - 0.01), brackets).mean()
        low, high = (middle, high) if slope > 0 else (low, middle)
    return score((low + high) / 2)


def train_prior(
    data: str,
    out: str,
    valid: str | None = None,
    updates: int = 1000,
    max_length: int = 20,
    dim: int = 32,
    chains: int = 256,
    moves: int = 10,
    penalty: float = 1e-3,
    rate: float = 3e-3,
) -> None:
    """Trains a prior on a treebank, says how good it is, and writes it to a file.

    Raises:
        UserError: if the treebank or the file's place is unusable.
    """
    if Path(out).exists():
        raise UserError(f"{out} exists already; choose another --out")
    train, summary = read_brackets(data, max_length)
    print(summary)
    if valid is None:
        order, count = torch.randperm(len(train)), len(train) // 10
        train, held_out = train[order[count:]], train[order[:count]]
    else:
        held_out, summary = read_brackets(valid, max_length)
        print(summary)
    _make_folder(Path(out).parent)  # before the work rather than after it
    print(f"training on {len(train):,} trees, holding out {len(held_out):,}", flush=True)
    short = held_out[(held_out.lengths <= LISTED).nonzero().squeeze(1)]
    energy = BracketEnergy(dim)
    training = PriorTraining(energy, train, chains, moves, penalty, rate, updates)
    started = time.monotonic()
    for update in range(1, updates + 1):
        figures = training.update()
        if not math.isfinite(figures["m_loss"]):
            raise UserError(f"update {update}: energies are no longer finite; lower --rate")
        if update % max(updates // 10, 1) == 0:
            line = f"update {update}/{updates}  rotations accepted {figures['accepted']:.0%}"
            if len(short):
                value = log_likelihood(lambda z: -energy(z), short).mean()
                line += f"  held-out log-likelihood/tree {value:.3f}"
            print(f"{line}  {time.monotonic() - started:.0f} s", flush=True)
    energy.save(out)
    _report(energy, train, short)
    print(f"done: {out} holds the prior; use it with gfnem train --reward BracketPrior "
          f"--reward.prior {out}")  # fmt: skip


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{folder}: cannot make this folder ({error.strerror})") from error
    if not os.access(folder, os.W_OK):
        raise UserError(f"{folder}: cannot write into this folder")


def _report(energy: BracketEnergy, train: Brackets, short: Brackets) -> None:
    if not len(short):
        print(f"no held-out sentence has at most {LISTED} words: nothing to measure the prior on")
        return
    fitted = train[(train.lengths <= LISTED).nonzero().squeeze(1)]
    print(
        f"log-likelihood of the brackets of {len(short):,} held-out sentences of at most {LISTED} "
        "words, exact, nats a tree:"
    )
    scores = {"this prior": lambda z: -energy(z), "all bracketings equal": uniform}
    if len(fitted):
        scores["right-branching, strength fitted"] = right_branching(fitted)
    for name, score in scores.items():
        print(f"  {name:34}{log_likelihood(score, short).mean():8.3f}")

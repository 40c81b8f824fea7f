"""An energy over the bracketings of binary trees."""

from __future__ import annotations

import io
import os
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import embedding

from gfnem.errors import UserError
from gfnem.files import write_atomically
from gfnem.parsing.trees.joins import Joins
from gfnem.parsing.trees.trees import Trees
from gfnem.ranges import Count
from gfnem.running.torch_files import load_plain
from gfnem.target import EnergyModel

_KIND = "gfnem prior over tree shapes"


class BracketEnergy(EnergyModel[Any, Trees]):
    """`log p~(z) = -E(z)` of a tree's brackets; neither words nor labels are looked at.

    A recursive network (`Joins`) in which every word has the same vector. Each node adds what a
    linear layer makes of its vector; a tree without nodes has energy 0.

    Args:
        dim: size of the vectors.
    """

    listed = False  # it is trained on brackets alone, by `gfnem train-prior`

    def __init__(self, dim: Count = 32):
        super().__init__()
        self.word = nn.Parameter(torch.empty(1, dim).uniform_(-1, 1))
        self.join = Joins(dim)
        self.score = nn.Linear(dim, 1)
        for parameter in self.score.parameters():
            nn.init.zeros_(parameter)  # all bracketings are equal before training

    def forward(self, trees: Trees) -> Tensor:
        """`(batch, samples)` energies in nats, differentiable."""
        known, row = self.join.read(trees, self.word[None])
        return (embedding(row, self.score(known)).squeeze(3) * trees.mask()).sum(2)

    def log_joint(self, x: Any, z: Trees) -> Tensor:
        """`(batch, samples)` unnormalised log probability of bracketings, in nats."""
        return -self(z)

    def save(self, path: str | os.PathLike) -> None:
        """Writes the energy to a file.

        Raises:
            UserError: if the file cannot be written.
        """
        content = {"kind": _KIND, "settings": self.spec()["init_args"]}
        buffer = io.BytesIO()
        torch.save({**content, "weights": self.state_dict()}, buffer)
        write_atomically(path, buffer.getvalue())

    @classmethod
    def load(cls, path: str | os.PathLike) -> BracketEnergy:
        """Reads what `save` wrote, without running any code in it.

        Raises:
            UserError: if the file is missing, damaged, or something else.
        """
        try:
            content = load_plain(path)
        except FileNotFoundError as error:
            raise UserError(
                f"{path}: no such file (a prior is made by gfnem train-prior)"
            ) from error
        except OSError as error:
            raise UserError(f"{path}: cannot read ({error.strerror or error})") from error
        except Exception as error:  # there is no end to what damaged bytes can raise
            raise UserError(
                f"{path}: not a prior of gfnem train-prior, or a damaged one"
            ) from error
        if not isinstance(content, dict) or content.get("kind") != _KIND:
            raise UserError(f"{path}: not a prior of gfnem train-prior")
        try:
            energy = cls(**content["settings"])
            energy.load_state_dict(content["weights"])
        except (KeyError, TypeError, ValueError, AttributeError, RuntimeError) as error:
            raise UserError(f"{path}: a damaged prior ({error})") from error
        return energy

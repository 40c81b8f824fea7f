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
from gfnem.parsing.trees.heights import by_height
from gfnem.parsing.trees.trees import Trees
from gfnem.ranges import Count
from gfnem.running.torch_files import load_plain
from gfnem.target import EnergyModel

_KIND = "gfnem prior over tree shapes"


class BracketEnergy(EnergyModel[Any, Trees]):
    """`log p~(z) = -E(z)` of a tree's brackets; neither words nor labels are looked at.

    A recursive network: every word has the same vector, and a node's vector is made of those of
    its children, a gated mixture of both and of a new one (as in Tai et al. 2015, arXiv 1503.00075,
    but with gates that sum to 1, so that vectors stay within -1 and 1 however high the tree). Each
    node adds what a linear layer makes of its vector; a tree without nodes has energy 0.

    Args:
        dim: size of the vectors.
    """

    listed = False  # it is trained on brackets alone, by `gfnem train-prior`

    def __init__(self, dim: Count = 32):
        super().__init__()
        self.word = nn.Parameter(torch.empty(1, dim).uniform_(-1, 1))
        self.join = nn.Linear(2 * dim, 4 * dim)
        self.score = nn.Linear(dim, 1)
        for parameter in self.score.parameters():
            nn.init.zeros_(parameter)  # all bracketings are equal before training

    def forward(self, trees: Trees) -> Tensor:
        """`(batch, samples)` energies in nats, differentiable; all nodes of a height at once."""
        levels, place = by_height(trees)
        known = self.word  # then all nodes so far: a word's place, -1, is first
        for level in levels:
            first, second = (embedding(at + 1, known) for at in (level.first, level.second))
            joined = self.join(torch.cat([first, second], 1)).unflatten(1, (4, -1))
            gates = joined[:, :3].softmax(1)
            state = gates[:, 0] * first + gates[:, 1] * second + gates[:, 2] * joined[:, 3].tanh()
            known = torch.cat([known, state])
        return (embedding(place + 1, self.score(known)).squeeze(3) * (place >= 0)).sum(2)

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

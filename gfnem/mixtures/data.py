"""Points in the plane: generated petals, or a file."""

from __future__ import annotations

import itertools
import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gfnem.data import DataModule, digest
from gfnem.errors import UserError
from gfnem.files import read_array, read_lines
from gfnem.mixtures.model import petal_offsets
from gfnem.mixtures.policy import learned_posterior
from gfnem.ranges import Count, Finite, Positive, Seed

#: centres that neighbours can be mistaken for: petals of adjacent super-clusters coincide
CENTRES = ((-1.0, -1.0), (-1.0, 1.0), (1.0, -1.0), (1.0, 1.0))

#: of a coordinate: squared distances must fit into single precision
LARGEST = 1e15


class Petals(DataModule[Tensor]):
    """The hierarchical mixture's data: super-clusters of petals, or points read from a file.

    Args:
        path: a text file with two numbers a line, separated by a comma or white space (empty lines
            and lines that start with `#` are passed over, and so is a first line of names in a
            `.csv` file), or an `.npy` file of two columns. None generates the points.
        points: how many to generate.
        centres: `[x, y]` of each super-cluster to generate.
        clusters: super-clusters to learn from a file (generated data have one for each centre).
        petals: petals of a super-cluster; this and the next two are told to the model.
        distance: from a super-cluster's centre to each of its petals.
        sd: standard deviation of a petal.
        batch_size: points in a batch.
        interval: updates between two validations.
        seed: of the points, of the data points that learning starts from, and of the order; that
            of the run if None.

    Validation uses all the points: EM is a statement about the points it is given.
    """

    world = "points"

    def __init__(
        self,
        path: str | None = None,
        points: Count = 800,
        centres: Sequence[Sequence[Finite]] = CENTRES,
        clusters: Count = 4,
        petals: Count = 4,
        distance: Positive = 1.0,
        sd: Positive = 0.25,
        batch_size: Count = 200,
        interval: Count = 50,
        seed: Seed | None = None,
    ):
        super().__init__(batch_size, interval, seed)
        self.petals, self.distance, self.sd = petals, distance, sd
        generator = torch.Generator().manual_seed(self.seed)
        self.centres: Tensor | None = None
        if path is None:
            self.centres = torch.tensor(centres, dtype=torch.float)
            if self.centres.dim() != 2 or self.centres.shape[1] != 2:
                raise ValueError("centres must be [x, y] pairs")
            offsets = petal_offsets(petals, distance)
            self.points = generate(self.centres, offsets, sd, points, generator)
            clusters = len(self.centres)
        else:
            self.points = read_points(path)
        self.source = path or f"generated, seed {self.seed}"
        self.clusters = clusters
        different = len(self.points.unique(dim=0))
        if different < clusters:
            raise UserError(f"{self.source}: {different} different points for {clusters} clusters")
        chosen = torch.randperm(len(self.points), generator=generator)[:clusters]
        self.initial_means = self.points[chosen]

    def facts(self) -> dict[str, Any]:
        """What the model starts from (a random data point for each mean), and the sizes."""
        return {
            "initial_means": self.initial_means.tolist(),
            "clusters": self.clusters,
            "petals": self.petals,
            "distance": self.distance,
            "sd": self.sd,
        }

    def sizes(self) -> Sequence[int]:
        """All points are alike."""
        return [1] * len(self.points)

    def batch(self, indices: Sequence[int]) -> Tensor:
        """`(batch, 2)` points."""
        return self.points[list(indices)]

    def validation_batches(self) -> list[Tensor]:
        """All points, in one batch."""
        return [self.points]

    def fingerprint(self) -> dict[str, str]:
        """A digest of the points."""
        return {"training": digest(self.points)}

    def summary(self) -> str:
        """How many points there are, and where from."""
        return (
            f"{len(self.points)} points ({self.source}); {self.clusters} super-clusters of "
            f"{self.petals} petals"
        )

    @torch.no_grad()
    def evaluate(self, module: Any, path: str | None = None) -> dict[str, float]:
        """Figures of the model and, where one was trained, of the sampler.

        Args:
            module: a trained `GFlowNetEM` on this world.
            path: a file of other points (None: the points that were trained on).

        Returns:
            `recovered`, the fraction of true centres with a learned mean of their own within one
            `sd` (generated data only); `posterior_tv`, the total variation between learned and
            exact posterior, a mean over points.
        """
        x = (self.points if path is None else read_points(path)).to(module.device)
        figures = {}
        if self.centres is not None:
            means = module.model.means.detach().cpu()
            figures["recovered"] = recovered(means, self.centres, self.sd)
        if module.has_policy:
            learned = learned_posterior(module.policy, module.space, x, module.model)
            distance = (learned - module.model.exact_posterior(x)).abs().sum((1, 2)) / 2
            figures["posterior_tv"] = distance.mean().item()
        return figures

    def draw(self, module: Any, folder: Any) -> list[str]:
        """Draws data and means, the posteriors, and the log-likelihood's course where known."""
        from gfnem.mixtures import drawing

        return drawing.draw_all(self, module, folder)


def generate(
    centres: Tensor, offsets: Tensor, sd: float, points: int, generator: torch.Generator
) -> Tensor:
    """`(points, 2)` draws of the mixture with means `centres` `(clusters, 2)`."""
    cluster = torch.randint(len(centres), (points,), generator=generator)
    petal = torch.randint(len(offsets), (points,), generator=generator)
    noise = torch.randn(points, 2, generator=generator)
    return centres[cluster] + offsets[petal] + sd * noise


def recovered(means: Tensor, centres: Tensor, tolerance: float) -> float:
    """Fraction of true `centres` that have a mean of their own within `tolerance`.

    The best one-to-one assignment counts, found by trying all (so for a handful of centres).
    """
    close = (torch.cdist(centres, means) <= tolerance).tolist()
    columns = range(len(means))
    best = max(
        sum(close[row][column] for row, column in enumerate(order))
        for order in itertools.permutations(columns, min(len(centres), len(means)))
    )
    return best / len(centres)


def read_points(path: str | os.PathLike) -> Tensor:
    """`(points, 2)` from a text or `.csv` file of two numbers a line, or from an `.npy` file.

    Raises:
        UserError: naming file and line, if the file cannot be read, a line does not hold exactly
            two numbers of a size to reckon with, or there is no point at all.
    """
    if Path(path).suffix == ".npy":
        return as_points(read_array(path), str(path))
    points = []
    for number, line in enumerate(read_lines(path), 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        fields = line.replace(",", " ").split()
        try:
            pair = [float(field) for field in fields]
        except ValueError:
            if number == 1 and len(fields) == 2 and Path(path).suffix == ".csv":
                continue  # the names of the columns
            pair = []
        if len(pair) != 2 or not all(map(math.isfinite, pair)):
            shown = line if len(line) <= 40 else line[:40] + "..."
            raise UserError(f"{path}, line {number}: expected two numbers, found {shown!r}")
        if max(map(abs, pair)) > LARGEST:
            raise UserError(f"{path}, line {number}: {max(pair, key=abs):g} is beyond {LARGEST:g}")
        points.append(pair)
    if not points:
        raise UserError(f"{path}: no points in it")
    return torch.tensor(points)


def as_points(array: Any, name: str = "these points") -> Tensor:
    """`(points, 2)` from an array, a tensor or a list of pairs.

    Raises:
        UserError: if there are no two columns of numbers of a size to reckon with.
    """
    try:
        points = torch.as_tensor(np.asarray(array), dtype=torch.float)
    except (TypeError, ValueError) as error:
        raise UserError(f"{name}: not an array of numbers ({error})") from error
    if points.dim() != 2 or points.shape[1] != 2 or not len(points):
        raise UserError(f"{name}: shape {tuple(points.shape)}, where two columns are wanted")
    if not (points.abs() <= LARGEST).all():
        raise UserError(f"{name}: numbers from {-LARGEST:g} to {LARGEST:g} are wanted")
    return points

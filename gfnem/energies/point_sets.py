"""Seven usual sets of points in the plane, with their exact densities.

Each is a mixture of many equally wide Gaussians along a curve, or of squares, so that the
probability of a cell of any grid is a sum of products of differences of error functions.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from gfnem.energies.codes import Grid

#: points of a curve
_NODES = 2048
#: all sets lie in the square from -REACH to REACH, but for far tails
REACH = 4.0


@dataclass
class Mixture:
    """A uniform mixture of boxes or of round Gaussians.

    Attributes:
        centres: `(components, 2)`.
        width: standard deviation of the Gaussians, or half the side of the boxes.
        boxes: whether components are uniform on squares.
    """

    centres: Tensor
    width: float
    boxes: bool = False

    def sample(self, count: int, generator: torch.Generator | None = None) -> Tensor:
        """`(count, 2)` draws."""
        component = torch.randint(len(self.centres), (count,), generator=generator)
        if self.boxes:
            noise = 2 * torch.rand(count, 2, generator=generator, dtype=torch.double) - 1
        else:
            noise = torch.randn(count, 2, generator=generator, dtype=torch.double)
        return self.centres[component] + self.width * noise

    def below(self, edges: Tensor) -> Tensor:
        """`(2, edges, components)` the probability of a coordinate below `edges` `(2, edges)`."""
        distance = (edges[:, :, None] - self.centres.T[:, None]) / self.width
        if self.boxes:
            return ((distance + 1) / 2).clamp(0, 1)
        return torch.special.ndtr(distance)

    def table(self, grid: Grid) -> Tensor:
        """`(cells, cells)` probabilities of the cells, the first coordinate's slower."""
        first, second = self.below(grid.edges()).diff(dim=1)
        return first @ second.T / len(self.centres)

    def log_probability(self, grid: Grid, rows: Tensor) -> Tensor:
        """`(rows,)` nats of the cells of rows of bits, whatever the size of the grid."""
        edges, cells = grid.edges(), grid.cells(rows)
        parts = []
        for part in cells.split(1024):
            low = torch.stack([edges[axis][part[:, axis]] for axis in (0, 1)])
            high = torch.stack([edges[axis][part[:, axis] + 1] for axis in (0, 1)])
            inside = self._inside(low, high)
            parts.append((inside[0] * inside[1]).mean(1).log())
        return torch.cat(parts)

    def _inside(self, low: Tensor, high: Tensor) -> Tensor:
        """As a difference of small numbers on either side, so that far cells keep their digits."""
        upper, lower = self.below(high), self.below(low)
        if self.boxes:
            return upper - lower
        # the same by symmetry where both are near 1
        mirrored = Mixture(-self.centres, self.width)
        other = mirrored.below(-low) - mirrored.below(-high)
        return torch.where(lower > 0.5, other, upper - lower)


def _grid01(count: int) -> Tensor:
    return (torch.arange(count).double() + 0.5) / count


def _normal(count: int) -> Tensor:
    """Quantiles of a standard normal distribution."""
    return torch.special.ndtri(_grid01(count))


def _polar(radius: Tensor, angle: Tensor) -> Tensor:
    return torch.stack([radius * angle.cos(), radius * angle.sin()], -1)


def _two_spirals() -> Mixture:
    angle = _grid01(_NODES // 2).sqrt() * 3 * math.pi
    arm = _polar(angle / (3 * math.pi) * 3.0, angle)
    return Mixture(torch.cat([arm, -arm]), 0.1)


def _eight_gaussians() -> Mixture:
    return Mixture(_polar(torch.full((8,), 2.83).double(), torch.arange(8) * math.pi / 4), 0.35)


def _circles() -> Mixture:
    angle = _grid01(_NODES // 2) * 2 * math.pi
    one = torch.ones(_NODES // 2).double()
    return Mixture(torch.cat([_polar(3.0 * one, angle), _polar(1.5 * one, angle)]), 0.24)


def _two_moons() -> Mixture:
    angle = _grid01(_NODES // 2) * math.pi
    upper = _polar(torch.ones_like(angle), angle)
    lower = torch.stack([1 - angle.cos(), 0.5 - angle.sin()], -1)
    centres = torch.cat([upper, lower]) * 2 + torch.tensor([-1.0, -0.5])
    return Mixture(centres, 0.2)


def _pinwheel() -> Mixture:
    arms, rate = 5, 0.25
    radius = 1 + math.sqrt(0.3**2 - 0.1**2) * _normal(_NODES // arms)
    start = torch.arange(arms).double()[:, None] * (2 * math.pi / arms)
    angle = start + rate * radius.exp()
    return Mixture(2 * _polar(radius.expand_as(angle), angle).flatten(0, 1), 0.2)


def _swiss_roll() -> Mixture:
    angle = 1.5 * math.pi * (1 + 2 * _grid01(_NODES))
    return Mixture(_polar(angle, angle) / 5, 0.2)


def _checkerboard() -> Mixture:
    place = torch.arange(4).double() - 1.5
    centres = torch.cartesian_prod(place, place) * 2
    row, column = torch.cartesian_prod(torch.arange(4), torch.arange(4)).T
    return Mixture(centres[(row + column) % 2 == 0], 1.0, boxes=True)


#: by name
SETS: dict[str, Callable[[], Mixture]] = {
    "2spirals": _two_spirals,
    "8gaussians": _eight_gaussians,
    "circles": _circles,
    "two_moons": _two_moons,
    "pinwheel": _pinwheel,
    "swissroll": _swiss_roll,
    "checkerboard": _checkerboard,
}

"""Factor graphs: variables with few values that are assigned one after the other."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from gfnem.energies.space import AssignmentSpace, Changes, digits
from gfnem.mcmc import LocalMoves
from gfnem.ranges import Count, NotNegative, Seed
from gfnem.toys.reward import ToyReward


class Unobserved(AssignmentSpace):
    """Assignments of which nothing is observed, whatever `x` is."""

    def known(self, x: Tensor) -> Tensor:
        """`(batch, variables)` of -1."""
        return torch.full((len(x), self.variables), -1, device=x.device)

    def features(self, state: Any) -> Tensor:
        """`(batch, samples, variables)` int64: each value, counted through all variables."""
        place = torch.arange(self.variables, device=state.value.device)
        return state.value + 1 + (self.values + 1) * place

    def moves(self) -> LocalMoves:
        """A new value for a variable drawn at random."""
        return FreeChanges(self)


class FreeChanges(Changes):
    """As `Changes`, where nothing is observed."""

    def initial(self, x: Tensor, samples: int) -> Tensor:
        """Uniform values, `(batch, samples, variables)`."""
        return super().initial(self.space.known(x), samples)

    def propose(self, x: Tensor, z: Tensor) -> tuple[Tensor, Tensor]:
        """A symmetric proposal."""
        return super().propose(self.space.known(x), z)


class FactorGraph(ToyReward):
    """Variables in a ring, each pair of neighbours with a table of random numbers.

    `log R(z) = scale * sum_i T_i[z_i, z_(i + 1)]`, the entries of `T` drawn from N(0, 1).

    Args:
        variables: how many there are.
        values: values of each.
        scale: in nats.
        seed: of the tables.
    """

    def __init__(
        self,
        variables: Count = 6,
        values: Count = 4,
        scale: NotNegative = 1.0,
        seed: Seed = 0,
    ):
        super().__init__()
        self.variables, self.values = variables, values
        generator = torch.Generator().manual_seed(seed)
        tables = scale * torch.randn(variables, values, values, generator=generator)
        self.register_buffer("tables", tables)

    def facts(self) -> dict[str, Any]:
        """How many variables and values."""
        return {"variables": self.variables, "values": self.values}

    def log_reward(self, z: Tensor) -> Tensor:
        """`(...)` nats of assignments `(..., variables)` int64."""
        place = torch.arange(self.variables, device=z.device)
        return self.tables[place, z, z.roll(-1, -1)].sum(-1)

    def every(self, device: torch.device | str = "cpu") -> Tensor:
        """`(values ** variables, variables)` all assignments, the first variable slowest."""
        return digits(self.values, self.variables, torch.device(device))

"""Running means of training figures, which a checkpoint can hold."""

from __future__ import annotations

import torch
from torch import Tensor

from gfnem.running.processes import gather


class Averages:
    """Means of named figures over the updates since they were last asked for."""

    def __init__(self) -> None:
        self._totals: dict[str, Tensor] = {}
        self._counts: dict[str, int] = {}

    def add(self, **figures: Tensor | float) -> None:
        """Takes one value of each figure, `()`; nothing waits for the device."""
        for name, value in figures.items():
            value = torch.as_tensor(value).detach().double()
            self._totals[name] = self._totals[name] + value if name in self._totals else value
            self._counts[name] = self._counts.get(name, 0) + 1

    def take(self) -> dict[str, float]:
        """The mean of each figure over all updates and processes; starts anew."""
        totals: dict[str, float] = {}
        counts: dict[str, int] = {}
        for state in gather(self.state_dict()):
            for name, (total, count) in state.items():
                totals[name] = totals.get(name, 0.0) + total
                counts[name] = counts.get(name, 0) + count
        self.load_state_dict({})
        return {name: totals[name] / counts[name] for name in totals}

    def state_dict(self) -> dict[str, tuple[float, int]]:
        """Sum and count of each figure."""
        return {name: (float(self._totals[name]), self._counts[name]) for name in self._totals}

    def load_state_dict(self, state: dict[str, tuple[float, int]]) -> None:
        """Takes them up again."""
        self._totals = {name: torch.tensor(total).double() for name, (total, _) in state.items()}
        self._counts = {name: count for name, (_, count) in state.items()}

"""Data sets as observations: tables of measurements, and which cells were set by hand."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from gfnem.batched import Batched


@dataclass(eq=False)
class Tables(Batched):
    """A batch of data sets over the same variables.

    What is computed of them once, such as local scores, is remembered with them (`known`).

    Attributes:
        values: `(batch, rows, variables)` float64; codes 0, 1, ... of a discrete table.
        real: `(batch, rows)` bool; False for rows that only fill a shorter table up.
        hand: `(batch, rows, variables)` bool; cells that an experimenter set.
        levels: `(batch, variables)` int64 how many values each discrete variable can take; None:
            those up to the greatest code in the table.
    """

    values: Tensor
    real: Tensor
    hand: Tensor
    levels: Tensor | None = None

    def __post_init__(self) -> None:
        self._memory: dict[Hashable, Any] = {}

    @classmethod
    def of(
        cls,
        tables: Sequence[Tensor],
        hand: Sequence[Tensor] | None = None,
        levels: Sequence[int] | None = None,
    ) -> Tables:
        """Tables `(rows, variables)` of any numbers of rows, with cells that were set by hand.

        Args:
            tables, hand: of each data set.
            levels: how many values each discrete variable can take, in all of them.
        """
        most = max(len(table) for table in tables)
        n = tables[0].shape[1]
        values = torch.zeros(len(tables), most, n, dtype=torch.float64, device=tables[0].device)
        real = torch.zeros(values.shape[:2], dtype=torch.bool, device=values.device)
        cells = torch.zeros(values.shape, dtype=torch.bool, device=values.device)
        for at, table in enumerate(tables):
            values[at, : len(table)], real[at, : len(table)] = table.to(values), True
            if hand is not None:
                cells[at, : len(table)] = hand[at]
        known = None if levels is None else torch.tensor(levels, device=values.device)
        return cls(values, real, cells, None if known is None else known.expand(len(tables), n))

    @property
    def device(self) -> torch.device:
        """Where they are."""
        return self.values.device

    def select(self, index: Tensor) -> Tables:
        """The data sets at `index` `(picked,)`."""
        return self[index.to(self.device)]

    def to(self, device: Any) -> Tables:
        """The same on a device; made once."""
        if torch.device(device) == self.device:
            return self
        return self.known(("to", str(device)), lambda: self.map(lambda t: t.to(device)))

    def known(self, key: Hashable, compute: Callable[[], Any]) -> Any:
        """What `compute` returns, computed when the key is first asked for."""
        if key not in self._memory:
            self._memory[key] = compute()
        return self._memory[key]

    def cardinalities(self) -> Tensor:
        """`(batch, variables)` int64 how many values each discrete variable can take."""
        if self.levels is not None:
            return self.levels
        return (self.values * self.real[..., None]).amax(1).long() + 1

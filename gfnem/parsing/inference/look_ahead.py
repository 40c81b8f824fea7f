"""Look-ahead values of spans, as rows that are named and copied when they are asked for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import embedding

from gfnem.parsing.inference.potentials import at_least_float
from gfnem.sampling import moves_from


class Table:
    """Rows of look-ahead values that others are taken from.

    Args:
        logs: `(count, N)` nats.

    Attributes:
        peaks: `(count,)` their largest, without gradient.
        relative: `(count, N)` the rows over their largest, in exp space.
    """

    def __init__(self, logs: Tensor):
        self.logs, self.peaks = logs, logs.detach().amax(-1)
        self.relative = (logs - self.peaks[..., None]).exp()


def _entries(table: Tensor, index: Tensor) -> Tensor:
    """`table[index]` of a table `(count,)` and an index of any shape, three times as fast."""
    return table.index_select(0, index.flatten()).view(index.shape)


class Rows:
    """Rows of a table by their index, of any shape; they are copied when they are asked for.

    Args:
        table: the table.
        index: int64, any shape.
    """

    def __init__(self, table: Table, index: Tensor):
        self.table, self.index = table, index

    def __getitem__(self, at: Any) -> Rows:
        """Some of the rows, as a tensor of their index would be indexed."""
        return Rows(self.table, self.index[at])

    # `embedding`: its backward is fast, and deterministic on several threads

    @property
    def logs(self) -> Tensor:
        """`(..., N)` nats."""
        return embedding(self.index, self.table.logs)

    @property
    def peaks(self) -> Tensor:
        """`(...)` their largest, without gradient."""
        return _entries(self.table.peaks, self.index)

    @property
    def relative(self) -> Tensor:
        """`(..., N)` the rows over their largest, in exp space."""
        return embedding(self.index, self.table.relative)


def names_of_spans(batch: int, n: int, device: torch.device) -> Tensor:
    """`(batch, n, n + 1)` int64, the name of each span's row where there is one context."""
    return torch.arange(batch * n * (n + 1), device=device).view(batch, n, n + 1)


class LookAhead:
    """Rows of look-ahead values that are made as they are asked for.

    Args:
        make: gives `(count, N)` rows in nats for `(count,)` names.
        names: how many names there are.
    """

    def __init__(self, make: Callable[[Tensor], Tensor], names: int):
        self._make, self._names = make, names

    def __call__(self, names: Tensor) -> Tensor:
        """`(count, N)` nats for `(count,)` names."""
        return self._make(names)

    def entries(self, names: Tensor, labels: Tensor) -> Tensor:
        """`(count,)` nats: one label of each row."""
        return self(names).gather(1, labels[:, None]).squeeze(1)

    def rows(self, names: Tensor, temperature: float | Tensor) -> Rows:
        """Rows over a temperature, for names of any shape; each different one is made once."""
        asked = torch.zeros(self._names, dtype=torch.bool, device=names.device)
        asked[names.flatten()] = True
        place = asked.cumsum(0) - 1
        return Rows(Table(self(asked.nonzero().squeeze(1)) / temperature), place[names])


class ChartLookAhead(LookAhead):
    """Look-ahead values that are all there.

    Args:
        values: `(..., N)` nats, rows of a chart or of its spans alone.
        place: `(names,)` int64, which of the rows each name stands for; None if they come in the
            order of names, as in a chart `(batch, n, n + 1, K, N)`.
    """

    def __init__(self, values: Tensor, place: Tensor | None = None):
        self.values, self.place = at_least_float(values).flatten(0, -2), place
        self._table: tuple[float | Tensor, Table] | None = None

    def _index(self, names: Tensor) -> Tensor:
        return names if self.place is None else _entries(self.place, names)

    def __call__(self, names: Tensor) -> Tensor:
        """See `LookAhead`."""
        return embedding(self._index(names), self.values)

    def entries(self, names: Tensor, labels: Tensor) -> Tensor:
        """See `LookAhead`."""
        place = self._index(names) * self.values.shape[1] + labels
        return self.values.reshape(-1).index_select(0, place)

    def rows(self, names: Tensor, temperature: float | Tensor) -> Rows:
        """See `LookAhead`."""
        if self._table is None or moves_from(temperature, self._table[0]):
            with torch.enable_grad():  # whoever asks first
                tempered = moves_from(temperature, 1)
                values = self.values / temperature if tempered else self.values
                self._table = temperature, Table(values)
        return Rows(self._table[1], self._index(names))

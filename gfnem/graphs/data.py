"""A table of measurements as the one observation of a run."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from gfnem.data import DataModule, digest
from gfnem.errors import UserError
from gfnem.graphs.dags import random_dag
from gfnem.graphs.reading import Table, read_graph, read_table
from gfnem.graphs.tables import Tables
from gfnem.ranges import Count, Positive, Seed


class Measurements(DataModule[Tables]):
    """One data set: a table whose columns are the nodes of the graphs.

    Args:
        path: a `.csv`, `.tsv`, `.txt` or `.parquet` file with a first line of names. None generates
            a table from a random linear-Gaussian network.
        kind: "continuous", "discrete", or "auto": discrete where every column has few values.
        standardise: whether continuous columns are brought to mean 0 and variance 1.
        interventions: the column that names, in each row, the variables that were set by hand,
            separated by `;`.
        drop: columns to leave out.
        rows: how many to read, or to generate; all, or 100, if None.
        forbidden: `[A, B]` pairs of names: A is never a cause of B.
        required: `[A, B]` pairs of names: A always is a direct cause of B.
        truth: a file with an edge `A --> B` a line, to compare with; it is never trained on.
        variables: columns to generate.
        edges: expected edges of the graph to generate; one for each column if None.
        interval: updates between two validations.
        seed: of what is generated; that of the run if None.
    """

    world = "graphs"

    def __init__(
        self,
        path: str | None = None,
        kind: str = "auto",
        standardise: bool = False,
        interventions: str | None = None,
        drop: Sequence[str] = (),
        rows: Count | None = None,
        forbidden: Sequence[Sequence[str]] = (),
        required: Sequence[Sequence[str]] = (),
        truth: str | None = None,
        variables: Count = 5,
        edges: Positive | None = None,
        interval: Count = 100,
        seed: Seed | None = None,
    ):
        super().__init__(1, interval, seed)
        self.truth: Tensor | None = None
        if path is None:
            generator = torch.Generator().manual_seed(self.seed)
            self.truth, values = generated(variables, edges, rows or 100, generator)
            names = [f"x{at}" for at in range(1, variables + 1)]
            source = f"generated, seed {self.seed}"
            self.table = Table(source, names, values, torch.zeros_like(values, dtype=torch.bool))
        else:
            self.table = read_table(path, kind, interventions, drop, rows)
        self.names = self.table.names
        if truth is not None:
            self.truth = read_graph(truth, self.names)
        self.standardise, self.interventions = standardise, interventions
        self.forbidden = [self._pair("forbidden", pair) for pair in forbidden]
        self.required = [self._pair("required", pair) for pair in required]
        if both := [pair for pair in self.required if pair in self.forbidden]:
            cause, effect = (self.names[at] for at in both[0])
            raise UserError(f"the edge {cause} --> {effect} is both required and forbidden")
        self.x = self.tables([self.table])

    def _pair(self, what: str, pair: Sequence[str]) -> list[int]:
        if len(pair) != 2 or pair[0] == pair[1]:
            raise UserError(f"{what}: {list(pair)} is no edge; [A, B] is the one from A to B")
        for name in pair:
            if name not in self.names:
                raise UserError(f"{what}: {name!r} is no column; there are {', '.join(self.names)}")
        return [self.names.index(name) for name in pair]

    def tables(self, tables: Sequence[Table]) -> Tables:
        """Tables as observations, standardised where the data are."""
        return observed(tables, self.standardise)

    def facts(self) -> dict[str, Any]:
        """How many columns there are, and what is known of their graph."""
        return {
            "variables": len(self.names),
            "forbidden": self.forbidden or None,
            "required": self.required or None,
            "discrete": self.table.levels is not None,
            "columns": self.names,
        }

    def sizes(self) -> Sequence[int]:
        """There is one observation."""
        return [1]

    def batch(self, indices: Sequence[int]) -> Tables:
        """The data set."""
        return self.x

    def validation_batches(self) -> list[Tables]:
        """The data set itself: a posterior is a statement about the data that are there."""
        return [self.x]

    def metadata(self) -> dict[str, Any]:
        """Names of columns and their levels, and how they were read."""
        return {
            "columns": self.names,
            "levels": self.table.levels,
            "standardise": self.standardise,
            "interventions": self.interventions,
        }

    def fingerprint(self) -> dict[str, str]:
        """A digest of the table."""
        return {"training": digest(self.table.values)}

    def draw(self, module: Any, folder: Any) -> list[str]:
        """Draws the probabilities of edges, and the graph of those above one half."""
        from gfnem.graphs.drawing import draw_all

        return draw_all(self, module, folder)

    def summary(self) -> str:
        """What was read."""
        kind = "continuous" if self.table.levels is None else "discrete"
        text = f"{len(self.table.values)} rows of {len(self.names)} {kind} columns"
        return f"{text} ({self.table.source}): {', '.join(self.names)}"


def observed(tables: Sequence[Table], standardise: bool = False) -> Tables:
    """Tables as observations of a model."""
    values = []
    for table in tables:
        part = table.values
        if standardise and table.levels is None:
            part = (part - part.mean(0)) / part.std(0)
        values.append(part)
    levels = tables[0].levels
    counts = None if levels is None else [len(each) for each in levels]
    return Tables.of(values, [table.hand for table in tables], counts)


def generated(
    variables: int,
    edges: float | None,
    rows: int,
    generator: torch.Generator,
    noise: float = 0.1,
) -> tuple[Tensor, Tensor]:
    """A random graph `(n, n)` and rows `(rows, n)` of a linear-Gaussian network on it.

    Weights are standard normal, the noise has variance 0.1 (Deleu et al. 2022, section 6.1).
    """
    adjacency = random_dag(variables, variables if edges is None else edges, generator)
    shape = variables, variables
    weight = torch.randn(shape, generator=generator, dtype=torch.float64) * adjacency
    errors = torch.randn(rows, variables, generator=generator, dtype=torch.float64)
    values = torch.zeros_like(errors)
    for _ in range(variables):  # no path is longer
        values = values @ weight + errors * math.sqrt(noise)
    return adjacency, values

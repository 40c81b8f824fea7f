"""The world of tables: measurements are observed, the graph of causes is latent."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from gfnem.world import Observed, World


class GraphsWorld(World):
    """A table `x` of measurements, and the directed acyclic graph `z` over its columns."""

    about = "a table of measurements, and the graph of causes over its columns"
    data = "a .csv, .tsv or .parquet file with named columns; without it a table is generated"
    config = "graphs"
    modules = (
        "gfnem.graphs.data",
        "gfnem.graphs.model",
        "gfnem.graphs.policy",
        "gfnem.graphs.priors",
        "gfnem.graphs.scores",
        "gfnem.graphs.space",
    )
    told = frozenset({"variables", "discrete"})

    def read(self, run: Any, source: Any) -> Iterator[Observed]:
        """The table of a file, its columns found by name; or an array `(rows, columns)`."""
        from gfnem.graphs.data import observed
        from gfnem.graphs.reading import Table, read_table

        names, levels = run.metadata["columns"], run.metadata["levels"]
        if isinstance(source, (str, Path)):
            kind = "continuous" if levels is None else "discrete"
            table = read_table(source, kind).ordered(names, levels)
        else:
            table = Table.of(source, names)
        x = observed([table], run.metadata["standardise"])
        yield Observed(x, [{"rows": len(table.values), "columns": names}])

    def latents(self, run: Any, observed: Observed, z: Any) -> list[list[dict[str, Any]]]:
        """`{"edges": [[cause, effect], ...]}` by the names of columns."""
        names = run.metadata["columns"]
        return [[{"edges": named(graph, names)} for graph in row] for row in z]

    def scores(self, run: Any, data: Any, source: str | None) -> dict[str, Any]:
        """Edges' marginals beside exact ones, and beside a known graph."""
        from gfnem.graphs.measures import scores

        x = data.x if source is None else next(self.read(run, Path(source))).x
        return scores(run, x.to(run.device), data.truth)

    def report(self, run: Any, data: Any, samples: int) -> list[Any]:
        """The matrix of edge probabilities, the most probable graphs, figures."""
        from gfnem.graphs.report import sections

        return sections(run, data, samples)


def named(graph: Any, names: list[str]) -> list[list[str]]:
    """The edges of a graph `(n, n)` by the names of its nodes."""
    return [[names[i], names[j]] for i, j in graph.nonzero().tolist()]

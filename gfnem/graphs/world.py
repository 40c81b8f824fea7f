"""The world of tables: measurements are observed, the graph of causes is latent."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping, Sequence
from inspect import signature
from pathlib import Path
from typing import Any, ClassVar

from gfnem.component import imported
from gfnem.world import Observed, World

#: space and policy of each way to build a graph
_BUILD = {
    "layers": ("gfnem.graphs.LayerSpace", "gfnem.graphs.LayerPolicy"),
    "edges": ("gfnem.graphs.DagSpace", "gfnem.graphs.GraphPolicy"),
}


class GraphsWorld(World):
    """A table `x` of measurements, and the directed acyclic graph `z` over its columns."""

    about = "a table of measurements, and the graph of causes over its columns"
    data = "a .csv, .tsv or .parquet file with named columns; without it a table is generated"
    config = "graphs"
    modules = (
        "gfnem.graphs.completion",
        "gfnem.graphs.data",
        "gfnem.graphs.layer_policy",
        "gfnem.graphs.layers",
        "gfnem.graphs.model",
        "gfnem.graphs.network_policy",
        "gfnem.graphs.networks",
        "gfnem.graphs.policy",
        "gfnem.graphs.priors",
        "gfnem.graphs.scores",
        "gfnem.graphs.space",
        "gfnem.graphs.weights",
    )
    told = frozenset({"variables", "discrete", "columns"})

    formats: ClassVar = {"dot": "Graphviz", "graphml": "GraphML"}

    def flags(self, verb: str, parser: argparse.ArgumentParser) -> None:
        """`--build` of `train`."""
        if verb == "train":
            parser.add_argument(
                "--build",
                choices=tuple(_BUILD),
                default="layers",
                help="how graphs are built: layer by layer, or edge by edge, which priors that are "
                "not over edges need (short for --space and --policy)",
            )

    def expand(self, settings: dict[str, Any]) -> dict[str, Any]:
        """The settings with `--build` as space and policy, unless these are named."""
        settings = dict(settings)
        build = _BUILD[settings.pop("build", "layers")]
        for name, usual, wanted in zip(("space", "policy"), _BUILD["layers"], build, strict=True):
            named = settings.get(name) or {}
            if wanted != usual and named.get("class_path") == usual:
                of_its_own = signature(imported(usual)).parameters
                told = {
                    key: value
                    for key, value in (named.get("init_args") or {}).items()
                    if value != of_its_own[key].default
                }
                settings[name] = {"class_path": wanted, "init_args": told}
        return settings

    def read(self, run: Any, source: Any) -> Iterator[Observed]:
        """The table of a file, its columns found by name; or an array `(rows, columns)`."""
        from gfnem.graphs.data import observed
        from gfnem.graphs.reading import Table, read_table

        names, levels = run.metadata["columns"], run.metadata["levels"]
        if isinstance(source, (str, Path)):
            kind = "continuous" if levels is None else "discrete"
            table = read_table(source, kind, run.metadata["interventions"], keep=names)
            table = table.ordered(names, levels)
        else:
            table = Table.of(source, names)
        x = observed([table], run.metadata["standardise"])
        yield Observed(x, [{"rows": len(table.values), "columns": names}])

    def sample(self, run: Any, n: int) -> list[dict[str, Any]]:
        """Graphs drawn by the sampler for the run's own table; nothing is drawn but graphs."""
        data = run.data()
        shown = {"rows": len(data.table.values), "columns": data.names}
        return run.latent_draws(Observed(data.x.to(run.device), [shown]), n)

    def latents(self, run: Any, observed: Observed, z: Any) -> list[list[dict[str, Any]]]:
        """`{"edges": [[cause, effect], ...]}` by the names of columns, and what a model adds."""
        names = run.metadata["columns"]
        return [
            [
                {"edges": named(graph, names), **run.model.told(z[row : row + 1, at : at + 1])}
                for at, graph in enumerate(graphs)
            ]
            for row, graphs in enumerate(run.model.graphs(z))
        ]

    def scores(self, run: Any, data: Any, source: str | None) -> dict[str, Any]:
        """Edges' marginals beside exact ones, and beside a known graph."""
        from gfnem.graphs.measures import scores

        x = data.x if source is None else next(self.read(run, Path(source))).x
        return scores(run, x.to(run.device), data.truth)

    def written(self, run: Any, record: Mapping[str, Any], form: str) -> str:
        """The graphs of a record as Graphviz or GraphML text."""
        from gfnem.graphs.formats import as_dot, as_graphml

        write = as_dot if form == "dot" else as_graphml
        return write(record, run.metadata["columns"])

    def draws_written(self, run: Any, draws: Sequence[Mapping[str, Any]], form: str) -> str:
        """All graphs in one document: they are of one table."""
        return self.written(run, {"latents": draws}, form)

    def report(self, run: Any, data: Any, samples: int) -> list[Any]:
        """The matrix of edge probabilities, the most probable graphs, figures."""
        from gfnem.graphs.report import sections

        return sections(run, data, samples)


def named(graph: Any, names: list[str]) -> list[list[str]]:
    """The edges of a graph `(n, n)` by the names of its nodes."""
    return [[names[i], names[j]] for i, j in graph.nonzero().tolist()]

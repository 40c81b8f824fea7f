"""Pictures of graphs, and of how probable edges are."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from gfnem.files import write_atomically
from gfnem.running.curves import png

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def as_networkx(adjacency: Tensor, names: Sequence[str], probability: Tensor | None = None) -> Any:
    """A `networkx.DiGraph` of named nodes.

    Args:
        adjacency: `(n, n)` bool.
        names: of the nodes.
        probability: `(n, n)` of each edge, kept as its attribute `probability`; none if None.
    """
    import networkx

    graph = networkx.DiGraph()
    graph.add_nodes_from(names)
    for i, j in adjacency.nonzero().tolist():
        more = {} if probability is None else {"probability": float(probability[i, j])}
        graph.add_edge(names[i], names[j], **more)
    return graph


def draw_graph(
    adjacency: Tensor,
    names: Sequence[str],
    probability: Tensor | None = None,
    truth: Tensor | None = None,
) -> Figure:
    """A graph, its nodes on a circle in the order of their columns, so that graphs compare.

    Args:
        adjacency: `(n, n)` bool; an edge in both directions is drawn without a head.
        names: of the nodes.
        probability: `(n, n)` of each edge: how dark it is.
        truth: `(n, n)` bool; edges that it lacks are orange.
    """
    import networkx
    from matplotlib.figure import Figure

    graph = as_networkx(adjacency, names)
    place = networkx.circular_layout(graph)
    figure = Figure(figsize=(4.2, 4.2), layout="constrained")
    axes = figure.add_subplot()
    networkx.draw_networkx_nodes(
        graph, place, ax=axes, node_color="white", edgecolors="black", node_size=1100
    )
    networkx.draw_networkx_labels(graph, place, ax=axes, font_size=8)
    for i, j in adjacency.nonzero().tolist():
        both = bool(adjacency[j, i])
        if both and j < i:
            continue
        known = truth is None or bool(truth[i, j]) or (both and bool(truth[j, i]))
        shade = 1.0 if probability is None else max(0.15, float(probability[i, j]))
        networkx.draw_networkx_edges(
            graph,
            place,
            ax=axes,
            edgelist=[(names[i], names[j])],
            edge_color="#0072B2" if known else "#D55E00",
            alpha=shade,
            width=1.8,
            arrowstyle="-" if both else "-|>",
            node_size=1100,
        )
    axes.set_axis_off()
    axes.margins(0.15)
    return figure


def draw_matrix(tables: dict[str, Tensor], names: Sequence[str]) -> Figure:
    """Matrices `(n, n)` of edge probabilities side by side, rows the causes."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.6 * len(tables), 4.4), layout="constrained")
    panels = figure.subplots(1, len(tables), squeeze=False)[0]
    for axes, (title, table) in zip(panels, tables.items(), strict=True):
        axes.imshow(table.numpy(), vmin=0, vmax=1, cmap="Blues")
        axes.set_title(title)
        axes.set_xticks(range(len(names)), names, rotation=90, fontsize=8)
        axes.set_yticks(range(len(names)), names, fontsize=8)
        axes.set_xlabel("effect")
        axes.set_ylabel("cause")
    return figure


@torch.no_grad()
def draw_all(data: Any, run: Any, folder: Any) -> list[str]:
    """Draws `edges.png` and `graph.png` into a run's folder; returns their names."""
    from gfnem.graphs.measures import edges_of

    found = edges_of(run, data.x)
    sampled = next(iter(found.values()))
    write_atomically(Path(folder) / "edges.png", png(draw_matrix(found, data.names)))
    likely = draw_graph(sampled > 0.5, data.names, sampled, data.truth)
    write_atomically(Path(folder) / "graph.png", png(likely))
    return ["edges.png", "graph.png"]

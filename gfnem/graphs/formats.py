"""Graphs as text of other programs: Graphviz and GraphML."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


def _quoted(name: str) -> str:
    return '"' + name.replace("\\", "\\\\").replace('"', '\\"') + '"'


def as_dot(record: Mapping[str, Any], names: Sequence[str]) -> str:
    """A `digraph` for each latent of a record of `infer`, with its log probability in nats."""
    found = []
    for number, latent in enumerate(record["latents"], 1):
        lines = [f"digraph g{number} {{", f"  log_prob={latent['log_prob']:.6g};"]
        lines += [f"  {_quoted(name)};" for name in names]
        edges = latent["latent"]["edges"]
        lines += [f"  {_quoted(cause)} -> {_quoted(effect)};" for cause, effect in edges]
        found.append("\n".join([*lines, "}\n"]))
    return "".join(found)


def as_graphml(record: Mapping[str, Any], names: Sequence[str]) -> str:
    """One document with a graph for each latent of a record of `infer`."""
    import networkx
    from networkx.readwrite.graphml import GraphMLWriter

    graphs = []
    for number, latent in enumerate(record["latents"], 1):
        graph = networkx.DiGraph(id=f"g{number}", log_prob=latent["log_prob"])
        graph.add_nodes_from(names)
        graph.add_edges_from(latent["latent"]["edges"])
        graphs.append(graph)
    writer = GraphMLWriter(prettyprint=True)
    for graph in graphs:
        writer.add_graph_element(graph)
        writer.attributes.clear()  # else what is said of this graph is said again with the next
    return f"{writer}\n"

"""Pictures come out as files, whatever the names are."""

import torch

from gfnem.graphs.drawing import as_networkx, draw_graph, draw_matrix
from gfnem.running.curves import png


def test_graphs_and_matrices_are_drawn():
    graph = torch.tensor([[0, 1, 1], [1, 0, 0], [0, 0, 0]]).bool()
    names = ["x_1", "y%", "z z"]
    probability = graph.double() * 0.7
    assert png(draw_graph(graph, names, probability, ~graph)).startswith(b"\x89PNG")
    assert png(draw_matrix({"a": probability, "b": probability}, names)).startswith(b"\x89PNG")
    made = as_networkx(graph, names, probability)
    assert made.edges["x_1", "z z"]["probability"] == 0.7

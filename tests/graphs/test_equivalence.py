"""Essential graphs against the classes found by listing."""

import itertools

import torch

from gfnem.graphs.dags import every_dag
from gfnem.graphs.equivalence import essential_graphs


def colliders(graph):
    linked, n = graph | graph.T, len(graph)
    return {
        (i, k, j)
        for i, j in itertools.combinations(range(n), 2)
        for k in range(n)
        if graph[i, k] and graph[j, k] and not linked[i, j]
    }


def test_an_essential_graph_is_the_union_of_its_class():
    graphs = every_dag(4)
    classes: dict[tuple, list[int]] = {}
    for at, graph in enumerate(graphs):
        key = (tuple((graph | graph.T).flatten().tolist()), frozenset(colliders(graph)))
        classes.setdefault(key, []).append(at)
    assert len(classes) == 185
    found = essential_graphs(graphs)
    for members in classes.values():
        union = graphs[members].any(0)
        assert (found[members] == union).all()
        assert (found == union).flatten(1).all(1).nonzero()[:, 0].tolist() == members


def test_meeks_third_rule():
    """a - b, a - c, a - d, c -> b <- d: then a -> b."""
    graph = torch.zeros(1, 4, 4, dtype=torch.bool)
    for i, j in ((0, 1), (0, 2), (0, 3), (2, 1), (3, 1)):
        graph[0, i, j] = True
    found = essential_graphs(graph)[0]
    assert found[0, 1] and not found[1, 0]
    assert found[0, 2] and found[2, 0]

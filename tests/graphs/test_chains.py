"""The rivals: their chains' long-run shares against listing, greedy search against exhaustion."""

import torch

from gfnem.graphs.chains import (
    bootstrap,
    graphs_of,
    greedy,
    log_layers,
    partition_chains,
    structure_chains,
)
from gfnem.graphs.dags import every_dag, is_acyclic
from gfnem.graphs.layers import LayerSpace
from gfnem.graphs.model import DagPosterior
from gfnem.graphs.tables import Tables


def a_table(n: int = 3, rows: int = 15):
    generator = torch.Generator().manual_seed(0)
    values = torch.randn(rows, n, generator=generator, dtype=torch.float64)
    values[:, 1] += 0.7 * values[:, 0]
    return Tables.of([values])


def exact_shares(model, x):
    graphs = every_dag(model.variables)
    return graphs, model.log_joint(x, graphs[None])[0].softmax(0)


def close_shares(drawn, graphs, p):
    seen = (drawn[:, None] == graphs).flatten(2).all(2).double().mean(0)
    return ((seen - p).abs() < 5 * (p * (1 - p) / len(drawn)).sqrt() + 5 / len(drawn)).all()


def test_structure_chains_settle_on_the_posterior():
    torch.manual_seed(0)
    model, x = DagPosterior(3), a_table()
    drawn = structure_chains(model, x, 4000, 60)[0]
    assert is_acyclic(drawn).all() and close_shares(drawn, *exact_shares(model, x))


def test_partition_chains_settle_on_the_posterior():
    torch.manual_seed(0)
    model, x = DagPosterior(3), a_table()
    drawn, layers = partition_chains(model, x, 4000, 40)
    assert close_shares(drawn[0], *exact_shares(model, x))
    assert layers.shape == (1, 4000, 3)


def test_layers_weigh_the_sum_of_their_graphs():
    model, x, graphs = DagPosterior(4), a_table(4), every_dag(4)
    depth = LayerSpace(4).final_state(x, graphs[None]).depth
    value = model.log_joint(x, graphs[None])[0]
    layers = depth[0].unique(dim=0)
    expected = torch.stack([value[(depth[0] == row).all(1)].logsumexp(0) for row in layers])
    found = log_layers(model.given(x), layers[None])[0]
    assert torch.allclose(found, expected, atol=1e-3)
    drawn = graphs_of(model.given(x), layers[None])
    assert torch.equal(LayerSpace(4).final_state(x, drawn).depth[0], layers)


def test_limits_on_parents_and_known_edges_are_kept():
    model = DagPosterior(4, max_parents=1, forbidden=[[0, 1]], required=[[2, 3]])
    drawn = structure_chains(model, a_table(4), 200, 50)[0]
    assert is_acyclic(drawn).all() and model.space.knowledge.allows(drawn).all()
    assert not model.space.knowledge.allows(every_dag(4)).all()


def test_greedy_search_ends_where_no_neighbour_is_better():
    model, x = DagPosterior(4), a_table(4, 40)
    graph = greedy(model, x)[0]
    graphs = every_dag(4)
    distance = (graphs != graph).flatten(1).sum(1)
    near = graphs[distance <= 1]
    best = model.log_joint(x, graph[None, None])
    assert (model.log_joint(x, near[None]) <= best + 1e-9).all()


def test_bootstrapped_graphs_are_acyclic():
    found = bootstrap(DagPosterior(4), a_table(4).values[0], 10)
    assert found.shape == (10, 4, 4) and is_acyclic(found).all()

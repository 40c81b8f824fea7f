"""The layer programme against listing every graph, and its samples against its marginals."""

import math

import pytest
import torch

from gfnem.graphs.dags import (
    bits_of,
    every_dag,
    is_acyclic,
    log_number_of_graphs,
    number_of_dags,
    parent_sets,
    random_dag,
)
from gfnem.graphs.exact import LayerProgramme, log_weights_of_all, marginals, statistics


def random_scores(n: int, limit: int | None = None, scale: float = 5.0):
    generator = torch.Generator().manual_seed(n)
    sets = parent_sets(n, limit)
    scores = scale * torch.randn(n, len(sets), generator=generator, dtype=torch.float64)
    return scores.masked_fill(sets.members().mT, -torch.inf)


@pytest.mark.parametrize(
    ("n", "limit"), [(1, None), (2, None), (3, None), (4, None), (5, None), (4, 1), (5, 2)]
)
def test_sums_and_marginals_are_those_of_all_graphs(n, limit):
    scores = random_scores(n, limit)
    graphs, weights = log_weights_of_all(scores, limit)
    found = marginals(scores, limit)
    assert float(found.log_evidence - weights.logsumexp(0)) == pytest.approx(0, abs=1e-10)
    edges = (weights.softmax(0)[:, None, None] * graphs).sum(0)
    assert torch.allclose(found.edges, edges, atol=1e-10)
    assert torch.allclose(found.families.sum(1), torch.ones(n, dtype=torch.float64), atol=1e-10)


def test_what_is_impossible_stays_so():
    scores = random_scores(4)
    members = parent_sets(4).members()
    scores[2] = scores[2].masked_fill(members[:, 0] | ~members[:, 1], -torch.inf)
    scores[1] = scores[1].masked_fill(members[:, 3], -torch.inf)
    found = marginals(scores)
    _, weights = log_weights_of_all(scores)
    assert float(found.log_evidence) == pytest.approx(float(weights.logsumexp(0)), abs=1e-10)
    assert found.edges[0, 2] == 0 and found.edges[3, 1] == 0
    assert float(found.edges[1, 2]) == pytest.approx(1.0)
    drawn = LayerProgramme(scores).sample(200)
    assert not drawn[:, 0, 2].any() and drawn[:, 1, 2].all()


def test_scores_hundreds_of_nats_apart_lose_nothing():
    scores = random_scores(4, scale=800.0)
    _, weights = log_weights_of_all(scores)
    assert float(marginals(scores).log_evidence) == pytest.approx(
        float(weights.logsumexp(0)), rel=1e-12
    )


def test_the_programme_counts_graphs():
    for n in (1, 4, 7):
        scores = torch.zeros(n, len(parent_sets(n)), dtype=torch.float64)
        scores = scores.masked_fill(parent_sets(n).members().mT, -torch.inf)
        count = math.log(number_of_dags(n))
        assert float(LayerProgramme(scores).log_evidence()) == pytest.approx(count, abs=1e-10)
        assert log_number_of_graphs(n, lambda parents: 0.0) == pytest.approx(count, abs=1e-10)


def test_counting_weighs_parents():
    odds, most = -0.7, 2
    graphs = every_dag(4)
    parents = graphs.sum(1)
    weights = torch.where((parents > most).any(1), -math.inf, odds * parents.sum(1).double())
    counted = log_number_of_graphs(4, lambda k: odds * k if k <= most else -math.inf)
    assert counted == pytest.approx(float(weights.logsumexp(0)), abs=1e-10)


def test_samples_are_as_frequent_as_they_should_be():
    scores = random_scores(4, scale=1.0)
    torch.manual_seed(0)
    count = 20_000
    drawn = LayerProgramme(scores).sample(count)
    assert is_acyclic(drawn).all()
    graphs, weights = log_weights_of_all(scores)
    p = weights.softmax(0)
    places = 2 ** torch.arange(16)
    key = {int(k): at for at, k in enumerate((graphs.flatten(1) * places).sum(1))}
    seen = torch.zeros(len(graphs), dtype=torch.float64)
    for k in (drawn.flatten(1) * places).sum(1).tolist():
        seen[key[k]] += 1
    bound = 5 * (p * (1 - p) / count).sqrt() + 5 / count
    assert ((seen / count - p).abs() < bound).all()


def test_every_graph_is_listed_once():
    graphs = every_dag(4)
    assert len(graphs.flatten(1).unique(dim=0)) == number_of_dags(4) == 543
    assert is_acyclic(graphs).all()
    every = bits_of(torch.arange(2**9), 9).view(-1, 3, 3)
    assert int(is_acyclic(every).sum()) == number_of_dags(3) == 25


def test_statistics_of_a_chain():
    chain = torch.zeros(1, 3, 3, dtype=torch.bool)
    chain[0, 0, 2] = chain[0, 1, 2] = True
    found = statistics(chain)
    assert found["path"][0, 2] == 1 and found["path"][2, 0] == 0
    assert found["blanket"][0, 1] == 1, "nodes with a child in common"


def test_random_graphs_are_acyclic():
    generator = torch.Generator().manual_seed(0)
    graphs = torch.stack([random_dag(6, 6, generator) for _ in range(200)])
    assert is_acyclic(graphs).all()
    assert 5 < float(graphs.flatten(1).sum(1).double().mean()) < 7

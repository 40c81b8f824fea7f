"""Inclusion and exclusion over sinks against listing every graph, and against layers."""

import math

import pytest
import torch

from gfnem.graphs.dags import number_of_dags, parent_sets
from gfnem.graphs.exact import log_weights_of_all, marginals
from gfnem.graphs.sinks import SinkProgramme


def random_scores(n: int, limit: int | None = None, scale: float = 5.0):
    generator = torch.Generator().manual_seed(n)
    sets = parent_sets(n, limit)
    scores = scale * torch.randn(n, len(sets), generator=generator, dtype=torch.float64)
    return scores.masked_fill(sets.members().mT, -torch.inf)


@pytest.mark.parametrize(("n", "limit"), [(1, None), (3, None), (4, 1), (4, None), (5, None)])
def test_all_graphs_are_summed(n, limit):
    scores = random_scores(n, limit)
    graphs, weights = log_weights_of_all(scores, limit)
    found = SinkProgramme(scores, limit).marginals()
    assert float(found.log_evidence - weights.logsumexp(0)) == pytest.approx(0, abs=1e-10)
    edges = (weights.softmax(0)[:, None, None] * graphs).sum(0)
    assert torch.allclose(found.edges, edges, atol=1e-10)


@pytest.mark.parametrize(("n", "limit", "scale"), [(8, None, 3.0), (9, 2, 300.0)])
def test_it_agrees_with_layers(n, limit, scale):
    scores = random_scores(n, limit, scale)
    found, other = SinkProgramme(scores, limit).marginals(), marginals(scores, limit)
    assert float(found.log_evidence) == pytest.approx(float(other.log_evidence), abs=1e-8)
    assert torch.allclose(found.families, other.families, atol=1e-9)


def test_what_is_impossible_stays_so():
    scores = random_scores(4)
    members = parent_sets(4).members()
    scores[2] = scores[2].masked_fill(members[:, 0] | ~members[:, 1], -torch.inf)
    scores[1] = scores[1].masked_fill(members[:, 3], -torch.inf)
    found, (_, weights) = SinkProgramme(scores).marginals(), log_weights_of_all(scores)
    assert float(found.log_evidence) == pytest.approx(float(weights.logsumexp(0)), abs=1e-10)
    assert found.edges[0, 2] == 0 and found.edges[3, 1] == 0
    assert float(found.edges[1, 2]) == pytest.approx(1.0)


def test_cancellation_is_small_where_many_nodes_are_sinks():
    """All graphs alike, which are counted, and the empty graph alone, where all are sinks."""
    sets = parent_sets(10)
    scores = torch.zeros(10, len(sets), dtype=torch.float64)
    scores = scores.masked_fill(sets.members().mT, -torch.inf)
    found = float(SinkProgramme(scores).log_evidence())
    assert found == pytest.approx(math.log(number_of_dags(10)), abs=1e-10)
    scores[:, 1:] -= 40.0
    assert float(SinkProgramme(scores).log_evidence()) == pytest.approx(0, abs=1e-10)

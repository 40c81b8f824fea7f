"""The shipped proof of the space that builds layers, and of its policy."""

import math

import pytest
import torch

from gfnem.graphs.dags import every_dag, number_of_dags, random_dag
from gfnem.graphs.layer_policy import LayerPolicy
from gfnem.graphs.layers import LayerSpace
from gfnem.graphs.model import DagPosterior
from gfnem.graphs.priors import PathPrior
from gfnem.graphs.tables import Tables
from gfnem.objectives import BalancedVarGrad, DetailedBalance, TrajectoryBalance
from gfnem.policy import Policy
from gfnem.posterior import Posterior
from gfnem.testing import LatentSpaceTestCase, PolicyTestCase


def some_tables(n: int = 3):
    generator = torch.Generator().manual_seed(0)
    first = torch.randn(20, n, generator=generator, dtype=torch.float64)
    first[:, 1] += first[:, 0]
    return Tables.of([first, torch.randn(12, n, generator=generator, dtype=torch.float64)])


def some_policy(**settings):
    policy = LayerPolicy(3, hidden=8, **settings)
    torch.nn.init.normal_(policy.last.weight)
    return policy


class TestLayerSpace(LatentSpaceTestCase):
    def make_space(self):
        return LayerSpace(3)

    def make_x(self):
        return some_tables()

    def count_objects(self, row):
        return number_of_dags(3)

    def count_trajectories(self, row):
        return number_of_dags(3)


class TestFewParents(TestLayerSpace):
    def make_space(self):
        return LayerSpace(4, max_parents=1)

    def make_x(self):
        return some_tables(4)

    def count_objects(self, row):
        return int((every_dag(4).sum(1) <= 1).all(1).sum())

    count_trajectories = count_objects


class TestKnownEdges(TestLayerSpace):
    """The second node has no parents, and so comes first."""

    def make_space(self):
        return LayerSpace(3, 1, forbidden=[[0, 1], [2, 1]], required=[[1, 2]])

    def count_objects(self, row):
        return int(self.make_space().knowledge.allows(every_dag(3)).sum())

    count_trajectories = count_objects


class TestLayerPolicy(PolicyTestCase):
    def make_policy(self):
        return LayerPolicy(3, hidden=8, reads=4)

    def make_target(self):
        return DagPosterior(3)

    def make_space(self):
        return LayerSpace(3)

    def make_x(self):
        return some_tables()

    def make_objectives(self):
        return BalancedVarGrad(), DetailedBalance(), TrajectoryBalance()


@pytest.mark.parametrize("limit", [None, 1])
def test_the_short_way_is_that_of_all_actions(limit):
    torch.manual_seed(0)
    space, model = LayerSpace(3, limit), DagPosterior(3, max_parents=limit)
    policy, x = some_policy(max_parents=limit), some_tables()
    context = policy.encode(x, model.given(x))
    drawn = policy.sample(context, x, space, 4000)
    short = policy.score(context, space, drawn, flows=True)
    long = Policy.score(policy, context, space, drawn, flows=True)
    assert torch.allclose(short.log_pf, long.log_pf, atol=1e-4)
    assert torch.allclose(short.log_flow, long.log_flow, atol=1e-4)
    assert torch.allclose(short.log_pf.sum(2), drawn.log_behaviour, atol=1e-3)
    # and graphs are drawn as often as it says
    graphs = every_dag(3)
    if limit:
        graphs = graphs[(graphs.sum(1) <= limit).all(1)]
    every = policy.retrace(context, x, space, graphs[None].expand(2, -1, -1, -1))
    p = policy.score(context, space, every).log_pf.sum(2).exp()
    assert torch.allclose(p.sum(1), torch.ones(2), atol=1e-4)
    seen = (drawn.latent[:, :, None] == graphs).flatten(3).all(3).float().mean(1)
    assert ((seen - p).abs() < 5 * (p * (1 - p) / 4000).sqrt() + 5 / 4000).all()


def test_flows_of_independent_families_balance_where_there_is_one_node_left():
    """Without anything learned, the flow through a graph that lacks one node is exact."""
    space, model, x = LayerSpace(2), DagPosterior(2), some_tables(2)
    given = model.given(x)
    policy = LayerPolicy(2)
    context = policy.encode(x, given)
    state = space.step(space.initial_state(x, 1), torch.zeros(2, 1, dtype=torch.long))
    flow = policy(context, state).log_flow[:, 0]
    graphs = every_dag(2)
    rooted = graphs[~graphs[:, 1, 0]]  # the first node has no parents
    exact = model.log_joint(x, rooted[None].expand(2, -1, -1, -1)).logsumexp(1)
    assert torch.allclose(flow, exact, atol=1e-5)


def known_edges(seed: int):
    """A random graph's edges, some of them required, some other ones forbidden, a limit or none."""
    generator = torch.Generator().manual_seed(seed)
    graph, chance = random_dag(4, 3, generator), torch.rand(4, 4, generator=generator)
    limit = max(int(graph.sum(0).max()), 1) if seed % 2 else None
    pairs = dict(required=graph & (chance < 0.6), forbidden=~graph & (chance < 0.5))
    return limit, {name: matrix.nonzero().tolist() for name, matrix in pairs.items()}


@pytest.mark.parametrize("seed", range(12))
def test_every_way_ends_in_a_graph_that_heeds_what_is_known(seed):
    limit, known = known_edges(seed)
    space, x = LayerSpace(4, limit, **known), some_tables(4)[:1]
    state, ended = space.initial_state(x, 1), []
    while state.adjacency.shape[1]:
        final = space.is_final(state)[0]
        ended.append(state.adjacency[0, final])
        state = state.take((~final).nonzero().mT)
        mask = space.forward_mask(state)[0]
        assert mask.any(1).all()  # no dead ends
        row, action = mask.nonzero().unbind(1)
        state = space.step(state.take(row[None]), action[None])
    ended, graphs = torch.cat(ended), every_dag(4)
    allowed = graphs[space.knowledge.allows(graphs)]
    assert len(ended) == len(allowed)
    assert torch.equal(ended.flatten(1).unique(dim=0), allowed.flatten(1).unique(dim=0))


def test_known_edges_are_drawn_as_often_as_they_should_be():
    """Untrained, but what is learned matters little to two nodes that are left."""
    known = dict(required=[[0, 1]], forbidden=[[2, 0], [1, 2]])
    torch.manual_seed(0)
    space, model, x = LayerSpace(3, **known), DagPosterior(3, **known), some_tables()
    policy = some_policy()
    policy.serve(model)
    sampler = Posterior(model, space, policy, x)
    z = sampler.sample(500)
    assert space.knowledge.allows(z).all()
    graphs = every_dag(3)
    graphs = graphs[space.knowledge.allows(graphs)][None].expand(2, -1, -1, -1)
    q = sampler.log_prob(graphs).exp()
    assert torch.allclose(q.sum(1), torch.ones(2), atol=1e-4)
    # importance weights bring the exact evidence back
    log_p = model.log_joint(x, graphs).logsumexp(1)
    assert torch.allclose(model.log_marginal(x), log_p, atol=1e-8)
    weights = sampler.log_weights(4000)[1]
    found = weights.logsumexp(1) - math.log(4000)
    assert torch.allclose(found, log_p, atol=0.1)


def test_terms_are_refused():
    with pytest.raises(ValueError, match="edge by edge"):
        LayerPolicy(3).serve(DagPosterior(3, terms=[PathPrior(0, 1)]))

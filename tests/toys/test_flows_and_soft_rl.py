"""Flows of each space against sums written out by hand; soft RL against n(x) R(x)."""

import pytest
import torch

from gfnem.enumeration import enumerate_states
from gfnem.graphs import DagSpace
from gfnem.toys import Hypergrid, HypergridReward, TimeStamped, TorusWalk, Unobserved

X = torch.zeros(1, dtype=torch.long)
SPACES = {
    "assignment": Unobserved(3, 2),
    "assignment in order": Unobserved(3, 2, order="fixed"),
    "hypergrid": Hypergrid(5, 2),
    "walk": TimeStamped(TorusWalk(5, 1), 4),
    "dag": DagSpace(3),
}


def world(name):
    graph = enumerate_states(SPACES[name], X)
    torch.manual_seed(1)
    return graph, torch.randn(len(graph.ends), dtype=torch.double)


def log_choose(of, chosen):
    of, chosen = of.double(), chosen.double()
    return (of + 1).lgamma() - (chosen + 1).lgamma() - (of - chosen + 1).lgamma()


@pytest.mark.parametrize("name", SPACES)
def test_soft_rl_samples_trajectories_times_reward(name):
    graph, log_reward = world(name)
    counts = graph.log_counts()[graph.ends]
    soft = graph.log_terminal(graph.choices(graph.soft_values(log_reward)))
    assert torch.allclose(soft.exp(), (counts + log_reward).softmax(0), atol=1e-10)
    correction = graph.uniform_backward()
    value = graph.soft_values(log_reward, correction)
    assert torch.allclose(value, graph.log_flow(log_reward), atol=1e-10)
    right = graph.log_terminal(graph.choices(value, correction))
    assert torch.allclose(right.exp(), log_reward.softmax(0), atol=1e-10)
    equal = (counts - counts[0]).abs().max() < 1e-10
    assert equal == name.startswith("assignment")
    assert torch.allclose(soft, right) == equal


def test_flows_of_assignments_are_sums_over_completions():
    graph, log_reward = world("assignment")
    z, state = graph.latents()[0], graph.states.value[0]
    agrees = ((state[:, None] < 0) | (state[:, None] == z)).all(2)
    mass = log_reward.expand(agrees.shape).masked_fill(~agrees, -torch.inf).logsumexp(1)
    written = (state >= 0).sum(1)
    expected = mass - log_choose(torch.full_like(written, 3), written)
    assert torch.allclose(graph.log_flow(log_reward), expected)


@pytest.mark.parametrize("n", [3, 4])
def test_flows_of_dags_are_weighted_sums_over_supergraphs(n):
    graph = enumerate_states(DagSpace(n), X)
    torch.manual_seed(1)
    log_reward = torch.randn(len(graph.ends), dtype=torch.double)
    z = graph.latents()[0].flatten(1)
    inner = graph.states.adjacency[0].flatten(1)[~graph.states.stopped[0]]
    above = (inner[:, None] <= z).all(2)
    edges, more = inner.sum(1)[:, None], z.sum(1)
    # all orders in which a graph's edges are removed are equally probable
    terms = log_reward - log_choose(more.expand(above.shape), edges.expand(above.shape))
    expected = terms.masked_fill(~above, -torch.inf).logsumexp(1)
    flow = graph.log_flow(log_reward)[~graph.states.stopped[0]]
    assert torch.allclose(flow, expected)


def test_trajectories_of_a_dag_are_the_orders_of_its_edges():
    graph = enumerate_states(DagSpace(4), X)
    edges = graph.latents()[0].flatten(1).sum(1)
    assert torch.allclose(graph.log_counts()[graph.ends], (edges + 1.0).double().lgamma())


def test_flows_of_a_hypergrid_tell_the_chance_to_stop():
    space, reward = Hypergrid(6, 2), HypergridReward(6, 2, 0.1)
    graph = enumerate_states(space, X)
    log_reward = reward.log_joint(X, graph.latents())[0].double()
    flow, log_pb = graph.log_flow(log_reward), graph.uniform_backward()
    stops = graph.action == 2
    log_stop = graph.choices(flow, log_pb)[stops]
    cells = graph.states.cell[0][graph.parent[stops]]
    assert torch.allclose(flow[graph.parent[stops]] + log_stop, reward.log_reward(cells).double())

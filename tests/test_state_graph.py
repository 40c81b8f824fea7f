"""Sums over the edges of all states are those over every trajectory, listed one by one."""

import math
from collections import defaultdict

import pytest
import torch
from toy import BitModel, BitPolicy, BitSpace

from gfnem.batched import Batched
from gfnem.enumeration import enumerate_states, enumerate_trajectories, keys_of
from gfnem.state_graph import fingerprints, state_keys

X = torch.tensor([1])  # three places


@pytest.fixture
def world():
    torch.manual_seed(0)
    space, policy = BitSpace(), BitPolicy(scale=2.0).double().eval()
    return space, policy, enumerate_states(space, X), enumerate_trajectories(space, X)


def summed(found, log_values: torch.Tensor) -> dict:
    """Probabilities of structures from values of trajectories."""
    total = defaultdict(float)
    keys = keys_of(found.trajectories.latent, found.valid.shape)[0]
    for key, value in zip(keys, log_values.tolist(), strict=True):
        total[key] += math.exp(value)
    return total


def by_structure(graph, values: torch.Tensor) -> dict:
    keys = keys_of(graph.latents(), torch.Size((1, len(graph.ends))))[0]
    return dict(zip(keys, values.tolist(), strict=True))


def test_every_state_and_edge_is_there_once(world):
    space, _, graph, found = world
    states = Batched.cat(found.trajectories.states)
    expected = {key for key in keys_of(states, space.is_final(states).shape)[0]}
    assert len(graph) == len(expected) == 3**3
    assert set(keys_of(graph.states, torch.Size((1, len(graph))))[0]) == expected
    assert len(graph.parent) == int(space.forward_mask(graph.states).sum())
    after = space.step(graph.states.take(graph.parent[None]), graph.action[None])
    assert torch.equal(graph.find(after)[0], graph.child)
    back = space.unstep(graph.states.take(graph.child[None]), graph.backward_action[None])
    assert torch.equal(graph.find(back)[0], graph.parent)
    assert (graph.level[graph.child] == graph.level[graph.parent] + 1).all()


@torch.no_grad()
def test_terminal_probabilities(world):
    space, policy, graph, found = world
    context = policy.encode(X)
    log_pf, log_pb, _ = graph.scores(policy, context)
    scores = policy.score(context, space, found.trajectories)
    expected = summed(found, scores.log_pf.sum(2)[0])
    exact = by_structure(graph, graph.log_terminal(log_pf)[0].exp())
    assert exact == pytest.approx(expected, abs=1e-12)
    assert sum(exact.values()) == pytest.approx(1)
    carried = summed(found, scores.log_pb.sum(2)[0])
    assert all(abs(total - 1) < 1e-12 for total in carried.values())
    to = graph.sums_to(log_pb)[0, graph.ends].exp()
    assert torch.allclose(to, torch.ones_like(to))


def test_numbers_of_trajectories(world):
    _, _, graph, _ = world
    assert graph.log_counts()[graph.ends].exp().round().tolist() == [6.0] * 8


@torch.no_grad()
def test_flows_are_rewards_carried_back(world):
    space, policy, graph, found = world
    log_reward = BitModel().double().log_joint(X, graph.latents())[0]
    context = policy.encode(X)
    log_pb = graph.scores(policy, context)[1][0]
    flow = graph.log_flow(log_reward, log_pb)
    assert flow[0].item() == pytest.approx(log_reward.logsumexp(0).item())
    # the flow through a state: reward times P_B of every trajectory that visits it
    scores = policy.score(context, space, found.trajectories)
    last = graph.find(found.trajectories.states[-1])[0]
    rewards = torch.full((len(graph),), -torch.inf, dtype=torch.double)
    rewards[graph.ends] = log_reward
    mass = (scores.log_pb.sum(2)[0] + rewards[last]).exp()
    through = torch.zeros(len(graph), dtype=torch.double)
    for state in found.trajectories.states:
        through.index_add_(0, graph.find(state)[0], mass)
    assert torch.allclose(flow.exp(), through)
    # and the policy that goes by flows samples in proportion to the reward
    log_pt = graph.log_terminal(graph.choices(flow, log_pb))
    assert torch.allclose(log_pt, log_reward.log_softmax(0))


def test_soft_values_sample_in_proportion_to_trajectories(world):
    _, _, graph, _ = world
    log_reward = BitModel().double().log_joint(X, graph.latents())[0].detach()
    chosen = graph.choices(graph.soft_values(log_reward))
    expected = (log_reward + graph.log_counts()[graph.ends]).log_softmax(0)
    assert torch.allclose(graph.log_terminal(chosen), expected)


def test_sums_are_differentiable(world):
    _, _, graph, _ = world
    weight = torch.randn(2, len(graph.parent), dtype=torch.double, requires_grad=True)
    torch.autograd.gradcheck(lambda w: graph.log_terminal(w), (weight,))
    end = torch.randn(len(graph.ends), dtype=torch.double, requires_grad=True)
    torch.autograd.gradcheck(lambda e, w: graph.sums_from(e, w), (end, weight))


def test_a_space_with_shortcuts_has_levels_by_the_longest_way():
    class Shortcut(BitSpace):
        """A walk over 0, 1, 2, 3 by one or two: a state has ways of several lengths."""

        def forward_mask(self, state):
            at = state.size[..., None]
            return (at + torch.tensor([1, 2]) <= 3) & ~self.is_final(state)[..., None]

        def is_final(self, state):
            return state.size == 3

        def initial_state(self, x, samples):
            state = super().initial_state(x, samples)
            state.size = torch.zeros_like(state.size)
            return state

        def step(self, state, action):
            return type(state)(state.value, state.size + action + 1)

        def backward_action(self, state, action):
            return action

    graph = enumerate_states(Shortcut(), X)
    assert len(graph) == 4 and sorted(graph.level.tolist()) == [0, 1, 2, 3]
    assert graph.log_counts()[graph.ends].exp().tolist() == pytest.approx([3])


def test_a_cycle_is_refused():
    class Circle(BitSpace):
        def step(self, state, action):
            return type(state)(state.value, 3 - state.size)

        def forward_mask(self, state):
            return torch.ones(*state.size.shape, 1, dtype=torch.bool)

        def backward_action(self, state, action):
            return action

    with pytest.raises(ValueError, match="cycle"):
        enumerate_states(Circle(), torch.tensor([0]))


def test_keys_hold_everything():
    state = BitSpace().initial_state(torch.tensor([1, 0]), 2)
    keys = state_keys(state)
    assert keys.shape == (2, 2, 4)
    assert torch.equal(keys[..., :3], state.value) and torch.equal(keys[..., 3], state.size)
    assert len(fingerprints(torch.arange(200_000)[:, None]).unique()) == 200_000
    grid = torch.cartesian_prod(torch.arange(300), torch.arange(300))
    assert len(fingerprints(grid).unique()) == 90_000

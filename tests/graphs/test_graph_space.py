"""The shipped proof of the space that adds edges, and of the policies on it."""

import math

import pytest
import torch

from gfnem.graphs.dags import every_dag, number_of_dags
from gfnem.graphs.model import DagPosterior
from gfnem.graphs.policy import FlatPolicy, GraphPolicy
from gfnem.graphs.space import DagSpace
from gfnem.graphs.tables import Tables
from gfnem.objectives import BalancedVarGrad, DetailedBalance, TrajectoryBalance
from gfnem.testing import LatentSpaceTestCase, PolicyTestCase


def some_tables(n: int = 3):
    generator = torch.Generator().manual_seed(0)
    first = torch.randn(20, n, generator=generator, dtype=torch.float64)
    first[:, 1] += first[:, 0]
    return Tables.of([first, torch.randn(12, n, generator=generator, dtype=torch.float64)])


class TestDagSpace(LatentSpaceTestCase):
    def make_space(self):
        return DagSpace(3)

    def make_x(self):
        return some_tables()

    def make_policy(self):
        policy = GraphPolicy(3, hidden=8, layers=1)
        torch.nn.init.normal_(policy.edge.weight)
        return policy

    def count_objects(self, row):
        return number_of_dags(3)

    def count_trajectories(self, row):
        return sum(math.factorial(int(graph.sum())) for graph in every_dag(3))


class TestKnowledge(LatentSpaceTestCase):
    """Forbidden and required edges, and a limit on parents."""

    def make_space(self):
        return DagSpace(variables=3, max_parents=1, forbidden=[[0, 2]], required=[[1, 2]])

    def make_x(self):
        return some_tables()

    def make_policy(self):
        return FlatPolicy(3, hidden=8)

    def allowed(self):
        graphs = every_dag(3)
        fits = graphs[:, 1, 2] & ~graphs[:, 0, 2] & (graphs.sum(1) <= 1).all(1)
        return graphs[fits]

    def count_objects(self, row):
        return len(self.allowed())

    def count_trajectories(self, row):
        return sum(math.factorial(int(graph.sum()) - 1) for graph in self.allowed())


class TestGraphPolicy(PolicyTestCase):
    def make_policy(self):
        return GraphPolicy(3, hidden=8, layers=1)

    def make_target(self):
        return DagPosterior(3)

    def make_space(self):
        return DagSpace(3)

    def make_x(self):
        return some_tables()

    def make_objectives(self):
        return BalancedVarGrad(), DetailedBalance(), TrajectoryBalance()


class TestFlatPolicy(TestGraphPolicy):
    def make_policy(self):
        return FlatPolicy(3, hidden=8)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        (dict(forbidden=[[0, 1]], required=[[0, 1]]), "both required and forbidden"),
        (dict(required=[[0, 1], [1, 0]]), "cycle"),
        (dict(required=[[0, 2], [1, 2]], max_parents=1), "more than 1 required"),
        (dict(forbidden=[[0, 7]]), "pair of nodes below 3"),
    ],
)
def test_knowledge_that_contradicts_itself(settings, says):
    with pytest.raises(ValueError, match=says):
        DagSpace(3, **settings)


def test_the_closure_is_kept_up():
    space, x = DagSpace(5), some_tables(5)
    torch.manual_seed(0)
    state = space.initial_state(x, 50)
    for _ in range(8):
        mask = space.forward_mask(state)[..., :-1]
        weight = mask.float() + 1e-9 * (~mask.any(-1, keepdim=True))
        action = weight.flatten(0, 1).multinomial(1).view(2, 50)
        action = torch.where(mask.any(-1), action, 25)
        state = space.step(state, action)
        again = space.final_state(x, state.adjacency)
        assert torch.equal(state.closure, again.closure)
        assert not state.closure.diagonal(dim1=2, dim2=3).any()


def test_the_policy_is_the_same_under_another_numbering():
    torch.manual_seed(0)
    policy = GraphPolicy(4, hidden=8, layers=2)
    torch.nn.init.normal_(policy.edge.weight)
    torch.nn.init.normal_(policy.stop[-1].weight)
    space, model, order = DagSpace(4), DagPosterior(4), torch.tensor([2, 0, 3, 1])
    x = some_tables(4)
    other = Tables(x.values[..., order], x.real, x.hand)
    z = every_dag(4)[::50][None].expand(2, -1, -1, -1)
    moved = z[..., order, :][..., order]
    outputs = []
    for data, graphs in ((x, z), (other, moved)):
        state = space.final_state(data, graphs)
        state.stopped = torch.zeros_like(state.stopped)
        outputs.append(policy(policy.encode(data, model.given(data)), state))
    one, two = (output.forward[..., :-1].unflatten(2, (4, 4)) for output in outputs)
    assert torch.allclose(one[..., order, :][..., order], two, atol=1e-4)
    assert torch.allclose(outputs[0].forward[..., -1], outputs[1].forward[..., -1], atol=1e-4)
    assert torch.allclose(outputs[0].log_flow, outputs[1].log_flow, atol=1e-4)


def test_nodes_beyond_the_bits_of_a_number_are_refused():
    space = DagSpace(variables=62)
    state = space.initial_state(some_tables(), 1)
    for tail in range(61, 0, -1):  # the longest path, so that all bits are in use
        action = torch.full(state.stopped.shape, (tail - 1) * 62 + tail)
        state = space.step(state, action)
    closed = state.closure[0, 0]
    assert torch.equal(closed, torch.ones_like(closed).tril(-1))
    assert not state.open_edges[0, 0].triu(1).any()
    with pytest.raises(ValueError, match="62"):
        DagSpace(variables=63)

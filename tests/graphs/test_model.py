"""The posterior: the shipped proof, priors, constraints and terms against listing all graphs."""

import itertools
import math

import pytest
import torch

from gfnem.graphs.dags import bit_masks, closure_of, every_dag
from gfnem.graphs.exact import log_weight
from gfnem.graphs.model import DagPosterior
from gfnem.graphs.networks import NetworkPosterior
from gfnem.graphs.priors import DescendantsPrior, EdgePrior, PathPrior
from gfnem.graphs.scores import BDeu
from gfnem.graphs.space import DagSpace
from gfnem.graphs.tables import Tables
from gfnem.graphs.weights import WeightedPosterior
from gfnem.testing import TargetTestCase


def some_tables(n: int = 3):
    generator = torch.Generator().manual_seed(0)
    first = torch.randn(20, n, generator=generator, dtype=torch.float64)
    first[:, 1] += first[:, 0]
    return Tables.of([first, torch.randn(12, n, generator=generator, dtype=torch.float64)])


class TestDagPosterior(TargetTestCase):
    settings: dict = {}  # noqa: RUF012

    def make_target(self):
        return DagPosterior(3, **self.settings)

    def make_space(self):
        return DagSpace(3)

    def make_x(self):
        return some_tables()

    def make_latents(self, x):
        return every_dag(3)[::4][None].expand(len(x), -1, -1, -1)

    def enumerate_latents(self, x):
        return every_dag(3)[None]

    def take(self, x, row):
        one = x.select(torch.tensor([row]))
        return Tables.of([one.values[0][one.real[0]]])


class TestTerms(TestDagPosterior):
    settings = {"terms": [PathPrior(0, 2, 1.5), DescendantsPrior(-0.3)]}  # noqa: RUF012


@pytest.mark.parametrize("kind", ["uniform", "edges", "fair"])
@pytest.mark.parametrize("limit", [None, 1])
def test_priors_sum_to_one(kind, limit):
    model = DagPosterior(4, prior=EdgePrior(kind, -0.5), max_parents=limit)
    graphs = every_dag(4)
    fits = graphs if limit is None else graphs[(graphs.sum(1) <= limit).all(1)]
    value = log_weight(fits, model.prior_table(), limit)
    assert float(value.logsumexp(0)) == pytest.approx(0, abs=1e-9)
    if kind == "edges":
        odds = value + 0.5 * fits.sum((1, 2))
        assert torch.allclose(odds, odds[0].expand_as(odds))


def test_known_edges_change_the_prior_and_the_marginal():
    known = dict(forbidden=[[0, 1]], required=[[2, 1]])
    model, free = DagPosterior(4, **known), DagPosterior(4)
    x, graphs = some_tables(4), every_dag(4)
    fits = graphs[:, 2, 1] & ~graphs[:, 0, 1]
    value, other = (m.log_joint(x, graphs.expand(2, -1, -1, -1)) for m in (model, free))
    assert (value[:, ~fits] == -math.inf).all()
    shift = (value - other)[:, fits]
    assert torch.allclose(shift, shift[:1, :1].expand_as(shift)) and (shift > 0).all()
    assert torch.allclose(model.log_marginal(x), value.logsumexp(1))
    edges = model.marginals(x)[0].edges
    assert edges[0, 1] == 0 and float(edges[2, 1]) == pytest.approx(1)
    drawn = model.sample_posterior(x, 50)
    assert not drawn[..., 0, 1].any() and drawn[..., 2, 1].all()


def test_terms_are_listed_for_few_variables_and_stop_exact_inference_for_more():
    term = PathPrior(0, 2, 2.0)
    model, plain, x = DagPosterior(4, terms=[term]), DagPosterior(4), some_tables(4)
    graphs = every_dag(4)
    value = plain.log_joint(x, graphs.expand(2, -1, -1, -1))
    value = value + 2.0 * closure_of(graphs)[:, 0, 2]
    assert torch.allclose(model.log_marginal(x), value.logsumexp(1))
    edges = (value.softmax(1)[..., None, None] * graphs).sum(1)
    found = torch.stack([exact.edges for exact in model.marginals(x)])
    assert torch.allclose(found, edges)
    many = DagPosterior(6, terms=[term])
    assert not many.offers("log_marginal") and not many.offers("sample_posterior")


def test_gains_are_differences_of_joints():
    model, x, graphs = DagPosterior(4), some_tables(4), every_dag(4)[::7]
    z = graphs[None].expand(2, -1, -1, -1)
    gains = model.given(x).deltas(bit_masks(z.mT))
    base = model.log_joint(x, z)
    for i, j in ((0, 1), (3, 2), (2, 0)):
        other = z.clone()
        other[..., i, j] = ~other[..., i, j]
        assert torch.allclose(gains[..., i, j], model.log_joint(x, other) - base, atol=1e-9)


def test_what_joins_a_family_is_the_posterior_of_the_family_alone():
    model, x = DagPosterior(3), some_tables()
    space, given = DagSpace(3), model.given(x)
    state = space.initial_state(x, 1)
    joins, stop = given.joins(state, given.deltas(state.parents))
    members = torch.arange(7)[:, None] >> torch.arange(3) & 1  # the sets of parents
    p = given.table.softmax(2)
    expected = torch.einsum("bjs,si->bij", p, members.double()) + torch.eye(3)
    assert torch.allclose(joins[:, 0].exp(), expected)
    assert torch.allclose(stop[:, 0], p[..., 0].log().sum(1))


def test_terms_speak_of_columns_by_name():
    named = DagPosterior(3, terms=[PathPrior("b", "c", 1.0)], columns=["a", "b", "c"])
    placed = DagPosterior(3, terms=[PathPrior(1, 2, 1.0)])
    x, graphs = some_tables(), every_dag(3).expand(2, -1, -1, -1)
    assert torch.equal(named.log_joint(x, graphs), placed.log_joint(x, graphs))
    with pytest.raises(ValueError, match="'z' is not among a, b, c"):
        DagPosterior(3, terms=[PathPrior("b", "z")], columns=["a", "b", "c"])


def test_many_columns_want_a_limit_on_parents():
    with pytest.raises(ValueError, match=r"16 variables: .*max_parents 3"):
        DagPosterior(16)
    values = torch.randn(30, 16, generator=torch.Generator().manual_seed(0)).double()
    model, x = DagPosterior(16, max_parents=2), Tables.of([values])
    space = DagSpace(16, max_parents=2)
    state = space.initial_state(x, 3)
    for action in (16, 33, 16 * 16):  # edges 0 -> 1 and 1 -> 2, then stop
        state = space.step(state, torch.full((1, 3), action))
    gains = model.given(x).deltas(state.parents)
    other = state.adjacency.clone()
    other[..., 5, 2] = True
    both = [model.log_joint(x, graph) for graph in (state.adjacency, other)]
    assert torch.allclose(gains[..., 5, 2], both[1] - both[0])
    other[..., 6, 2] = True
    assert (model.log_joint(x, other) == -math.inf).all(), "three parents"
    assert not model.offers("sample_posterior")
    assert not DagPosterior(18, max_parents=2).offers("log_marginal")


def test_orders_know_how_many_of_their_nodes_could_change_places():
    """Against all orders of the nodes, each with all of its graphs."""
    model, x = DagPosterior(4), some_tables(4)
    given, graphs = model.given(x), every_dag(4)
    value = given.log_graphs(graphs.expand(2, -1, -1, -1)).softmax(1)
    for first in ([], [1], [0, 3]):  # nodes that come before all others
        total, swaps = torch.zeros(2), torch.zeros(2, 3)
        for order in itertools.permutations(range(4)):
            if sorted(order[: len(first)]) != first:
                continue
            along = graphs[:, order][:, :, order]
            agrees = ~along.tril().flatten(1).any(1)
            total = total + (value * agrees).sum(1)
            for k in range(3 - len(first)):
                free = ~along[:, len(first) + k, len(first) + k + 1]
                swaps[:, k] += (value * (agrees & free)).sum(1)
        found = given.swaps()[:, sum(2**node for node in first)]
        assert torch.allclose(found, (swaps.T / total).T.float(), atol=1e-5)
        if not first:
            level = given.log_marginal() + total.log() - math.log(24)
            assert torch.allclose(
                given.orders()[:, 0], (level - given.best.sum(1)).float(), atol=1e-4
            )


def test_a_score_of_another_kind_is_refused():
    with pytest.raises(ValueError, match="BDeu is a score of discrete tables"):
        DagPosterior(3, BDeu(), discrete=False)
    for model in (WeightedPosterior, NetworkPosterior):
        with pytest.raises(ValueError, match="and this one is discrete; DagPosterior has BDeu"):
            model(3, discrete=True)
    with pytest.raises(ValueError, match="edges known beforehand are for models whose"):
        NetworkPosterior(3, required=[[0, 1]])
    assert isinstance(DagPosterior(3, discrete=True).score, BDeu)

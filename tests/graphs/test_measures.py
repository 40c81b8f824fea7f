"""How near graphs are to the exact posterior and to a known graph."""

import pytest
import torch

from gfnem.graphs.data import generated
from gfnem.graphs.layer_policy import LayerPolicy
from gfnem.graphs.layers import LayerSpace
from gfnem.graphs.measures import against_truth, divergences, over_all_graphs
from gfnem.graphs.model import DagPosterior
from gfnem.graphs.policy import GraphPolicy
from gfnem.graphs.space import DagSpace
from gfnem.graphs.tables import Tables
from gfnem.posterior import Posterior


def test_distances_and_areas():
    truth = torch.zeros(3, 3, dtype=torch.bool)
    truth[0, 1] = truth[1, 2] = True
    turned = truth.clone()
    turned[0, 1], turned[1, 0], turned[0, 2] = False, True, True
    graphs = torch.stack([truth, turned])
    found = against_truth(graphs.double().mean(0), graphs, truth)
    assert found["e_shd"] == 1.0, "one edge reversed and one too many, in half of the draws"
    assert against_truth(truth.double(), None, truth)["auroc"] == 1.0
    p, q = torch.tensor([0.5, 0.5, 0.0]), torch.tensor([0.5, 0.0, 0.5])
    found = divergences(p, q)
    assert found["tv"] == pytest.approx(0.5)
    assert found["jensen_shannon"] == pytest.approx(0.5 * 0.6931, abs=1e-3)


@pytest.mark.parametrize("build", ["layers", "edges"])
def test_all_graphs_that_known_edges_leave_are_compared(build):
    """The sampler's probabilities of them are those of its draws."""
    torch.manual_seed(0)
    known = {"forbidden": [[2, 0]], "required": [[0, 1]], "max_parents": 1}
    values = generated(3, 3, 30, torch.Generator().manual_seed(0))[1]
    x, model = Tables.of([values]), DagPosterior(3, **known)
    layers = build == "layers"
    space = LayerSpace(3, **known) if layers else DagSpace(3, **known)
    policy = LayerPolicy(3, 1, hidden=8) if layers else GraphPolicy(3, hidden=8, layers=1)
    posterior = Posterior(model, space, policy, x)
    found = over_all_graphs(posterior, model, x)
    drawn = posterior.sample(4000)[0].flatten(1).long() @ 2 ** torch.arange(9)
    kinds, count = drawn.unique(return_counts=True)
    graphs = (kinds[:, None] >> torch.arange(9) & 1).bool().view(-1, 3, 3)
    assert graphs[:, 0, 1].all() and not graphs[:, 2, 0].any()
    p = (model.log_joint(x, graphs[None])[0] - model.log_marginal(x)).exp()
    drawn_tv = ((count / 4000 - p).abs().sum() + 1 - p.sum()) / 2
    assert found["tv"] == pytest.approx(float(drawn_tv), abs=0.03)

"""Nothing is made on the default device where an input says which: inference, side data, scores.

The shipped test cases look at spaces, policies and targets; here is what stands round them.
"""

import pytest
import torch

from gfnem.images.evaluation import likelihoods
from gfnem.images.grids import RasterGrid
from gfnem.images.model import DiscreteVAE
from gfnem.images.policies import RasterPolicy
from gfnem.images.vqvae import NearestCode, fit_prior, fit_spread, train_vqvae
from gfnem.lightning import GFlowNetEM
from gfnem.mixtures import PetalMixture, PetalPolicy, PetalSpace
from gfnem.mixtures.policy import learned_posterior
from gfnem.parsing.bracket_prior.brackets import Brackets
from gfnem.parsing.bracket_prior.energy import BracketEnergy
from gfnem.parsing.bracket_prior.reward import BracketPrior
from gfnem.parsing.bracket_prior.training import (
    PriorTraining,
    log_likelihood,
    right_branching,
    uniform,
)
from gfnem.parsing.grammars.context_free_fit import FixedPCFG
from gfnem.parsing.grammars.neural_pcfg import NeuralParentPCFG, NeuralPCFG
from gfnem.parsing.parser import parse
from gfnem.parsing.policies.topdown import TopDownPolicy
from gfnem.parsing.spaces.moves import TreeMoves
from gfnem.parsing.spaces.topdown import TopDownSpace
from gfnem.parsing.text.sentences import Sentences
from gfnem.target import Target
from gfnem.testing import DevicesNamed, devices

WORDS, LABELS = 8, 3


def sentences():
    return Sentences.from_lists([[1, 2, 3, 4, 0], [5], [3, 1], [7, 7, 1]])


def module(kind):
    torch.manual_seed(0)
    parents = kind == "parents"
    model = (NeuralParentPCFG if parents else NeuralPCFG)(WORDS, LABELS, 4, dim=8)
    reward = BracketPrior(BracketEnergy(4)) if kind == "rewarded" else None
    policy = TopDownPolicy(WORDS, LABELS, dim=8, contexts=LABELS + 1 if parents else 1)
    return GFlowNetEM(model, TopDownSpace(LABELS), policy, reward=reward).eval()


@pytest.mark.parametrize("device", devices())
@pytest.mark.parametrize("kind", ["rules", "parents", "rewarded"])
@pytest.mark.parametrize("decode", ["map", "mbr", "sample"])
def test_parsing(kind, decode, device):
    em, x = module(kind).to(device), sentences().to(device)
    with DevicesNamed():
        for samples in (None, 4):
            parses = parse(em, x, decode, samples)
            assert parses.log_joint.device == x.tokens.device


@pytest.mark.parametrize("device", devices())
@pytest.mark.parametrize("kind", ["rules", "parents"])
def test_generating_and_learning_from_shapes(kind, device):
    model = module(kind).model.to(device)
    brackets = Brackets.from_spans([{(0, 3), (0, 2)}, {(0, 4), (1, 4)}], [3, 4]).to(device)
    with DevicesNamed():
        x, z = model.sample(3)
        assert x.tokens.device == z.left.device == brackets.spans.device
        model.log_brackets(brackets).sum().backward()


@pytest.mark.parametrize("device", devices())
def test_the_prior_over_shapes(device):
    spans = [{(0, 3), (0, 2)}, {(0, 4)}, {(0, 5), (1, 5), (2, 4)}]
    brackets = Brackets.from_spans(spans, [3, 4, 5]).to(device)
    energy = BracketEnergy(4).to(device)
    with DevicesNamed():
        PriorTraining(energy, brackets, chains=4, moves=2, updates=3).update()
        for score in (lambda z: -energy(z), uniform, right_branching(brackets)):
            assert torch.isfinite(log_likelihood(score, brackets)).all()


@pytest.mark.parametrize("device", devices())
def test_moves_of_trees(device):
    x, moves = sentences().to(device), TreeMoves(LABELS)
    with DevicesNamed():
        z = moves.initial(x, 4)
        proposed, ratio = moves.propose(x, z)
        proposed.where(ratio > -1, z)


@pytest.mark.parametrize("device", devices())
def test_petals(device):
    model = PetalMixture([[0.0, 1.0], [1.0, -1.0]], 3).to(device)
    policy, space = PetalPolicy(2, 3, hidden=8).to(device), PetalSpace(2, 3, "either")
    x = torch.randn(5, 2, device=device)
    with DevicesNamed():
        learned_posterior(policy, space, x, model)
        model.em_step(x)


@pytest.mark.parametrize("device", devices())
def test_images(device):
    shape = {"height": 4, "width": 4, "rows": 2, "columns": 2, "codes": 4}
    small = {"channels": 4, "hidden": 8, "units": 6}
    model = DiscreteVAE(**shape, channels=4, prior="autoregressive").to(device)
    policy, space = RasterPolicy(**shape, **small).to(device), RasterGrid(2, 2, 4)
    nearest = NearestCode(**shape, **small).to(device)
    x = torch.bernoulli(torch.full((6, 4, 4), 0.5, device=device))
    with DevicesNamed():
        likelihoods(model, space, policy, x, 20, 10)
        train_vqvae(model, nearest, lambda update: x, 3, revive_every=1)
        fit_prior(model, lambda update: nearest.nearest(x, model), 2)
        fit_spread(model, nearest, x)


@pytest.mark.parametrize("device", devices())
def test_tables(device):
    root, rules, emissions = (
        torch.rand(size, device=device).double() for size in ((4,), (2, 4, 4), (2, 5))
    )
    with DevicesNamed():
        root = (root / root.sum()).log()
        rules = (rules / rules.sum((1, 2), keepdim=True)).log()
        emissions = (emissions / emissions.sum(1, keepdim=True)).log()
        assert FixedPCFG(root, rules, emissions, ["A", "B"]).tables()[0].device == root.device


class Counted(Target):
    def log_joint(self, x, z):
        return z.sum(2)


@pytest.mark.parametrize("device", devices())
def test_units_are_where_the_observations_are(device):
    with DevicesNamed():
        x = torch.zeros(3, device=device)
        assert Counted().units(x).device == x.device


def test_the_check_sees_a_tensor_without_a_device():
    with DevicesNamed():
        with pytest.raises(AssertionError, match=r"test_devices\.py, line \d+: torch\.zeros"):
            torch.zeros(3)
        with pytest.raises(AssertionError, match=r"torch\.arange"):
            torch.arange(3).to("cpu")
        torch.zeros(3, device="cpu").new_zeros(2)

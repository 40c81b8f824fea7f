"""Phases: whom each trains, and what contradicts itself."""

import pytest
import torch
from toy import BitModel, BitPolicy, BitSpace

from gfnem.batch import Batch
from gfnem.em import EM
from gfnem.objectives import ReverseKL, VarGrad
from gfnem.phases import ClimbMarginal, LearnBeside, Together, TrainModel, TrainPolicy
from gfnem.side import SideInformation
from gfnem.sources import Own, PosteriorSamples
from gfnem.target import EnergyModel

KINDS = torch.tensor([0, 1, 1, 2])


class Prefers(SideInformation):
    """That a kind is likely, whatever its bits."""

    def prepare(self, model):
        return "one kind"

    def log_likelihood(self, model):
        return model.log_marginal(torch.tensor([1])).mean()


@pytest.fixture
def em():
    torch.manual_seed(0)
    return EM(BitModel(), BitSpace(), BitPolicy())


@pytest.mark.parametrize(
    "phase",
    [TrainPolicy(Own(4)), TrainModel(Own(4)), ClimbMarginal(), LearnBeside(Prefers())],
    ids=lambda phase: type(phase).__name__,
)
def test_a_phase_has_gradients_of_the_network_that_it_trains(em, phase):
    loss = phase(Batch(em, KINDS))
    assert loss.shape == () and torch.isfinite(loss)
    for name in ("policy", "model"):
        gradients = torch.autograd.grad(
            loss, list(em.network(name).parameters()), allow_unused=True, retain_graph=True
        )
        moved = any(g is not None and g.abs().sum() > 0 for g in gradients)
        assert moved == (name == phase.trains)


def test_exact_samples_give_the_gradient_of_the_marginal(em):
    parameters = list(em.model.parameters())
    exact = torch.autograd.grad(ClimbMarginal()(Batch(em, KINDS)), parameters)
    phase = TrainModel(PosteriorSamples(4000), m_step="equal")
    found = torch.autograd.grad(phase(Batch(em, KINDS)), parameters)
    for one, other in zip(exact, found, strict=True):
        assert (one - other).norm() < 0.05 * (1 + one.norm())


def test_losses_of_one_network_add_up(em):
    climb, beside = ClimbMarginal(), LearnBeside(Prefers(weight=2.0))
    batch = Batch(em, KINDS)
    both = Together([climb, beside], [1.0, 0.5])(batch)
    torch.testing.assert_close(both, climb(batch) + 0.5 * beside(batch))
    assert Together([climb, beside]).prepare(em.model) == "one kind"
    with pytest.raises(ValueError, match="train the same network"):
        Together([climb, TrainPolicy(Own(4))])


def test_with_a_negative_phase_equal_draws_cancel(em):
    source = PosteriorSamples(4)
    phase = TrainModel(source, m_step="equal", negative=source)
    gradients = torch.autograd.grad(phase(Batch(em, KINDS)), list(em.model.parameters()))
    assert all(gradient.norm() < 1e-6 for gradient in gradients)
    other = TrainModel(PosteriorSamples(4), m_step="equal", negative=source)
    gradients = torch.autograd.grad(other(Batch(em, KINDS)), list(em.model.parameters()))
    assert any(gradient.norm() > 1e-3 for gradient in gradients)


class Energy(EnergyModel):
    """An unnormalised table."""

    def __init__(self):
        super().__init__()
        self.table = torch.nn.Parameter(torch.zeros(2))

    def log_joint(self, x, z):
        return (z * self.table[0]).sum(2)


@pytest.mark.parametrize(
    ("phase", "model", "said"),
    [
        (TrainPolicy(Own(4, epsilon=0.1), ReverseKL()), BitModel(), "policy's own samples alone"),
        (TrainPolicy(Own(1), VarGrad()), BitModel(), "samples 1: VarGrad compares"),
        (TrainModel(PosteriorSamples(4)), BitModel(), "have no importance weights; use equal"),
        (TrainModel(Own(4)), Energy(), "takes a negative phase"),
    ],
    ids=["strays", "one sample", "no weights", "energy"],
)
def test_what_contradicts_itself_is_refused(phase, model, said):
    with pytest.raises(ValueError, match=said):
        phase.check(model, BitSpace(), BitPolicy())


def test_an_unknown_m_step_is_refused():
    with pytest.raises(ValueError, match="m_step is one of importance, equal, best, one"):
        TrainModel(Own(4), m_step="worst")


@pytest.mark.parametrize("negative", [1, True, "own", Own], ids=str)
def test_a_negative_phase_is_a_source(negative):
    with pytest.raises(ValueError, match="negative must be a Source, not"):
        TrainModel(Own(2), negative=negative)

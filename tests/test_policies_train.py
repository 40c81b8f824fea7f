"""Training reaches every parameter of every policy of the package."""

import pytest
import torch
from torch import nn
from toy import BitModel, BitPolicy, BitSpace

from gfnem.images.grids import AnyOrderGrid, RasterGrid
from gfnem.images.guided import GuidedPolicy
from gfnem.images.model import DiscreteVAE
from gfnem.images.policies import AnyOrderPolicy, MeanFieldPolicy, RasterPolicy
from gfnem.mixtures import PetalMixture, PetalPolicy, PetalSpace
from gfnem.objectives import DetailedBalance, TrajectoryBalance
from gfnem.parsing.grammars.neural_pcfg import NeuralParentPCFG, NeuralPCFG
from gfnem.parsing.grammars.rnng import RNNG
from gfnem.parsing.grammars.simple_pcfg import SimplePCFG
from gfnem.parsing.policies.forest import ForestPolicy
from gfnem.parsing.policies.shift_reduce import ShiftReducePolicy
from gfnem.parsing.policies.topdown import TopDownPolicy
from gfnem.parsing.spaces.forest import ForestSpace
from gfnem.parsing.spaces.shift_reduce import ShiftReduceSpace
from gfnem.parsing.spaces.topdown import TopDownSpace
from gfnem.parsing.text.sentences import Sentences
from gfnem.testing import PolicyTestCase

pytestmark = pytest.mark.slow

WORDS, LABELS = 8, 3


class OnText(PolicyTestCase):
    def make_target(self):
        return NeuralPCFG(WORDS, LABELS, 4, dim=8)

    def make_x(self):
        return Sentences.from_lists([[1, 2, 3, 4, 0, 6, 2], [5], [3, 1], [7, 7, 1, 4]])


class TestTopDownWithRules(OnText):
    def make_policy(self):
        return TopDownPolicy(WORDS, LABELS, dim=8)

    def make_space(self):
        return TopDownSpace(LABELS)


class TestTopDownWithRulesOfItsOwn(TestTopDownWithRules):
    def make_policy(self):
        return TopDownPolicy(WORDS, LABELS, dim=8, use_prior=False)


class TestTopDownWithParents(TestTopDownWithRules):
    def make_target(self):
        return NeuralParentPCFG(WORDS, LABELS, 4, dim=8)

    def make_policy(self):
        return TopDownPolicy(WORDS, LABELS, dim=8, contexts=LABELS + 1)


class TestTopDownWithChildrenApart(TestTopDownWithRules):
    def make_target(self):
        return SimplePCFG(WORDS, LABELS, 4, dim=8)


class TestTopDownThatLooksAtCorners(TestTopDownWithChildrenApart):
    def make_policy(self):
        return TopDownPolicy(WORDS, LABELS, dim=8, corners=True)


class TestForestWithChildrenApart(OnText):
    def make_target(self):
        return SimplePCFG(WORDS, LABELS, 4, dim=8)

    def make_policy(self):
        return ForestPolicy(WORDS, LABELS, dim=8)

    def make_space(self):
        return ForestSpace(LABELS)


class TestTopDownWithoutPotentials(TestTopDownWithRules):
    def make_target(self):
        return RNNG(WORDS, dim=8)

    def make_policy(self):
        return TopDownPolicy(WORDS, 1, dim=8)

    def make_space(self):
        return TopDownSpace(1)


class TestForest(OnText):
    def make_policy(self):
        return ForestPolicy(WORDS, LABELS, dim=8)

    def make_space(self):
        return ForestSpace(LABELS)


class UnguidedForest(TestForest):
    """Its flows know nothing of the target at first: the default objective leaves them alone."""

    __test__ = False

    def make_objectives(self):
        return *super().make_objectives(), DetailedBalance()


@pytest.mark.slow
class TestForestAlone(UnguidedForest):
    __test__ = True

    def make_policy(self):
        return ForestPolicy(WORDS, LABELS, dim=8, use_prior=False)


class TestForestWithParents(UnguidedForest):
    __test__ = True

    def make_target(self):
        return NeuralParentPCFG(WORDS, LABELS, 4, dim=8)


@pytest.mark.slow
class TestForestWithoutPotentials(UnguidedForest):
    __test__ = True

    def make_target(self):
        return RNNG(WORDS, dim=8)

    def make_policy(self):
        return ForestPolicy(WORDS, 1, dim=8)

    def make_space(self):
        return ForestSpace(1)


class TestShiftReduce(OnText):
    def make_target(self):
        return RNNG(WORDS, dim=8)

    def make_policy(self):
        return ShiftReducePolicy(WORDS, 16, dim=8)

    def make_space(self):
        return ShiftReduceSpace()


class TestShiftReduceAlone(TestShiftReduce):
    def make_policy(self):
        return ShiftReducePolicy(WORDS, dim=8)


class TestShiftReduceWithoutItsPrior(TestShiftReduce):
    def make_target(self):
        return NeuralPCFG(WORDS, 1, 4, dim=8)


class TestPetals(PolicyTestCase):
    def make_target(self):
        return PetalMixture([[0.0, 1.0], [1.0, -1.0]], 3)

    def make_policy(self):
        return PetalPolicy(2, 3, hidden=8)

    def make_space(self):
        return PetalSpace(2, 3, "either")

    def make_x(self):
        return torch.randn(6, 2)


class TestPetalsInOrder(TestPetals):
    def make_space(self):
        return PetalSpace(2, 3)


SHAPE = {"height": 4, "width": 4, "rows": 2, "columns": 2, "codes": 4}
SMALL = {"channels": 4, "hidden": 8, "units": 6}


class TestRaster(PolicyTestCase):
    def make_target(self):
        return DiscreteVAE(**SHAPE, channels=4)

    def make_policy(self):
        return RasterPolicy(**SHAPE, **SMALL)

    def make_space(self):
        return RasterGrid(2, 2, 4)

    def make_x(self):
        return torch.bernoulli(torch.full((5, 4, 4), 0.5))


class TestRasterWithFlows(TestRaster):
    def make_policy(self):
        return RasterPolicy(**SHAPE, **SMALL, flow=True)


class TestMeanField(TestRaster):
    def make_policy(self):
        return MeanFieldPolicy(**SHAPE, **SMALL)


class TestGuided(TestRaster):
    def make_policy(self):
        return GuidedPolicy(**SHAPE, **SMALL)


class TestGuidedWithPriorAndFlows(TestRaster):
    def make_target(self):
        return DiscreteVAE(**SHAPE, channels=4, prior="autoregressive")

    def make_policy(self):
        return GuidedPolicy(**SHAPE, **SMALL, flow=True)


class TestAnyOrder(TestRaster):
    def make_policy(self):
        return AnyOrderPolicy(**SHAPE, **SMALL)

    def make_space(self):
        return AnyOrderGrid(2, 2, 4)


class TestAnyOrderWithFlows(TestAnyOrder):
    def make_policy(self):
        return AnyOrderPolicy(**SHAPE, **SMALL, flow=True)


class TestBits(PolicyTestCase):
    def make_target(self):
        return BitModel()

    def make_policy(self):
        return BitPolicy()

    def make_space(self):
        return BitSpace()

    def make_x(self):
        return torch.tensor([0, 1, 2])


# -------------------------------------------------------------------------- what the case catches


class Idle(BitPolicy):
    """One layer that nothing asks."""

    def __init__(self):
        super().__init__()
        self.idle = nn.Linear(2, 2)


class Cut(RasterPolicy):
    """What it reads of the image is cut off from the loss."""

    def encode(self, x, given=None):
        with torch.no_grad():
            return super().encode(x, given)


class Undeclared(RasterPolicy):
    log_z_parts = ()


def checked(policy, base=TestBits, objectives=None):
    class Case(base):
        def make_policy(self):
            return policy()

        def make_objectives(self):
            return objectives or super().make_objectives()

    Case().test_training_reaches_every_parameter()


def test_a_layer_that_nothing_asks_is_caught():
    with pytest.raises(AssertionError, match=r"no objective reaches idle\.bias, idle\.weight"):
        checked(Idle)


def test_an_encoder_that_is_cut_off_is_caught():
    with pytest.raises(AssertionError, match=r"no objective reaches encoder\."):
        checked(lambda: Cut(**SHAPE, **SMALL), TestRaster)


def test_parts_of_log_z_have_to_be_declared():
    with pytest.raises(AssertionError, match="not among log_z_parts"):
        checked(lambda: Undeclared(**SHAPE, **SMALL), TestRaster)


def test_objectives_that_the_policy_does_not_serve_are_passed_over():
    with pytest.raises(AssertionError, match="no objective fits"):
        checked(
            lambda: MeanFieldPolicy(**SHAPE, **SMALL),
            TestRaster,
            [TrajectoryBalance(), DetailedBalance()],
        )

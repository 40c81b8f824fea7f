"""Side information weighs in the M-step as much as it says."""

import pytest
import torch
from toy import BitModel, BitPolicy, BitSpace

from gfnem.batch import Batch
from gfnem.em import EM
from gfnem.phases import LearnBeside
from gfnem.schedules import Anneal
from gfnem.side import SideInformation


class Constant(SideInformation):
    """A log-likelihood of 3 nats."""

    def prepare(self, model):
        return "nothing to read"

    def log_likelihood(self, model):
        return torch.tensor(3.0)


@pytest.mark.parametrize(
    ("weight", "m_updates", "expected"),
    [(2.0, 0, -6.0), (Anneal(10.0, 0.0, 10), 5, -15.0), (Anneal(10.0, 0.0, 10), 50, 0.0)],
)
def test_a_weight_may_be_annealed_over_m_updates(weight, m_updates, expected):
    em = EM(BitModel(), BitSpace(), BitPolicy())
    em.clock.m_updates = m_updates
    batch = Batch(em, torch.tensor([0]))
    assert float(LearnBeside(Constant(weight))(batch)) == pytest.approx(expected)
    assert float(batch.figures["side_log_likelihood"]) == 3.0, "reported without its weight"


def test_the_two_methods_must_be_written():
    with pytest.raises(TypeError, match="log_likelihood"):
        SideInformation()

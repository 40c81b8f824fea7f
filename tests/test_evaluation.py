"""One measurement of a run: exact where that is offered, bounded where not."""

import pytest
import torch
from toy import BitModel, BitPolicy, BitSpace

from gfnem.evaluation import figures, summary
from gfnem.running.trained import Trained
from gfnem.target import Target

KINDS = torch.tensor([0, 1, 1, 2])


@pytest.fixture
def run():
    torch.manual_seed(0)
    return Trained(BitModel(), BitSpace(), BitPolicy())


def test_exact_figures(run):
    found = figures(run, KINDS, 2000)
    exact = run.model.log_marginal(KINDS).double()
    torch.testing.assert_close(found["log_p"], exact.detach())
    assert set(found) == {"units", "log_p", "elbo_gap", "ess", "bound"}
    assert (found["elbo_gap"] > -0.05).all() and found["elbo_gap"][3].abs() < 1e-5
    assert ((found["ess"] > 0) & (found["ess"] <= 1.0001)).all()


def test_bounds_where_nothing_is_exact(run, monkeypatch):
    exact = run.model.log_marginal(KINDS).detach().double()
    monkeypatch.setattr(BitModel, "log_marginal", Target.log_marginal)
    found = figures(run, KINDS, 4000)
    torch.testing.assert_close(found["log_p"], exact, atol=0.1, rtol=0)
    assert found["missed"].shape == (4,)


def test_a_summary_is_a_mean_an_observation_and_nll_a_unit():
    parts = [
        {"log_p": torch.tensor([-6.0, -2.0]), "units": torch.tensor([3.0, 1.0]),
         "ess": torch.tensor([0.5, 1.0])},
        {"log_p": torch.tensor([-4.0]), "units": torch.tensor([4.0]), "ess": torch.tensor([0.0])},
    ]  # fmt: skip
    report = summary(parts)
    assert float(report["nll"]) == pytest.approx(12 / 8) and float(report["ess"]) == 0.5
    assert summary([]) == {}

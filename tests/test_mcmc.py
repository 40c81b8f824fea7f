import pytest
import torch
from toy import BitFlips, BitModel, strings

from gfnem.mcmc import metropolis


def chi_square(kind, bias, wrong=False, chains=20_000, steps=60):
    """Pearson's statistic of many chains' ends against the exact posterior, and its freedom."""
    torch.manual_seed(1)
    model = BitModel(scale=0.7)
    moves = BitFlips(bias=bias)
    if wrong:
        propose = moves.propose

        def ignore_ratio(x, z):
            new, log_ratio = propose(x, z)
            return new, log_ratio.masked_fill(log_ratio.isfinite(), 0.0)

        moves.propose = ignore_ratio
    x = torch.tensor([kind])
    z, value, accepted = metropolis(
        moves, model.given(x).log_joint, x, moves.initial(x, chains), steps
    )
    torch.testing.assert_close(value, model.log_joint(x, z).detach())
    assert 0 < accepted.mean() < 1
    counts = (z[0][:, None] == strings(model.sizes[kind])[0]).all(2).sum(0)
    expected = chains * model.posterior(kind)
    return float(((counts - expected).square() / expected).sum())


#: 99.9 % quantiles of chi-square with 3 and 7 degrees of freedom
LIMIT = {0: 16.27, 1: 24.32}


@pytest.mark.parametrize("kind", [0, 1])
@pytest.mark.parametrize("bias", [0.0, 0.6])
def test_chains_end_in_the_exact_distribution(kind, bias):
    assert chi_square(kind, bias) < LIMIT[kind]


def test_the_ratio_of_proposals_matters():
    assert chi_square(1, 0.6, wrong=True) > 10 * LIMIT[1]


def test_no_step_changes_nothing():
    model, moves, x = BitModel(), BitFlips(), torch.tensor([0, 1])
    start = moves.initial(x, 3)
    z, _, accepted = metropolis(moves, model.given(x).log_joint, x, start, 0)
    assert torch.equal(z, start) and (accepted == 0).all()

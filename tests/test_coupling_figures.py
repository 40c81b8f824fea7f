"""Figures of learned couplings: the exact divergence, with edges that the lattice does not have."""

import importlib.util
from pathlib import Path

import pytest
import torch

from gfnem.energies.lattices import neighbours
from gfnem.energies.space import digits

PATH = Path(__file__).parents[1] / "experiments" / "coupling_figures.py"


@pytest.fixture(scope="module")
def figures():
    spec = importlib.util.spec_from_file_location("coupling_figures", PATH)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def listed(coupling: torch.Tensor) -> torch.Tensor:
    spins = 2.0 * digits(2, len(coupling), torch.device("cpu")).double() - 1
    return (spins @ coupling * spins).sum(1).log_softmax(0)


@pytest.mark.parametrize(
    ("side", "spurious"),
    [(3, []), (3, [(0, 4)]), (3, [(0, 4), (1, 5), (4, 8)]), (4, [(0, 5), (5, 10), (3, 9)])],
)
def test_divergence_with_edges_that_are_none_is_that_of_listing(figures, side, spurious):
    torch.manual_seed(side)
    lattice = neighbours(side).double()
    truth = 0.2 * lattice
    noise = torch.randn(side**2, side**2).double() / 10
    coupling = (truth + (noise + noise.T) / 2) * lattice
    coupling[0, 1] = coupling[1, 0] = 0  # an edge that was missed
    for number, (a, b) in enumerate(spurious):
        coupling[a, b] = coupling[b, a] = 0.3 - 0.2 * number
    row = figures.coupling_figures(coupling, truth)
    assert row["spurious"] == len(spurious) and row["missed"] == 1
    p, q = listed(truth), listed(coupling)
    assert row["kl"] == pytest.approx((p.exp() * (p - q)).sum().item(), abs=1e-10)


def test_too_many_of_them_leave_the_divergence_out(figures):
    truth = 0.1 * neighbours(5)
    row = figures.coupling_figures(truth + 0.01 * (1 - torch.eye(25)), truth)
    assert "kl" not in row and row["missed"] == 0

"""The verbs on a hypergrid, and what is refused in words."""

import json

import pytest
import torch
from commands import call, printed, refused

import gfnem
from gfnem.em import EM
from gfnem.energies import Torus
from gfnem.errors import UserError
from gfnem.estimates import jensen_shannon, total_variation
from gfnem.objectives import TrajectoryBalance
from gfnem.rates import Descent, Rates
from gfnem.recipes import posterior
from gfnem.schedules import Anneal
from gfnem.toys import (
    ConditionalPolicy,
    ConditionalTorus,
    Hypergrid,
    HypergridReward,
    TablePolicy,
    Unobserved,
)
from gfnem.toys.data import read_copies
from gfnem.toys.figures import compared, terminal

FLAGS = ["--config=hypergrid", "--accelerator=cpu", "--model.side=5", "--dataset.copies=2",
         "--dataset.interval=20"]  # fmt: skip


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    place = tmp_path_factory.mktemp("toys") / "run"
    assert call("train", *FLAGS, "--max-updates=40", f"--out={place}") == 0
    return place


@pytest.mark.slow
def test_the_verbs(run, capsys, tmp_path):
    figures = json.loads(printed(capsys, "evaluate", run, "--format=json"))
    assert figures["states"] == 50 and figures["structures"] == 25
    assert 0 <= figures["jensen_shannon"] <= figures["worst_jensen_shannon"] < 0.3
    (tmp_path / "copies.txt").write_text("1\n\n0\n")
    lines = printed(capsys, "infer", run, tmp_path / "copies.txt", "-k", 2).splitlines()
    assert [json.loads(line)["observation"] for line in lines] == [1, 0]
    record = json.loads(printed(capsys, "sample", run, "-n", 1))
    assert len(record["latent"]) == 2 and max(record["latent"]) < 5
    page = printed(capsys, "report", run).strip()
    assert "jensen shannon" in open(page, encoding="utf-8").read()
    assert "distribution.png" in {path.name for path in run.iterdir()}
    with pytest.raises(UserError, match="from 0 to 1"):
        gfnem.load(run).infer([2])
    with pytest.raises(UserError, match="one or more"):
        gfnem.load(run).sample(0)
    (tmp_path / "copies.txt").write_text("1\ntwo\n")
    assert "line 2" in refused(capsys, "infer", run, tmp_path / "copies.txt")


def test_files_of_copies(tmp_path):
    path = tmp_path / "copies.txt"
    for text, why in (("3\n", "line 1"), ("-1\n", "line 1"), ("\n", "no number")):
        path.write_text(text)
        with pytest.raises(UserError, match=why):
            read_copies(path, 3)
    path.write_text("2\n0\n")
    assert read_copies(path, 3).tolist() == [2, 0]


def test_plateaus_of_the_divergence():
    log_p = torch.full((4,), 0.25).log()
    for kept, value in ((1, 0.380), (2, 0.216), (3, 0.096), (4, 0.0)):
        log_q = torch.where(torch.arange(4) < kept, 1 / kept, 0.0).log()
        assert jensen_shannon(log_p, log_q).item() == pytest.approx(value, abs=5e-4)
        assert total_variation(log_p, log_q).item() == pytest.approx(1 - kept / 4)


def test_a_start_uniform_over_structures():
    x, reward = torch.arange(2), HypergridReward(6, 2, 1e-3)
    policy = TablePolicy(Hypergrid(6, 2), 2)
    log_pt = terminal(policy.graph, policy, x)
    assert torch.allclose(log_pt.exp(), torch.full((2, 36), 1 / 36).double(), atol=1e-6)
    assert compared(reward, policy.graph, log_pt)["modes"].tolist() == [0, 0]
    one = TablePolicy(Hypergrid(6, 2), 2, start="actions")
    state = one.space.initial_state(x, 1)
    assert one(one.encode(x), state).forward[0, 0].exp().tolist() == pytest.approx([1 / 3] * 3)


@pytest.mark.slow
def test_a_table_learns_the_target():
    torch.manual_seed(0)
    reward = HypergridReward(5, 2, 0.1)
    policy = TablePolicy(Hypergrid(5, 2), 3, "learned")
    recipe = posterior(TrajectoryBalance(), samples=64)
    rates = Rates(policy=Anneal(0.1, 0.002, 200, "exponential"), log_z=0.1, clip=1e6)
    descent = Descent(EM(reward, policy.space, policy, recipe), rates)
    x = torch.arange(3)
    for _ in range(200):
        descent.update(x)
    found = compared(reward, policy.graph, terminal(policy.graph, policy, x))
    assert found["jensen_shannon"].max() < 5e-3


def test_exact_sums_of_lattices():
    model, x = ConditionalTorus(3), torch.tensor([[0.2, -0.1], [0.0, 0.3]])
    for (coupling, field), value in zip(x.tolist(), model.log_marginal(x), strict=True):
        exact = Torus(9, 2, coupling, field).log_partition()
        assert value.item() == pytest.approx(exact.item(), abs=1e-4)
    policy = ConditionalPolicy(9, hidden=8)
    state = Unobserved(9, 2).initial_state(x, 2)
    shares = policy(policy.encode(x), state).forward.exp()
    assert torch.allclose(shares, torch.full_like(shares, 0.5))  # of 9 spins, each with 1
    with pytest.raises(ValueError, match="3 or 4"):
        ConditionalTorus(5)

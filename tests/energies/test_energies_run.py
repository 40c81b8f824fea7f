"""A trained energy: what its verbs say, and its marginals from plain data."""

import json
import math

import pytest
import torch
from commands import call as command

from gfnem import load

pytestmark = pytest.mark.slow
TABLE = "a,b,c\n" + "1,x,u\n2,y,v\n1,x,v\n2,y,u\n" * 10 + "1,,u\n"


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("energies")
    path = folder / "table.csv"
    path.write_text(TABLE)
    flags = [
        "--dataset",
        "TableRows",
        "--dataset.order",
        "any",
        "--policy",
        "AssignmentPolicy",
        "--policy.hidden",
        16,
    ]
    flags += ["--model", "Pairwise", "--rates.model", 0.07, "--recipe.samples", 64]
    words = ["train", "--world", "energies", "--data", path, *flags, "--max-updates", 100]
    assert command(*words, "--out", folder / "run") == 0
    return folder / "run", path


def test_the_command_line_hands_on_how_rows_are_written(tmp_path):
    words = ["train", "--world", "energies", "--dataset", "BinaryImages", "--dataset.block", 2]
    words += ["--data", "bars_and_stripes", "--model", "RBM", "--model.collapsed", "true"]
    words += ["--model.hidden", 4, "--policy.hidden", 8, "--recipe.latents", 2]
    assert command(*words, "--max-updates", 1, "--out", tmp_path / "run") == 0
    run = load(tmp_path / "run")
    for part in (run.space, run.policy):
        assert (part.block, part.order) == (2, "fixed")
    assert run.space.summed == 16 and run.policy.written == 2
    assert run.space.unique_trajectory


def test_missing_entries_are_filled_by_what_goes_with_them(trained):
    records = load(trained[0]).infer(trained[1], k=2, samples=200)
    filled = records[-1]
    assert filled["observation"] == {"a": "1", "b": None, "c": "u"}
    best = filled["latents"][0]
    assert best["latent"] == {"a": "1", "b": "x", "c": "u"} and best["log_prob"] > math.log(0.8)
    total = sum(math.exp(record["log_marginal"]) for record in records[:4])
    assert 0.8 < total <= 1.0001, "the four rows there are have nearly all the mass"
    assert records[0]["exact"]


def test_marginals_sum_to_one_and_have_error_bars(trained):
    run = load(trained[0])
    both = run.marginal([["1", None, None], ["2", None, None]])
    assert sum(math.exp(entry["log_p"]) for entry in both) == pytest.approx(1.0, abs=1e-4)
    assert both[0]["error"] == 0.0 and abs(both[0]["learned"] - both[0]["log_p"]) < 2
    known = run.marginal([["1", "x", "u"]], known=[True, False, False])
    assert known[0]["log_p"] == pytest.approx(both[0]["log_p"], abs=1e-5)


def test_draws_evaluation_and_report(trained, capsys):
    run = load(trained[0])
    torch.manual_seed(0)
    rows = [record["observation"] for record in run.sample(50)]
    assert sum(row["b"] == {"1": "x", "2": "y"}[row["a"]] for row in rows) > 40
    command("evaluate", trained[0], "--format", "json")
    figures = json.loads(capsys.readouterr().out)
    assert figures["exact"] and {"log_z", "log_z_lower", "sampler_kl", "nll"} <= figures.keys()
    assert figures["nll"] < math.log(8), "below what all rows alike would have"
    command("report", trained[0])
    page = (trained[0] / "report.html").read_text()
    assert "couplings" in page.lower() and "log z lower" in page

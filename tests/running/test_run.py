"""A run as its user meets it: plain data in, plain data out."""

import math
from pathlib import Path

import pytest
import torch
from toy import BitModel, BitPolicy, BitSpace

from gfnem.errors import UserError
from gfnem.running.run import Run
from gfnem.target import Target
from gfnem.world import Observed, World


class Kinds(World):
    """Kinds as plain numbers."""

    def read(self, run, source):
        yield Observed(torch.tensor(source), source)


@pytest.fixture
def run():
    torch.manual_seed(0)
    run = Run(BitModel(), BitSpace(), BitPolicy())
    run.world, run.path = Kinds(), Path("runs/bits")
    return run


def test_the_most_probable_structures_come_first(run):
    records = run.infer([0, 1, 2], k=2, samples=400)
    assert [record["observation"] for record in records] == [0, 1, 2]
    for record, kind, places in zip(records, (0, 1, 2), (2, 3, 0), strict=True):
        exact = run.model.posterior(kind)
        best = exact.sort(descending=True).values[:2]
        found = [latent["log_prob"] for latent in record["latents"]]
        assert found == sorted(found, reverse=True)
        torch.testing.assert_close(torch.tensor(found).exp(), best, atol=1e-4, rtol=0)
        assert record["exact"]
        assert all(not any(latent["latent"][places:]) for latent in record["latents"])


def test_log_prob_is_what_bayes_says(run):
    (record,) = run.infer([1], k=8, samples=2000)
    for latent in record["latents"]:
        assert latent["log_prob"] == pytest.approx(latent["log_joint"] - record["log_marginal"])
    assert sum(math.exp(latent["log_prob"]) for latent in record["latents"]) == pytest.approx(1)


def test_an_estimated_marginal_is_no_less_than_what_was_seen(run, monkeypatch):
    monkeypatch.setattr(BitModel, "log_marginal", Target.log_marginal)
    (record,) = run.infer([1], k=8, samples=3)
    assert not record["exact"]
    assert sum(math.exp(latent["log_prob"]) for latent in record["latents"]) <= 1 + 1e-6


def test_draws_of_the_model_are_pairs(run, monkeypatch):
    torch.manual_seed(0)
    records = run.sample(5)
    assert len(records) == 5 and set(records[0]) == {"observation", "latent", "log_joint"}
    monkeypatch.setattr(BitModel, "sample", Target.sample)
    with pytest.raises(UserError, match="runs/bits: BitModel cannot sample"):
        run.sample(5)

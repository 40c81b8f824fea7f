"""The report's core: figures, what is said of them, structures with their probabilities."""

from dataclasses import dataclass

import pytest
import torch
from pages import Page
from torch import Tensor
from toy import BitModel, BitPolicy, BitSpace

from gfnem.batched import Batched
from gfnem.errors import UserError
from gfnem.page import Section, render
from gfnem.report import _short, certificates, curves, general, others, ranked, read_metrics
from gfnem.running.run import Run, measured
from gfnem.world import Observed, Unnamed

X = torch.tensor([0, 1, 1, 0])


class Held:
    """Data of the toy world, as far as a report asks."""

    def validation_batches(self):
        return [X[:3], X[3:]]

    def evaluate(self, run, source):
        return {"bits_known": 0.25}


@pytest.fixture(scope="module")
def run() -> Run:
    torch.manual_seed(0)
    run = Run(BitModel(), BitSpace(), BitPolicy()).requires_grad_(False).eval()
    run.world = Unnamed()
    return run


def text_of(*sections) -> str:
    return Page(render("title", sections)).text


def test_figures_are_those_of_exact_inference(run):
    torch.manual_seed(0)
    figures = measured(run, [X[:3], X[3:]], 200)
    exact = run.model.log_marginal(X)
    assert figures["nll"] == pytest.approx(-exact.mean().item(), abs=1e-5)
    assert figures["exact"] and figures["observations"] == 4 and "missed" not in figures
    torch.manual_seed(0)
    gaps = [
        exact[rows] - run.posterior(X[rows]).log_weights(200)[1].mean(1)
        for rows in (slice(3), slice(3, 4))
    ]
    assert figures["elbo_gap"] == pytest.approx(torch.cat(gaps).mean().item(), abs=1e-5)


def test_a_bound_says_so_and_warns_of_collapse():
    figures = {"nll": 2.0, "elbo_gap": 0.0, "ess": 1.0, "missed": 3.0}
    bound = text_of(
        Section("x", [certificates({**figures, "exact": False}, 8, "word", "line", False)])
    )
    assert "bound 2.0000 nats per word" in bound and "upper bound from 8 draws" in bound
    assert "draws one structure alone agrees with itself" in bound and "+3.000 nats" in bound
    exact = text_of(
        Section("x", [certificates({**figures, "exact": True}, 8, "word", "line", True)])
    )
    assert "Exact: summed over every structure" in exact and "0.69 nats" in exact
    assert exact.count("What it cannot see.") == 4


def test_structures_by_probability():
    keys = ["a", "b", "a", "c"]
    exact = ranked(keys, [0.2, 0.7, 0.2, 0.05], exact=True, sampler=True)
    assert exact == [
        (1, {"model": 0.7, "sampler": 0.25}),
        (0, {"model": 0.2, "sampler": 0.5}),
        (3, {"model": 0.05, "sampler": 0.25}),
    ]
    (first, shares), *_ = ranked(keys, [0.4, 0.3, 0.2, 0.1], exact=False, sampler=False)
    assert first == 0 and shares == {"model (estimate)": pytest.approx(0.6)}
    assert "One other structure is among 4 draws; the model gives 5.0" in others(exact, 2, 4)
    assert others(exact, 3, 4) == "No other structure is among 4 draws."


def test_records_of_any_batch():
    @dataclass
    class Graph(Batched):
        edges: Tensor  # (batch, samples, 2)
        size: Tensor  # (batch, samples)

    graph = Graph(torch.tensor([[[True, False]], [[True, True]]]), torch.tensor([[3], [4]]))
    latents = Unnamed().latents(None, Observed(None, [1, 2]), graph)
    assert latents == [[{"edges": [True, False], "size": 3}], [{"edges": [True, True], "size": 4}]]
    assert _short(latents[1][0]) == '{"edges": [1, 1], "size": 4}'
    assert _short({"words": ["<ä>", 0.123456]}) == '{"words": ["<ä>", 0.1235]}'
    assert len(_short(list(range(1000)))) == 301


def test_the_report_of_a_world_without_one(run):
    torch.manual_seed(0)
    text = text_of(*general(run, Held(), 16))
    assert "x = 0" in text and "z = [" in text and "of 256 drawn" in text
    assert "bits known 0.25" in text and "Negative log-likelihood" in text
    assert text.count("sampler") > 8
    assert text_of(*general(run, None, 16)).count("Negative log-likelihood") == 0


def test_probabilities_of_a_world_without_a_report_are_exact(run):
    """The bars add up: of two places there are four structures, and all are drawn."""
    torch.manual_seed(0)
    z = torch.tensor([[0, 0], [0, 1], [1, 0], [1, 1]])[None]
    x = X[:1]
    expected = (run.model.log_joint(x, z) - run.model.log_marginal(x)[:, None]).exp()
    drawn = run.posterior(x).log_prob(z).exp()[0, expected.argmax()]
    _, examples, _ = general(run, Held(), 4)
    choices = examples.blocks[1].choices
    assert sum(choice.shares["model"] for choice in choices) == pytest.approx(1, abs=1e-5)
    assert choices[0].shares["model"] == pytest.approx(expected.max().item(), abs=1e-5)
    assert choices[0].shares["sampler"] == pytest.approx(drawn.item(), abs=0.1)


def test_curves_of_a_run(tmp_path):
    path = tmp_path / "metrics.csv"
    assert curves(path).blocks == []
    path.write_text("update,val_nll,e_loss\n10,3.5,\n20,3.0,0.5\n")
    assert read_metrics(path)[0] == {"update": 10.0, "val_nll": 3.5}
    text = text_of(curves(path))
    assert "learns the training data by heart" in text and "effective" not in text
    path.write_text("update,val_nll\n10,three\n")
    with pytest.raises(UserError, match=r"metrics.csv: not a table of numbers \(.*three"):
        curves(path)

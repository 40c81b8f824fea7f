"""What a report says of points."""

import pytest
import torch
from pages import Page

from gfnem.mixtures import PetalMixture, PetalPolicy, Petals, PetalSpace
from gfnem.mixtures.world import PointsWorld
from gfnem.page import render
from gfnem.running.run import Run, measured

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def data():
    return Petals(points=60)


@pytest.fixture(scope="module")
def run(data):
    torch.manual_seed(0)
    run = Run(PetalMixture(data.initial_means.tolist()), PetalSpace(4, 4), PetalPolicy())
    run.world = PointsWorld()
    return run.requires_grad_(False).eval()


def text_of(run, data) -> tuple[str, list[str]]:
    torch.manual_seed(0)
    page = Page(render("", PointsWorld().report(run, data, 8)))
    return page.text, page.tags


def test_density_means_posteriors_and_figures(run, data):
    text, tags = text_of(run, data)
    torch.manual_seed(0)
    figures = measured(run, run.world.held_out(data), 8) | data.evaluate(run)
    for name, value in figures.items():
        assert (
            f"{name.replace('_', ' ')} {f'{value:.4g}' if isinstance(value, float) else value}"
            in text
        )
    assert f"{figures['nll']:.4f} nats per point" in text
    assert "super-cluster 3" in text and tags.count("img") == 3


def test_bars_are_the_exact_posterior(run, data):
    _, examples, _ = PointsWorld().report(run, data, 8)
    least = run.model.exact_posterior(data.points).flatten(1).max(1).values.min().item()
    first = examples.blocks[-5]
    assert first.choices[0].shares["model"] == pytest.approx(least, abs=1e-6)
    assert first.choices[0].shares["sampler"] == pytest.approx(1 / 16, abs=1e-4)  # untrained


def test_without_data_the_models_own_points_are_shown(run):
    text, tags = text_of(run, None)
    assert "What was learned" in text and "nats per point" not in text and tags.count("img") == 3


def test_without_a_sampler(data):
    run = Run(
        PetalMixture(data.initial_means.tolist()), PetalSpace(4, 4), PetalPolicy(), has_policy=False
    )
    run.world = PointsWorld()
    text, tags = text_of(run.requires_grad_(False).eval(), data)
    assert "sampler" not in text and "ELBO" not in text and tags.count("img") == 2

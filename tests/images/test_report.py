"""What a report says of images."""

import numpy as np
import pytest
import torch
from pages import Page

from gfnem.images.data import Images
from gfnem.images.grids import RasterGrid
from gfnem.images.model import DiscreteVAE
from gfnem.images.policies import RasterPolicy
from gfnem.images.world import ImagesWorld
from gfnem.page import render
from gfnem.running.run import Run, measured

pytestmark = pytest.mark.slow

SHAPE = {"height": 4, "width": 8, "rows": 1, "columns": 2, "codes": 3}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    path = tmp_path_factory.mktemp("images") / "images.npz"
    generator = np.random.default_rng(0)
    train, test = (generator.integers(0, 2, (size, 4, 8), dtype=np.uint8) for size in (30, 12))
    np.savez(path, x_train=train, x_test=test)
    return Images(str(path), rows=1, columns=2, codes=3, validation=6, test_samples=20)


@pytest.fixture(scope="module", params=[65_536, 0], ids=["exact", "bound"])
def run(request):
    torch.manual_seed(0)
    model = DiscreteVAE(**SHAPE, channels=4, exact_limit=request.param)
    policy = RasterPolicy(**SHAPE, units=6, channels=4)
    run = Run(model, RasterGrid(1, 2, 3), policy)
    run.world = ImagesWorld()
    return run.requires_grad_(False).eval()


def test_images_beside_what_explains_them(run, data):
    torch.manual_seed(0)
    sections = ImagesWorld().report(run, data, 8)
    text = Page(render("", sections)).text
    torch.manual_seed(0)
    figures = measured(run, run.world.held_out(data), 8) | data.evaluate(run)
    for name, value in figures.items():
        assert (
            f"{name.replace('_', ' ')} {f'{value:.4g}' if isinstance(value, float) else value}"
            in text
        )
    exact = run.model.offers("log_marginal")
    assert ("(NLL), bound" in text) != exact
    assert ("What the sampler misses" in text) != exact
    first = sections[1].blocks[1]
    name = "model" if exact else "model (estimate)"
    shares = [choice.shares[name] for choice in first.choices]
    assert shares == sorted(shares, reverse=True) and sum(shares) <= 1 + 1e-4


def test_without_data_the_models_own_images_are_shown(run):
    page = Page(render("", ImagesWorld().report(run, None, 8)))
    assert "Image 4" in page.text and "nats per image" not in page.text
    assert page.tags.count("img") > 8

"""Images from files and from scikit-learn, one whole small run, and its pictures."""

import os
import sys
from pathlib import Path

import numpy as np
import pytest
import pytorch_lightning as pl
import torch

from gfnem.errors import UserError
from gfnem.images.data import Images, read
from gfnem.images.grids import RasterGrid
from gfnem.images.model import DiscreteVAE
from gfnem.images.policies import RasterPolicy
from gfnem.lightning import GFlowNetEM
from gfnem.rates import Rates
from gfnem.recipes import gflownet

DATA = Path(
    os.environ.get(
        "GFNEM_TEST_DATA", Path(__file__).resolve().parents[2].parent / "shared" / "data"
    )
)


def save(path, train=6, test=4, size=(4, 4), **changes):
    generator = np.random.default_rng(0)
    arrays = {
        "x_train": generator.integers(0, 256, (train, *size), dtype=np.uint8),
        "y_train": np.zeros(train, np.uint8),
        "x_test": generator.integers(0, 256, (test, *size), dtype=np.uint8),
        "y_test": np.zeros(test, np.uint8),
    }
    arrays.update(changes)
    np.savez(path, **{name: array for name, array in arrays.items() if array is not None})
    return str(path)


def test_npz_is_binarised_and_split(tmp_path):
    path = save(tmp_path / "a.npz")
    data = Images(path, rows=2, columns=2, codes=3, validation=2)
    with np.load(path) as file:
        grey = file["x_train"]
    wanted = (grey > grey.max() / 2).astype(np.float32)
    assert np.array_equal(data.images("train").numpy(), wanted[:4])
    assert np.array_equal(data.images("validation").numpy(), wanted[4:])
    assert data.facts() == {"height": 4, "width": 4, "rows": 2, "columns": 2, "codes": 3}
    assert data.batch([2, 0]).shape == (2, 4, 4)
    assert torch.equal(data.batch([2, 0])[1], data.images("train")[0])
    assert "4 training, 2 validation and 4 test images of 4x4" in data.summary()


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"x_test": None}, "no array 'x_test'"),
        ({"x_train": np.zeros((6, 4, 4), np.float32)}, "x_train holds float32, not uint8 or bool"),
        ({"x_train": np.zeros((6, 16), np.uint8)}, r"shape \(6, 16\)"),
        ({"x_test": np.zeros((0, 4, 4), np.uint8)}, "test images have shape"),
        ({"x_test": np.zeros((2, 3, 4), np.uint8)}, "training images are 4x4, test images 3x4"),
        ({"x_train": np.full((6, 4, 4), 7, np.uint8)}, "pixels of training images go up to 7"),
        ({"x_test": np.zeros((2, 4, 4), np.uint8)}, "of test images to 0"),
        ({"x_test": np.ones((2, 4, 4), np.bool_)}, "of test images to 1"),
        ({"x_test": np.full((2, 4, 4), 200, np.uint8)}, "every pixel of the test images is white"),
        ({"x_train": np.array([{}], dtype=object)}, "not an .npz file of plain arrays"),
    ],
)
def test_bad_files_are_named(tmp_path, changes, message):
    path = save(tmp_path / "bad.npz", **changes)
    with pytest.raises(UserError, match=message) as caught:
        read(path)
    assert path in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("value", [0, 1, 9])
def test_images_whose_pixels_are_all_alike(tmp_path, value):
    flat = np.full((6, 4, 4), value, np.uint8)
    colour = "white" if value else "black"
    with pytest.raises(UserError, match=f"every pixel of the training images is {colour}"):
        read(save(tmp_path / "flat.npz", x_train=flat, x_test=flat[:2]))


@pytest.mark.parametrize("scale", [1, 3, 255, True])
def test_the_range_is_that_of_the_data(tmp_path, scale):
    generator = np.random.default_rng(0)
    bits = generator.integers(0, 2, (8, 4, 4))
    arrays = bits.astype(bool) if scale is True else (bits * scale).astype(np.uint8)
    train, test = read(save(tmp_path / "bits.npz", x_train=arrays[:6], x_test=arrays[6:]))
    assert np.array_equal(train.numpy(), bits[:6]) and np.array_equal(test.numpy(), bits[6:])


def test_other_images_to_evaluate_are_of_the_same_size(tmp_path):
    data = Images(save(tmp_path / "a.npz"), validation=2)
    other = save(tmp_path / "b.npz", size=(4, 6))
    with pytest.raises(UserError, match=r"b\.npz: images of 4x6, where the run knows 4x4"):
        data.evaluate(None, other)


def test_what_is_no_npz_is_refused(tmp_path):
    with pytest.raises(UserError, match="no such file"):
        read(str(tmp_path / "missing.npz"))
    (tmp_path / "text.npz").write_text("hello")
    np.save(tmp_path / "one.npy", np.zeros(3))
    whole = Path(save(tmp_path / "whole.npz")).read_bytes()
    (tmp_path / "half.npz").write_bytes(whole[: len(whole) // 2])
    for name in ("text.npz", "one.npy", "half.npz"):
        with pytest.raises(UserError, match=f"{name}: not an .npz"):
            read(str(tmp_path / name))
    with pytest.raises(UserError, match="6 training images"):
        Images(save(tmp_path / "few.npz"), validation=6).images("train")


def test_without_scikit_learn_the_remedy_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(UserError, match=r"pip install gfnem\[images\]"):
        read("digits")


def test_public_data_sets_are_read(monkeypatch):
    """Against a stand-in for the hub: splits, the image column, grey levels."""
    datasets = pytest.importorskip("datasets")
    image = pytest.importorskip("PIL.Image")
    grey = np.array([[0, 127], [128, 255]], np.uint8)
    picture = image.fromarray(grey).convert("RGB")
    split = datasets.Dataset.from_dict({"image": [picture, picture]}).cast_column(
        "image", datasets.Image()
    )
    hub = datasets.DatasetDict({"train": split, "test": split})
    monkeypatch.setattr(datasets, "load_dataset", lambda name: {"some/name": hub}[name])
    train, test = read("hf:some/name")
    assert train.tolist() == [[[0, 0], [1, 1]]] * 2 and test.shape == (2, 2, 2)
    with pytest.raises(UserError, match="hf:other: cannot load"):
        read("hf:other")
    hub.pop("test")
    with pytest.raises(UserError, match="no split 'test'"):
        read("hf:some/name")


@pytest.mark.slow
def test_mnist_file():
    path = DATA / "mnist.npz"
    if not path.exists():
        pytest.skip(f"{path} is not there")
    train, test = read(str(path))
    assert train.shape == (60_000, 28, 28) and test.shape == (10_000, 28, 28)
    assert set(test[:100].unique().tolist()) == {0.0, 1.0}
    assert 0.12 < train.mean() < 0.14


@pytest.fixture(scope="module")
def trained():
    pytest.importorskip("sklearn")
    torch.manual_seed(0)
    data = Images(
        "digits", 2, 2, 4, validation=0, interval=150, batch_size=16, test_images=20,
        test_samples=2000,
    )  # fmt: skip
    facts = data.facts()
    module = GFlowNetEM(
        DiscreteVAE(**facts, channels=8, prior="autoregressive"),
        RasterGrid(2, 2, 4),
        RasterPolicy(**facts, channels=8, hidden=32, units=8),
        gflownet(sleep=0.1),
        rates=Rates(policy=3e-3, model=3e-3),
        max_updates=150,
    )
    before = module.model.log_marginal(data.images("test")).mean().item()
    pl.Trainer(
        max_epochs=-1,
        reload_dataloaders_every_n_epochs=1,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    ).fit(module, data)
    return data, module, before


@pytest.mark.slow
def test_training_raises_the_likelihood(trained):
    data, module, before = trained
    assert module.model.log_marginal(data.images("test")).mean().item() > before + 10


@pytest.mark.slow
def test_evaluation_agrees_with_exact_inference(trained):
    data, module, _ = trained
    torch.manual_seed(0)
    report = data.evaluate(module)
    exact = -module.model.log_marginal(data.images("test")[: data.test_images]).mean().item()
    assert report["test_nll"] == pytest.approx(exact, abs=5 * report["test_sampling_error"] + 1e-3)
    assert report["test_elbo"] < -exact
    assert report["test_gap"] == pytest.approx(-report["test_nll"] - report["test_elbo"])


@pytest.mark.slow
def test_pictures_are_drawn(trained, tmp_path):
    data, module, _ = trained
    state = torch.get_rng_state()
    names = data.draw(module, tmp_path / "new")
    assert torch.equal(state, torch.get_rng_state())
    assert names == ["reconstructions.png", "posterior.png", "samples.png", "codes.png"]
    for name in names:
        assert (tmp_path / "new" / name).read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow
def test_components_are_rebuilt_from_their_specs(trained):
    _, module, _ = trained
    again = GFlowNetEM(module.model.spec(), module.space.spec(), module.policy.spec())
    again.load_state_dict(module.state_dict())
    x, z = module.model.sample(3)
    torch.testing.assert_close(again.model.log_joint(x, z), module.model.log_joint(x, z))

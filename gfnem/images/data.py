"""Binary images: from a file, from a public data set, or scikit-learn's digits."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
from torch import Tensor

from gfnem.data import DataModule, digest
from gfnem.errors import UserError
from gfnem.files import read_array
from gfnem.images.drawing import draw_all
from gfnem.images.evaluation import likelihoods, summary
from gfnem.ranges import Amount, Count, PartialShare, Range, Seed

_NAMES = ("x_train", "y_train", "x_test", "y_test")


class Images(DataModule[Tensor]):
    """Images of black and white pixels, and the grid of codes they are to be described by.

    Args:
        path: an `.npz` file with arrays `x_train` and `x_test` of uint8 or bool
            `(images, height, width)` (labels in it are not used), or `hf:NAME`, a data set of that
            name on the Hugging Face hub. None is `digits`: 8x8, bundled with scikit-learn, no
            download.
        rows: of the grid of codes.
        columns: of the grid of codes.
        codes: entries of the dictionary.
        threshold: a pixel is white above this share of the brightest value of the training images.
        validation: training images set aside for validation, the last ones.
        test_images: `evaluate` looks at the first so many test images; None for all.
        test_samples: importance samples for each test image.
        chunk: grids drawn at a time by `evaluate`.
        batch_size: images in a training batch.
        interval: updates between two validations (and checkpoints).
        seed: of the order of the images; that of the run if None.
    """

    world = "images"

    def __init__(
        self,
        path: str | None = None,
        rows: Count = 2,
        columns: Count = 2,
        codes: Annotated[int, Range(2)] = 16,
        threshold: PartialShare = 0.5,
        validation: Amount = 200,
        test_images: Count | None = 1000,
        test_samples: Count = 5000,
        chunk: Count = 20_000,
        batch_size: Count = 32,
        interval: Count = 500,
        seed: Seed | None = None,
    ):
        super().__init__(batch_size, interval, seed)
        self.source, self.threshold = path or "digits", threshold
        self.rows, self.columns, self.codes = rows, columns, codes
        self.validation, self.chunk = validation, chunk
        self.test_images, self.test_samples = test_images, test_samples
        self._images: dict[str, Tensor] | None = None

    def images(self, part: str) -> Tensor:
        """`(images, height, width)` floats, 0 or 1; `part` is "train", "validation" or "test".

        Raises:
            UserError: if the source cannot be read or has too few images.
        """
        if self._images is None:
            train, test = read(self.source, self.threshold)
            if len(train) <= self.validation:
                raise UserError(
                    f"{self.source}: {len(train)} training images, of which "
                    f"{self.validation} are to be set aside for validation"
                )
            kept = len(train) - self.validation
            self._images = {"train": train[:kept], "validation": train[kept:], "test": test}
        return self._images[part]

    def facts(self) -> dict[str, Any]:
        """Height and width of the images, and the grid."""
        _, height, width = self.images("train").shape
        return {
            "height": height,
            "width": width,
            "rows": self.rows,
            "columns": self.columns,
            "codes": self.codes,
        }

    def sizes(self) -> Sequence[int]:
        """All images are of one size."""
        return [1] * len(self.images("train"))

    def batch(self, indices: Sequence[int]) -> Tensor:
        """`(len(indices), height, width)` training images."""
        return self.images("train")[torch.as_tensor(indices)]

    def validation_batches(self) -> list[Tensor]:
        """The images set aside, 500 at a time."""
        held_out = self.images("validation")
        return list(held_out.split(500)) if len(held_out) else []

    def metadata(self) -> dict[str, Any]:
        """How images were made black and white."""
        return {"threshold": self.threshold}

    def fingerprint(self) -> dict[str, str]:
        """Digests of the training and of the validation images."""
        parts = {"training": "train", "held_out": "validation"}
        return {name: digest(self.images(part)) for name, part in parts.items()}

    def summary(self) -> str:
        """Counts and sizes."""
        train, test = self.images("train"), self.images("test")
        height, width = train.shape[1:]
        return (
            f"{self.source}: {len(train)} training, {self.validation} validation and {len(test)} "
            f"test images of {height}x{width}, {train.mean():.1%} of the pixels white; "
            f"{self.rows}x{self.columns} cells of {self.codes} codes"
        )

    def evaluate(self, module: Any, path: str | None = None) -> dict[str, float]:
        """Importance-sampled likelihood of test images, with the sampler as proposal.

        Args:
            module: a `GFlowNetEM`.
            path: another source whose test images are to be used.

        Returns:
            `test_nll` (nats an image, an upper bound in expectation), `test_elbo`, `test_gap` and
            the rest of `evaluation.summary`.
        """
        images = self.images("test") if path is None else read(path, self.threshold)[1]
        known = self.images("train").shape[1:]
        if images.shape[1:] != known:
            sizes = [f"{height}x{width}" for height, width in (images.shape[1:], known)]
            raise UserError(f"{path}: images of {sizes[0]}, where the run knows {sizes[1]}")
        images = images[: self.test_images].to(module.device)
        figures = likelihoods(
            module.model, module.space, module.policy, images, self.test_samples, self.chunk
        )
        return {f"test_{name}": value for name, value in summary(figures).items()}

    def draw(self, module: Any, folder: Any) -> list[str]:
        """Pictures of reconstructions, posterior samples, model samples and code grids."""
        return draw_all(module, self.images("test").to(module.device), Path(folder))


def read(source: str, threshold: float = 0.5) -> tuple[Tensor, Tensor]:
    """Training and test images of a source, as `Images` describes it; floats, 0 or 1.

    Raises:
        UserError: if the source cannot be read or does not hold images.
    """
    if source == "digits":
        train, test = _digits()
    elif source.startswith("hf:"):
        train, test = _hub(source)
    else:
        train, test = _npz(source)
    for name, images in (("training", train), ("test", test)):
        if images.ndim != 3 or not images.size:
            raise UserError(
                f"{source}: {name} images have shape {images.shape}, not (images, height, width)"
            )
    if train.shape[1:] != test.shape[1:]:
        raise UserError(
            f"{source}: training images are {train.shape[1]}x{train.shape[2]}, "
            f"test images {test.shape[1]}x{test.shape[2]}"
        )
    brightest = int(train.max())
    if not brightest / 2 <= test.max() <= brightest * 2:
        raise UserError(
            f"{source}: pixels of training images go up to {brightest}, of test images to "
            f"{test.max()}; both must be of one range"
        )
    binary = [torch.from_numpy(images > threshold * brightest).float() for images in (train, test)]
    for name, images in zip(("training", "test"), binary, strict=True):
        if images.min() == images.max():
            colour = "white" if images.max() else "black"
            raise UserError(
                f"{source}: every pixel of the {name} images is {colour}: nothing is brighter "
                f"or darker than {threshold:g} of {brightest}, the brightest value there is"
            )
    return binary[0], binary[1]


def as_images(source: Any, threshold: float = 0.5) -> Tensor:
    """`(images, height, width)` floats, 0 or 1, of an array, or of the `.npy` file of one.

    Args:
        source: an array or tensor `(images, height, width)`, or a path.
        threshold: a pixel is white above this share of the brightest value.

    Raises:
        UserError: if it holds no such images.
    """
    name = source if isinstance(source, (str, os.PathLike)) else "these images"
    array = read_array(source) if name is source else source
    try:
        images = torch.as_tensor(np.asarray(array), dtype=torch.float)
    except (TypeError, ValueError) as error:
        raise UserError(f"{name}: not an array of numbers ({error})") from error
    if images.dim() != 3 or not images.numel():
        raise UserError(f"{name}: shape {tuple(images.shape)}, not (images, height, width)")
    if not torch.isfinite(images).all():
        raise UserError(f"{name}: some pixels are not finite numbers")
    return (images > threshold * images.max()).float()


def _digits() -> tuple[np.ndarray, np.ndarray]:
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise UserError("the digits come with scikit-learn: pip install gfnem[images]") from error
    images = load_digits().images
    order = np.random.default_rng(0).permutation(len(images))
    return images[order[:1500]], images[order[1500:]]


def _npz(path: str) -> tuple[np.ndarray, np.ndarray]:
    arrays = {}
    try:
        with np.load(path, allow_pickle=False) as file:
            for name in ("x_train", "x_test"):
                if name not in file.files:
                    raise UserError(
                        f"{path}: no array {name!r} (wanted: {', '.join(_NAMES)}; "
                        f"found: {', '.join(file.files)})"
                    )
                arrays[name] = file[name]
    except UserError:
        raise
    except FileNotFoundError as error:
        raise UserError(f"{path}: no such file") from error
    except Exception as error:  # there is no end to what damaged bytes can raise
        raise UserError(f"{path}: not an .npz file of plain arrays, or a damaged one") from error
    for name, array in arrays.items():
        if array.dtype not in (np.uint8, np.bool_):
            raise UserError(
                f"{path}: {name} holds {array.dtype}, not uint8 or bool; numbers from 0 to 1 "
                "are made such by (255 * x).astype('uint8')"
            )
    return arrays["x_train"].astype(np.uint8), arrays["x_test"].astype(np.uint8)


def _hub(source: str) -> tuple[np.ndarray, np.ndarray]:
    name = source.removeprefix("hf:")
    try:
        import datasets

        found = datasets.load_dataset(name)
    except Exception as error:  # the hub's client raises whatever its many layers raise
        cause = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(f"{source}: cannot load this data set ({cause})") from error
    parts = []
    for part in ("train", "test"):
        if part not in found:
            raise UserError(f"{source}: no split {part!r} (found: {', '.join(found)})")
        column = next((c for c in ("image", "img") if c in found[part].column_names), None)
        if column is None:
            raise UserError(f"{source}: the split {part!r} has no column 'image'")
        pictures = [np.asarray(row.convert("L")) for row in found[part][column]]
        if len({picture.shape for picture in pictures}) != 1:
            raise UserError(f"{source}: the images of {part!r} are not of one size")
        parts.append(np.stack(pictures))
    return parts[0], parts[1]

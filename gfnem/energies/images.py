"""Images of black and white pixels, by name or from a file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gfnem.energies.space import digits
from gfnem.errors import UserError
from gfnem.files import read_array

#: images that need no file
NAMED = ("digits", "bars_and_stripes")


def bars_and_stripes(side: int) -> Tensor:
    """`(patterns, side * side)` int64: all images whose rows, or columns, are of one colour."""
    lines = digits(2, side, torch.device("cpu"))
    bars = lines[:, :, None].expand(-1, -1, side).flatten(1)
    stripes = lines[:, None].expand(-1, side, -1).flatten(1)
    return torch.cat([bars, stripes]).unique(dim=0)


def load_digits() -> tuple[Tensor, Tensor]:
    """scikit-learn's 8x8 digits, 1,500 to train on and 297 to test, `(images, 8, 8)` int64.

    Raises:
        UserError: if scikit-learn is not installed.
    """
    try:
        from sklearn.datasets import load_digits as load
    except ImportError as error:
        raise UserError("the digits come with scikit-learn: pip install gfnem[images]") from error
    images = torch.from_numpy((load().images > 8).astype(np.int64))
    order = torch.from_numpy(np.random.default_rng(0).permutation(len(images)))
    return images[order[:1500]], images[order[1500:]]


def read_images(source: Any) -> tuple[Tensor, Tensor | None]:
    """Training and maybe test images `(images, height, width)` int64; -1 is missing.

    Args:
        source: an `.npz` file with `x_train` and maybe `x_test`, an `.npy` file or an array. A
            pixel is white above half of the brightest value of its array; NaN is missing.

    Raises:
        UserError: naming file and cause.
    """
    if isinstance(source, (str, Path)) and Path(source).suffix == ".npz":
        try:
            with np.load(source, allow_pickle=False) as file:
                if "x_train" not in file.files:
                    found = ", ".join(file.files)
                    raise UserError(f"{source}: no array x_train (found: {found})")
                arrays = [file[name] for name in ("x_train", "x_test") if name in file.files]
        except FileNotFoundError as error:
            raise UserError(f"{source}: no such file") from error
        except UserError:
            raise
        except Exception as error:  # there is no end to what damaged bytes can raise
            raise UserError(f"{source}: not an .npz file of plain arrays") from error
    else:
        arrays = [read_array(source) if isinstance(source, (str, Path)) else source]
    name = source if isinstance(source, (str, Path)) else "these images"
    made = [_binary(array, str(name)) for array in arrays]
    if len(made) == 2 and made[0].shape[1:] != made[1].shape[1:]:
        raise UserError(f"{name}: training and test images differ in size")
    return made[0], made[1] if len(made) == 2 else None


def _binary(array: Any, name: str) -> Tensor:
    try:
        images = np.asarray(array, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise UserError(f"{name}: not an array of numbers ({error})") from error
    if images.ndim != 3 or not images.size:
        raise UserError(f"{name}: shape {images.shape}, not (images, height, width)")
    if np.isinf(images).any() or np.isnan(images).all():
        raise UserError(f"{name}: pixels must be finite numbers")
    white = images > np.nanmax(images) / 2
    return torch.from_numpy(np.where(np.isnan(images), -1, white).astype(np.int64))

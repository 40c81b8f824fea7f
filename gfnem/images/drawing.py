"""Pictures of what a discrete VAE has learned."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from torch import Tensor


def draw_all(module: Any, images: Tensor, folder: Path) -> list[str]:
    """Draws `reconstructions.png`, `posterior.png`, `samples.png` and `codes.png`.

    Args:
        module: a `GFlowNetEM` with a `DiscreteVAE`.
        images: `(images, height, width)`; the first ones are shown.
        folder: made if missing.

    Returns:
        The names of the files written. The random state is left as it was.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(0)
        figures = {
            "reconstructions.png": reconstructions(module, images[:12]),
            "posterior.png": posterior_samples(module, images[:4]),
            "samples.png": model_samples(module, 48),
            "codes.png": code_grids(module, images[:6]),
        }
    for name, figure in figures.items():
        figure.savefig(folder / name, dpi=120)
    return list(figures)


def reconstructions(module: Any, images: Tensor) -> Figure:
    """Images above the pixel probabilities of their best code grid out of 16 drawn."""
    _, decoded = _best(module, images)
    figure, axes = _grid(2, len(images))
    for column in range(len(images)):
        _picture(axes[0, column], images[column])
        _picture(axes[1, column], decoded[column])
    _label(axes[:, 0], ["image", "decoded"])
    return figure


def posterior_samples(module: Any, images: Tensor, samples: int = 10) -> Figure:
    """Each image beside the decoded grids that the sampler draws for it."""
    z = module.posterior(images).sample(samples)
    decoded = module.model.decode(z).sigmoid()
    figure, axes = _grid(len(images), samples + 1)
    for row in range(len(images)):
        _picture(axes[row, 0], images[row])
        for column in range(samples):
            _picture(axes[row, column + 1], decoded[row, column])
    axes[0, 0].set_title("image", fontsize=8)
    axes[0, 1].set_title("posterior samples, decoded", fontsize=8, loc="left")
    return figure


def model_samples(module: Any, count: int, columns: int = 12) -> Figure:
    """Pixel probabilities of grids drawn from the prior."""
    z = module.model.sample_codes(count)
    decoded = module.model.decode(z[None])[0].sigmoid()
    figure, axes = _grid(-(-count // columns), columns)
    for place, axis in enumerate(axes.flat):
        if place < count:
            _picture(axis, decoded[place])
    return figure


def code_grids(module: Any, images: Tensor) -> Figure:
    """Images, their best code grid out of 16 drawn, and what it decodes to.

    A cell's shade is its dictionary entry; its number is the code, counted by that entry's size.
    """
    model = module.model
    z, decoded = _best(module, images)
    rank = model.dictionary.argsort().argsort()
    figure, axes = _grid(3, len(images), size=1.1)
    for column in range(len(images)):
        values = model.dictionary[z[column]].view(model.rows, model.columns)
        numbers = rank[z[column]].view(model.rows, model.columns)
        _picture(axes[0, column], images[column])
        low, high = model.dictionary.min().item(), model.dictionary.max().item()
        axes[1, column].imshow(values.cpu().numpy(), cmap="viridis", vmin=low, vmax=high)
        for (row, place), number in np.ndenumerate(numbers.cpu().numpy()):
            axes[1, column].text(
                place, row, str(number), ha="center", va="center", color="w", fontsize=7
            )
        _picture(axes[2, column], decoded[column])
    _label(axes[:, 0], ["image", "codes", "decoded"])
    return figure


def picture(pixels: Tensor) -> Figure:
    """One image, `(height, width)` probabilities of white."""
    figure = Figure(figsize=(1.2, 1.2 * pixels.shape[0] / pixels.shape[1]))
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_axis_off()
    _picture(axes, pixels)
    return figure


def _best(module: Any, images: Tensor) -> tuple[Tensor, Tensor]:
    z = module.posterior(images).sample(16)
    best = module.model.log_joint(images, z).argmax(1)
    z = z[torch.arange(len(z), device=z.device), best]
    return z, module.model.decode(z[:, None])[:, 0].sigmoid()


def _grid(rows: int, columns: int, size: float = 0.8) -> tuple[Figure, np.ndarray]:
    figure = Figure(figsize=(size * columns + 0.6, size * rows + 0.3), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(rows, columns, squeeze=False)
    for axis in axes.flat:
        axis.set_xticks([])
        axis.set_yticks([])
        for spine in axis.spines.values():
            spine.set_visible(False)
    return figure, axes


def _picture(axis: Any, pixels: Tensor) -> None:
    axis.imshow(pixels.cpu().numpy(), cmap="gray", vmin=0, vmax=1)


def _label(axes: np.ndarray, names: list[str]) -> None:
    for axis, name in zip(axes, names, strict=True):
        axis.set_ylabel(name, fontsize=8)

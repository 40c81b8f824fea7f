"""Pictures of energies: density beside data, samples, couplings."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from gfnem.component import build
from gfnem.energies.coding import Coding, PixelCoding, PointCoding
from gfnem.files import write_atomically
from gfnem.running.curves import png

#: cells of a density's picture, and points or images drawn
_CELLS, _POINTS, _IMAGES = 128, 2000, 32


@torch.no_grad()
def pictures(run: Any, data: Any) -> dict[str, tuple[Figure, str]]:
    """What there is to draw of a run: a figure and a caption by file name.

    Draws from torch's global generator.

    Args:
        run: a trained energy.
        data: its data; None where they are not to be had.
    """
    coding = build(run.metadata["coding"], Coding)
    drawn = _drawn(run, coding)
    found: dict[str, tuple[Figure, str]] = {}
    if isinstance(coding, PointCoding):
        found["density.png"] = (
            draw_density(run, coding, data, drawn),
            "The data, the energy's density over the plane (darker is more), and draws of the "
            "sampler where there is one. They should look alike.",
        )
    elif isinstance(coding, PixelCoding) and drawn is not None:
        found["samples.png"] = (
            draw_images(drawn, coding, data),
            "Above images of the data, below draws of the sampler.",
        )
    if run.model.offers("couplings"):
        found["couplings.png"] = (
            draw_matrix(run.model.couplings()),
            "Couplings: red pulls two variables to the same value, blue apart.",
        )
    return found


def draw_all(run: Any, data: Any, folder: Path) -> list[str]:
    """Writes the pictures as PNG files; returns their names."""
    found = pictures(run, data)
    for name, (figure, _) in found.items():
        write_atomically(folder / name, png(figure))
    return list(found)


def _drawn(run: Any, coding: Any) -> Tensor | None:
    """`(rows, visible)` draws of the sampler."""
    if not run.has_policy:
        return None
    nothing = torch.full((1, coding.visible), -1, device=run.device)
    z = run.model.filled(run.posterior(nothing).sample(_POINTS)[0])
    return z[:, : coding.visible].cpu()


def draw_density(run: Any, coding: Any, data: Any, drawn: Tensor | None) -> Figure:
    """Data, density and draws side by side."""
    panels = 2 + (drawn is not None)
    figure = Figure(figsize=(4.2 * panels, 4.4), layout="constrained")
    axes = figure.subplots(1, panels)
    grid = coding.grid
    extent = (*_ends(grid, 0), *_ends(grid, 1))
    if data is not None:
        _scatter(axes[0], coding, data.held_out[:_POINTS].long(), "held-out data")
    cells = min(_CELLS, 2**coding.bits)
    share = (torch.arange(cells).double() + 0.5) / cells
    places = torch.cartesian_prod(share, share)
    rows = grid.encode(grid.low + places * (grid.high - grid.low)).to(run.device)
    value = run.model.log_marginal(rows).cpu().view(cells, cells)
    density = (value - value.max()).exp()
    axes[1].imshow(density.T.numpy(), origin="lower", extent=extent, cmap="Greys", aspect="equal")
    axes[1].set_title("density of the energy")
    if drawn is not None:
        _scatter(axes[2], coding, drawn, "draws of the sampler")
    for axis in axes:
        axis.set(xlim=extent[:2], ylim=extent[2:], aspect="equal")
    return figure


def _ends(grid: Any, axis: int) -> tuple[float, float]:
    return float(grid.low[axis]), float(grid.high[axis])


def _scatter(axes: Axes, coding: Any, rows: Tensor, title: str) -> None:
    axes.scatter(*coding.grid.decode(rows).T.tolist(), s=2, color="#0072B2", linewidths=0)
    axes.set_title(title)


def draw_images(drawn: Tensor, coding: Any, data: Any) -> Figure:
    """A strip of images of the data above a strip of draws."""
    strips = [("draws", drawn[:_IMAGES])]
    if data is not None:
        strips.insert(0, ("data", data.held_out[:_IMAGES]))
    across = _IMAGES // 2
    figure = Figure(figsize=(across * 0.6, 1.5 * len(strips)), layout="constrained")
    for axes, (title, rows) in zip(
        figure.subplots(len(strips), 1, squeeze=False)[:, 0], strips, strict=True
    ):
        images = rows.float().unflatten(1, (coding.height, coding.width))
        images = torch.nn.functional.pad(images, (0, 1, 0, 1), value=0.5)
        lines = [torch.cat(list(part), 1) for part in images.split(across) if len(part) == across]
        if not lines:
            lines = [torch.cat(list(images), 1)]
        axes.imshow(torch.cat(lines).numpy(), cmap="gray", vmin=0, vmax=1)
        axes.set_title(title, fontsize=9)
        axes.set_axis_off()
    return figure


def draw_matrix(matrix: Tensor) -> Figure:
    """Couplings of all pairs, red positive, blue negative."""
    figure = Figure(figsize=(5, 4.4), layout="constrained")
    axes = figure.add_subplot()
    most = float(matrix.abs().max()) or 1.0
    shown = axes.imshow(matrix.detach().cpu().numpy(), cmap="RdBu_r", vmin=-most, vmax=most)
    figure.colorbar(shown)
    axes.set_title("couplings")
    return figure

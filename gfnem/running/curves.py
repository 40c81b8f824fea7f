"""Training curves as pictures."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from gfnem.files import write_atomically

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Rows = Sequence[dict[str, float]]

#: what is drawn: a title, the columns of `metrics.csv`, and what to look for
PANELS = (
    (
        "held-out NLL (nats per unit)",
        ("val_nll",),
        "Falls while the model learns. Flat: it has learned what it can, or training is too slow. "
        "Rising again: it learns the training data by heart.",
    ),
    (
        "held-out ELBO gap (nats per observation)",
        ("val_elbo_gap", "val_free_gap"),
        "How far the sampler is from the model's posterior. Small is good; a gap that grows means "
        "that the model moves faster than the sampler can follow.",
    ),
    (
        "E-loss",
        ("e_loss", "threshold"),
        "The sampler's own loss in training. It need not reach 0 while the model moves; it should "
        "not grow.",
    ),
    (
        "relative effective sample size",
        ("val_ess",),
        "The share of the sampler's draws that count, 1 at best. A sampler that has collapsed also "
        "says 1.",
    ),
)


def draw_curves(rows: Rows, path: str | Path) -> None:
    """Draws the columns of `metrics.csv` over updates; panels without any figure are left out."""
    from matplotlib.figure import Figure

    panels = [
        (title, present)
        for title, names, _ in PANELS
        if (present := [name for name in names if any(name in row for row in rows)])
    ]
    if not panels:
        return
    columns = min(len(panels), 2)
    height = (len(panels) + columns - 1) // columns
    figure = Figure(figsize=(5 * columns, 3.2 * height), layout="constrained")
    for place, (title, names) in enumerate(panels, 1):
        _plot(figure.add_subplot(height, columns, place), rows, title, names)
    write_atomically(path, png(figure))


def draw_panel(rows: Rows, title: str, names: Sequence[str]) -> Figure:
    """Some columns over updates, as a figure of their own."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5, 3.2), layout="constrained")
    _plot(figure.add_subplot(), rows, title, names)
    return figure


def png(figure: Figure, dpi: int = 110) -> bytes:
    """A figure as the bytes of a PNG file."""
    stream = io.BytesIO()
    figure.savefig(stream, format="png", dpi=dpi)
    return stream.getvalue()


def _plot(axes: Axes, rows: Rows, title: str, names: Sequence[str]) -> None:
    names = [name for name in names if any(name in row for row in rows)]
    for name in names:
        points = [(row["update"], row[name]) for row in rows if name in row]
        axes.plot(*zip(*points, strict=True), marker="o", markersize=2.5, label=name)
    if names[0] == "e_loss" and all(row.get("e_loss", 1) > 0 for row in rows):
        axes.set_yscale("log")
    axes.set(title=title, xlabel="update")
    axes.grid(alpha=0.3)
    if len(names) > 1:
        axes.legend()

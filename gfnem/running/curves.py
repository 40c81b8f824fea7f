"""Training curves as a picture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from gfnem.files import write_atomically

#: panels of the figure: title, then the columns of `metrics.csv` drawn in it
PANELS = (
    ("held-out NLL (nats per unit)", ("val_nll",)),
    ("held-out ELBO gap (nats per observation)", ("val_elbo_gap",)),
    ("E-loss", ("e_loss", "threshold")),
    ("relative effective sample size", ("val_ess",)),
)


def draw_curves(rows: Sequence[dict[str, float]], path: str | Path) -> None:
    """Draws the columns of `metrics.csv` over updates; panels without any figure are left out."""
    import io

    from matplotlib.figure import Figure

    panels = [
        (title, present)
        for title, names in PANELS
        if (present := [name for name in names if any(name in row for row in rows)])
    ]
    if not panels:
        return
    columns = min(len(panels), 2)
    height = (len(panels) + columns - 1) // columns
    figure = Figure(figsize=(5 * columns, 3.2 * height), layout="constrained")
    for place, (title, names) in enumerate(panels, 1):
        axes = figure.add_subplot(height, columns, place)
        for name in names:
            points = [(row["update"], row[name]) for row in rows if name in row]
            axes.plot(*zip(*points, strict=True), marker="o", markersize=2.5, label=name)
        if names[0] == "e_loss" and all(row.get("e_loss", 1) > 0 for row in rows):
            axes.set_yscale("log")
        axes.set(title=title, xlabel="update")
        axes.grid(alpha=0.3)
        if len(names) > 1:
            axes.legend()
    stream = io.BytesIO()
    figure.savefig(stream, format="png", dpi=110)
    write_atomically(path, stream.getvalue())

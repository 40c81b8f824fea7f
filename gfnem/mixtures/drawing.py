"""Pictures of the mixture: data and means, posteriors, the log-likelihood's course."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Circle
from torch import Tensor

from gfnem.files import write_atomically
from gfnem.mixtures.policy import learned_posterior

if TYPE_CHECKING:
    from gfnem.mixtures.data import Petals

# Okabe and Ito's palette: tellable apart by colour-blind readers
_PALETTE = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442", "#000000")
_GRID = 160  # pixels of a posterior map's side


@torch.no_grad()
def draw_all(data: Petals, module: Any, folder: Any) -> list[str]:
    """Draws what there is to draw of a trained module.

    `means.png` always; `posterior.png` where a sampler was trained; `likelihood.png` where
    `folder` is a run's and holds its `metrics.csv`.

    Returns:
        The names of the files written into `folder`.
    """
    folder = Path(folder)
    figures = {"means.png": draw_means(data.points, module.model, data.centres)}
    if module.has_policy:
        figures["posterior.png"] = draw_posteriors(data.points, module)
    updates, log_likelihood = _history(folder / "metrics.csv")
    if len(updates) > 1:
        figures["likelihood.png"] = draw_history(updates, log_likelihood)
    for name, figure in figures.items():
        save(figure, folder / name)
    return list(figures)


def save(figure: Figure, path: Any) -> None:
    """Writes a figure as PNG.

    Raises:
        UserError: if the file cannot be written there.
    """
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=110)
    write_atomically(path, content.getvalue())


def draw_means(points: Tensor, model: Any, centres: Tensor | None) -> Figure:
    """Data, learned means with their petals, and the true means where they are known."""
    figure = Figure(figsize=(6, 6), layout="constrained")
    axes = figure.add_subplot()
    axes.scatter(*points.T, s=6, color="#999999", linewidths=0, label="data")
    if centres is not None:
        axes.scatter(
            *centres.T, s=180, marker="o", facecolors="none", edgecolors="black", label="true mean"
        )
    means, offsets = model.means.detach().cpu(), model.offsets.cpu()
    for index, mean in enumerate(means):
        colour = _PALETTE[index % len(_PALETTE)]
        for petal in mean + offsets:
            axes.plot(*zip(mean.tolist(), petal.tolist(), strict=True), color=colour, linewidth=1)
            axes.add_patch(_circle(petal, 2 * model.sd, colour))
        label = "learned mean, petals at 2 sd" if index == 0 else None
        axes.scatter(*mean, s=70, marker="x", color=colour, linewidths=2.5, label=label)
    axes.set_aspect("equal")
    axes.set_title("Data and super-clusters")
    figure.legend(loc="outside lower center", ncols=3, fontsize=8)
    return figure


@torch.no_grad()
def draw_density(points: Tensor, model: Any) -> Figure:
    """Data over the density that the model gives to every place, darker where it is greater."""
    grid, extent = _places(points)
    density = model.log_marginal(grid).exp().unflatten(0, (_GRID, _GRID))
    figure = Figure(figsize=(6, 6), layout="constrained")
    axes = figure.add_subplot()
    axes.imshow(density.numpy(), origin="lower", extent=extent, cmap="Blues")
    axes.scatter(*points.T, s=5, color=_PALETTE[5], alpha=0.6, linewidths=0)
    axes.set_title("Data over the model's density")
    return figure


def draw_posteriors(points: Tensor, module: Any) -> Figure:
    """Exact posterior left, learned one right.

    Above as maps of the plane, each place in the mix of colours of what it may belong to; below
    the joint table of the point whose two latents hang together most.
    """
    grid, extent = _places(points)
    exact, learned = _both(module, grid)
    figure = Figure(figsize=(8, 11.5), layout="constrained")
    axes = figure.subplots(3, 2)
    for column, (title, table) in enumerate((("exact", exact), ("learned", learned))):
        for row, (what, over) in enumerate((("super-cluster", 2), ("petal", 1))):
            image = _blend(table.sum(over)).unflatten(0, (_GRID, _GRID))
            axes[row, column].imshow(image.numpy(), origin="lower", extent=extent)
            axes[row, column].scatter(*points.T, s=2, color="black", alpha=0.4, linewidths=0)
            axes[row, column].set_title(f"{title}: {what}")
    exact, learned = _both(module, points)
    apart = exact.sum(2, keepdim=True) * exact.sum(1, keepdim=True)
    coupled = int(
        (exact * (exact.clamp(min=1e-30) / apart.clamp(min=1e-30)).log()).sum((1, 2)).argmax()
    )
    for axis, table in zip(axes[2], (exact[coupled], learned[coupled]), strict=True):
        _draw_table(axis, table)
    place = ", ".join(f"{value:.2f}" for value in points[coupled].tolist())
    axes[2, 0].set_title(f"exact p(z | x), x = ({place})")
    axes[2, 1].set_title("learned, same x")
    return figure


def draw_history(updates: list[int], log_likelihood: list[float]) -> Figure:
    """Log-likelihood a point, in nats, after so many updates."""
    figure = Figure(figsize=(6, 3.5), layout="constrained")
    axes = figure.add_subplot()
    axes.plot(updates, log_likelihood, color=_PALETTE[0])
    axes.set_xlabel("updates")
    axes.set_ylabel("log-likelihood, nats a point")
    axes.grid(alpha=0.3)
    return figure


def _places(points: Tensor) -> tuple[Tensor, tuple[float, float, float, float]]:
    """`(places, 2)` of a grid over the points, and its left, right, bottom and top."""
    low, high = points.min(0).values - 0.5, points.max(0).values + 0.5
    xs, ys = (torch.linspace(float(low[d]), float(high[d]), _GRID) for d in (0, 1))
    grid = torch.stack(torch.meshgrid(xs, ys, indexing="xy"), -1).reshape(-1, 2)
    return grid, (float(low[0]), float(high[0]), float(low[1]), float(high[1]))


def _both(module: Any, x: Tensor) -> tuple[Tensor, Tensor]:
    x = x.to(module.device)
    learned = learned_posterior(module.policy, module.space, x, module.model)
    return module.model.exact_posterior(x).cpu(), learned.cpu()


def _blend(probability: Tensor) -> Tensor:
    """`(places, 3)` colours from `(places, choices)` probabilities."""
    colours = [
        [int(code[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        for code in (_PALETTE[k % len(_PALETTE)] for k in range(probability.shape[1]))
    ]
    return (probability @ torch.tensor(colours)).clamp(0, 1)


def _draw_table(axes: Axes, table: Tensor) -> None:
    axes.imshow(table.numpy(), cmap="Greys", vmin=0, vmax=1)
    for i, row in enumerate(table.tolist()):
        for j, value in enumerate(row):
            colour = "white" if value > 0.5 else "black"
            axes.text(j, i, f"{value:.2f}", ha="center", va="center", color=colour, fontsize=9)
    axes.set_xlabel("petal")
    axes.set_ylabel("super-cluster")
    axes.set_xticks(range(table.shape[1]))
    axes.set_yticks(range(table.shape[0]))


def _circle(centre: Tensor, radius: float, colour: str) -> Any:
    return Circle(centre.tolist(), radius, fill=False, edgecolor=colour, linewidth=1.2)


def _history(path: Path) -> tuple[list[int], list[float]]:
    """Updates and validated log-likelihoods of a run; empty where no record is found."""
    if not path.is_file():
        return [], []
    with open(path, newline="", encoding="utf-8") as stream:
        rows = [row for row in csv.DictReader(stream) if row.get("val_nll") and row.get("update")]
    return [int(row["update"]) for row in rows], [-float(row["val_nll"]) for row in rows]

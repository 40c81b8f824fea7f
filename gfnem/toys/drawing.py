"""The exact distribution of a sampler beside its target, as pictures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from matplotlib.figure import Figure

from gfnem.files import write_atomically
from gfnem.running.curves import png
from gfnem.toys.figures import graph_of, terminal


@torch.no_grad()
def pictures(run: Any) -> dict[str, tuple[Figure, str]]:
    """A figure and a caption by file name: of structures that are cells of two dimensions.

    Args:
        run: a trained sampler.
    """
    try:
        graph = graph_of(run.space)
    except ValueError:  # too many states
        return {}
    z = graph.latents()[0]
    if z.dim() != 2 or z.shape[1] != 2:
        return {}
    log_pt = terminal(graph, run.policy, torch.zeros(1, dtype=torch.long, device=run.device))
    log_p = run.model.log_joint(graph.x, z[None])[0].log_softmax(0)
    figure = Figure(figsize=(7, 3.4), layout="constrained")
    axes = figure.subplots(1, 2)
    for axis, name, log in zip(axes, ("target", "sampler"), (log_p, log_pt[0]), strict=True):
        table = torch.zeros(int(z.max()) + 1, int(z.max()) + 1)
        table[z[:, 0], z[:, 1]] = log.exp().float()
        axis.imshow(table.T.numpy(), origin="lower", vmin=0, vmax=float(log_p.exp().max()))
        axis.set_title(name)
    return {
        "distribution.png": (
            figure,
            "The target's distribution and the sampler's, exact, on one scale of brightness. They "
            "should look alike.",
        )
    }


def draw_all(run: Any, folder: Path) -> list[str]:
    """Writes `pictures`; returns their names."""
    drawn = pictures(run)
    for name, (figure, _) in drawn.items():
        write_atomically(folder / name, png(figure))
    return list(drawn)

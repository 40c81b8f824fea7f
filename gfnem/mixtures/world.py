"""The world of points in the plane: points are observed, what they belong to is latent."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from gfnem.world import Observed, World

#: points of a batch
_BATCH = 256


class PointsWorld(World):
    """Points `x` in the plane, and `z = (super-cluster, petal)` for each."""

    about = "points in the plane, and the super-cluster and petal of each"
    data = "a .csv, text or .npy file of two columns; without it points are generated"
    config = "mixture"
    modules = (
        "gfnem.mixtures.data",
        "gfnem.mixtures.model",
        "gfnem.mixtures.policy",
        "gfnem.mixtures.space",
    )

    def read(self, run: Any, source: Any) -> Iterator[Observed]:
        """Points of a file, or an array `(points, 2)`."""
        from gfnem.mixtures.data import as_points, read_points

        points = read_points(source) if isinstance(source, (str, Path)) else as_points(source)
        for x in points.split(_BATCH):
            yield Observed(x, x.tolist())

    def latents(self, run: Any, observed: Observed, z: Any) -> list[list[dict[str, int]]]:
        """`{"cluster": ..., "petal": ...}`, both counted from 0."""
        return [
            [{"cluster": cluster, "petal": petal} for cluster, petal in row] for row in z.tolist()
        ]

    def report(self, run: Any, data: Any, samples: int) -> list[Any]:
        """Density beside data, posteriors, figures."""
        from gfnem.mixtures.report import sections

        return sections(run, data, samples)

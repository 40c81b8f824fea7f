"""The world of rows of small whole numbers: an energy of them, and a sampler beside it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from gfnem.world import Observed, World

#: rows of a batch
_BATCH = 256


class EnergiesWorld(World):
    """Rows `x`, and `z` what of a row is latent or missing."""

    about = "rows of bits or of a few values (points, images, spins, tables), and what they lack"
    data = (
        "the name of a set of points (2spirals, 8gaussians, circles, two_moons, pinwheel, "
        "swissroll, checkerboard) or a file"
    )
    config = "energies"
    modules = (
        "gfnem.energies.chains",
        "gfnem.energies.data",
        "gfnem.energies.machines",
        "gfnem.energies.masked",
        "gfnem.energies.models",
        "gfnem.energies.policies",
        "gfnem.energies.recipes",
        "gfnem.energies.space",
        "gfnem.energies.towers",
    )

    def read(self, run: Any, source: Any) -> Iterator[Observed]:
        """Rows of a file or of an array; what is missing is filled by `infer`."""
        for x in run.coding.read(source).split(_BATCH):
            yield self.observed(run, x)

    def observed(self, run: Any, x: Any) -> Observed:
        """Rows as plain data of their kind."""
        return Observed(x, run.coding.shown(x))

    def latents(self, run: Any, observed: Observed, z: Any) -> list[list[Any]]:
        """The complete row, and the latent units where there are any."""
        visible, z = run.coding.visible, run.model.filled(z, likeliest=True)
        rows = [run.coding.shown(row[:, :visible]) for row in z]
        if z.shape[2] == visible:
            return rows
        units = z[:, :, visible:].tolist()
        return [
            [{"row": seen, "latent": unit} for seen, unit in zip(*pair, strict=True)]
            for pair in zip(rows, units, strict=True)
        ]

    def scores(self, run: Any, data: Any, source: str | None) -> dict[str, Any]:
        """The partition sum, and how far the sampler is from the energy."""
        from gfnem.energies.figures import scores

        return scores(run, data)

    def draw(self, run: Any, data: Any, folder: Path) -> list[str]:
        """Density beside data, draws, couplings."""
        from gfnem.energies.drawing import draw_all

        return draw_all(run, data, folder)

    def report(self, run: Any, data: Any, samples: int) -> list[Any]:
        """Pictures and figures."""
        from gfnem.energies.report import sections

        return sections(run, data, samples)

    def run_class(self) -> type:
        """A run that draws from its sampler."""
        from gfnem.energies.run import EnergyRun

        return EnergyRun

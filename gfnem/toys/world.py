"""The world of small worlds: nothing is observed, and what is built has a reward."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from gfnem.world import Observed, World


class ToysWorld(World):
    """`x` is the number of a copy of the sampler, and `z` what is built."""

    about = "a reward alone, and the cell, walk or assignment that it is for; all of it exact"
    data = "a file with the number of a copy of the sampler on each line"
    config = "hypergrid"
    modules = (
        "gfnem.toys.data",
        "gfnem.toys.factors",
        "gfnem.toys.hypergrid",
        "gfnem.toys.network",
        "gfnem.toys.table",
        "gfnem.toys.walks",
    )

    def read(self, run: Any, source: Any) -> Iterator[Observed]:
        """Numbers of copies, in a file or in a list."""
        import torch

        from gfnem.errors import UserError
        from gfnem.toys.data import read_copies

        copies = run.metadata["copies"]
        if isinstance(source, (str, Path)):
            x = read_copies(source, copies)
        else:
            listed = [source] if isinstance(source, int) else list(source)
            if not listed or not all(isinstance(n, int) and 0 <= n < copies for n in listed):
                raise UserError(f"numbers of copies, from 0 to {copies - 1}, are wanted")
            x = torch.tensor(listed)
        yield Observed(x, x.tolist())

    def scores(self, run: Any, data: Any, source: str | None) -> dict[str, Any]:
        """The exact distribution of what is built, beside the target."""
        from gfnem.toys.figures import scores

        return scores(run, data.x.to(run.device))

    def report(self, run: Any, data: Any, samples: int) -> list[Any]:
        """The distribution and its figures."""
        from gfnem.toys.report import sections

        return sections(run, data, samples)

    def run_class(self) -> type:
        """A run that draws from its sampler."""
        from gfnem.toys.run import ToyRun

        return ToyRun

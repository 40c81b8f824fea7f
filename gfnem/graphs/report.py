"""The report of a run on a table: edge probabilities, graphs, equivalence classes, certificates."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from gfnem.page import Block, Section, Table, Text, percent
from gfnem.report import figures_of

if TYPE_CHECKING:
    from gfnem.graphs.data import Measurements


def sections(run: Any, data: Measurements | None, samples: int) -> list[Section]:
    """What was learned, and how good it is.

    Args:
        run: a run on a table.
        data: its data; None where that is not to be had.
        samples: importance samples.
    """
    if data is None:
        return []
    quality: list[Block] = figures_of(run, data, samples)
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(0)
        drawn = run.posterior(data.x).sample(4000)[0]
    names, edges = data.names, drawn.double().mean(0)
    rows = [
        [name, *("" if i == j else percent(float(edges[i, j])) for j in range(len(names)))]
        for i, name in enumerate(names)
    ]
    matrix = Table(["cause", *names], rows, "How probable each edge is, from row to column.")
    return [
        Section("What was learned", [Text(data.summary()), matrix]),
        Section("How good is it?", quality),
    ]

"""The report of a small world: the exact distribution and its distance from the target."""

from __future__ import annotations

from typing import Any

import torch

from gfnem.page import Block, Picture, Row, Section, Table, Text
from gfnem.report import figures_of
from gfnem.running.curves import png
from gfnem.toys.drawing import pictures

ABOUT = (
    "All states are listed, and the probability to end in each structure is summed over every "
    "trajectory. jensen shannon and total variation compare it with R / Z: 0 is perfect, and log "
    "2 = 0.693 or 1 is no overlap. modes: how many modes of the target the sampler gives at least "
    "a quarter of what the target does. nll is minus log Z here."
)


def sections(run: Any, data: Any, samples: int) -> list[Section]:
    """What was learned and how good it is.

    Args:
        run: a trained sampler.
        data: its data; None where that is not to be had.
        samples: importance samples.
    """
    quality: list[Block] = []
    if data is not None:  # first: the figures are those of `gfnem evaluate` with the same seed
        quality = [*figures_of(run, data, samples), Text(ABOUT)]
    drawn: list[Block] = [Picture(png(figure), about) for figure, about in pictures(run).values()]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        rows = [[str(record["latent"]), record["log_joint"]] for record in run.sample(8)]
    learned: list[Block] = [Row(drawn)] if drawn else []
    learned.append(Table(["structure", "log R"], rows, "Draws of the sampler."))
    return [Section("What was learned", learned), Section("How good is it?", quality)]

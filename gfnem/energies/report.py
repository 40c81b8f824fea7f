"""The report of an energy: pictures, examples, figures and what they mean."""

from __future__ import annotations

from typing import Any

import torch

from gfnem.energies.drawing import pictures
from gfnem.page import Block, Picture, Row, Section, Table, Text
from gfnem.report import figures_of
from gfnem.running.curves import png

#: what the figures of `scores` mean
ABOUT = {
    "log_z": "log z: the exact log of the sum of the energy's p~ over all rows.",
    "log_z_annealed": "log z annealed: the same by annealed importance sampling, which needs no "
    "sampler; on average too low.",
    "log_z_lower": "log z lower: the same by the sampler's weighted draws, on average too low. "
    "log z upper: by rows that chains from the data end in, too high where these have mixed.",
    "log_z_learned": "log z learned: what the sampler's own flow says.",
    "sampler_kl": "sampler kl: the divergence of the sampler from the energy, in nats. It cannot "
    "see what the sampler never draws, unless log z is exact.",
    "kl_energy": "kl energy: the exact divergence of the data's distribution from the energy's.",
    "kl_sampler": "kl sampler: the exact divergence of the data's distribution from the sampler's.",
}


def sections(run: Any, data: Any, samples: int) -> list[Section]:
    """What was learned and how good it is.

    Args:
        run: a trained energy.
        data: its data; None where that is not to be had.
        samples: importance samples for each row.
    """
    quality: list[Block] = []
    if data is not None:  # first: the figures are those of `gfnem evaluate` with the same seed
        quality = figures_of(run, data, samples)
        shown = {row[0] for block in quality if isinstance(block, Table) for row in block.rows}
        meant = [text for name, text in ABOUT.items() if name.replace("_", " ") in shown]
        quality.append(Text(" ".join(meant)))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        drawn = [Picture(png(figure), about) for figure, about in pictures(run, data).values()]
        records = run.sample(8) if run.has_policy else []
    learned: list[Block] = [Row(drawn)] if drawn else []
    if records and not drawn:
        rows = [[str(record["latent"]), record["log_joint"]] for record in records]
        learned.append(Table(["row", "log p~"], rows, "Draws of the sampler."))
    return [
        Section("What was learned", learned),
        Section("How good is it?", quality),
    ]

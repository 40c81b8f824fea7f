"""The report of a sampler of sentences."""

from __future__ import annotations

from typing import Any

from gfnem.page import Block, Section, Table, Text
from gfnem.report import DRAWN, EXAMPLES, in_three


def sections(run: Any, data: Any, samples: int, meaning: str) -> list[Section]:
    """What it writes, held-out sentences with their trees, figures.

    Args:
        run: a trained sampler.
        data: its data; None where that is not to be had.
        samples: importance samples for each sentence.
        meaning: what its figures mean.
    """

    def shown() -> tuple[list[Block], list[Block]]:
        about = "Sentences that the sampler writes, each with the tree that it grew on the way."
        rows = [
            [record["observation"], record["latent"] or "", record["log_pf"], record["log_joint"]]
            for record in run.sample(DRAWN)
        ]
        written = Table(["sentence", "tree", "log P_F", "log R"], rows)
        if data is None:
            return [Text(about), written], []
        texts = [" ".join(words) for words in data.held_out().tokens[:EXAMPLES]]
        parsed = [
            [record["observation"], latent["latent"], latent["log_prob"]]
            for record in run.inferences(texts, 1)
            for latent in record["latents"]
        ]
        return [Text(about), written], [Table(["sentence", "tree", "log P_B"], parsed)]

    return in_three(run, data, samples, meaning, "Held-out sentences, parsed", shown)

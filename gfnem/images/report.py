"""The report of a run on images: originals beside reconstructions and codes, samples, figures."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor

from gfnem.images.drawing import code_grids, model_samples, picture, reconstructions
from gfnem.page import Block, Choice, Picture, Posterior, Section, Text
from gfnem.report import (
    BARS,
    EXAMPLE_DRAWS,
    STRUCTURES,
    in_three,
    others,
    ranked,
)
from gfnem.running.curves import png
from gfnem.running.run import Run

if TYPE_CHECKING:
    from gfnem.images.data import Images

#: images shown with their codes
SHOWN = 4


def sections(run: Run, data: Images | None, samples: int) -> list[Section]:
    """What was learned, images with their posterior, and how good it is.

    Args:
        run: a run on images.
        data: its data; None where that is not to be had.
        samples: importance samples for each image.
    """
    meaning = ""
    if data is not None:
        meaning = (
            f"Figures that begin with test are from {data.test_samples:,} draws for each image, in "
            "nats an image: test nll bounds the likelihood, test gap is the ELBO gap, test "
            "effective samples the median number of draws that count."
        )

    def shown() -> tuple[list[Block], list[Block]]:
        images = data.images("test") if data is not None else run.model.sample(8)[0]
        return _learned(run, images), _examples(run, images[:SHOWN])

    return in_three(run, data, samples, meaning, "Examples: images and their grids of codes", shown)


def _learned(run: Run, images: Tensor) -> list[Block]:
    model, blocks = run.model, []
    blocks.append(
        Text(
            f"Each image is described by {model.rows} x {model.columns} codes out of "
            f"{model.codes}; a decoder makes pixels of them."
        )
    )
    if run.has_policy:
        blocks += [
            _image(
                reconstructions(run, images[:8]),
                "Images that were not trained on, above what is left of them after they were "
                "described by codes and decoded. What is lost below, the codes do not hold.",
            ),
            _image(
                code_grids(run, images[:6]),
                "The codes themselves: like shades are like numbers for the decoder.",
            ),
        ]
    caption = (
        "Images that the model makes by itself, from codes of its prior. They look like the data "
        "only if the prior knows which codes go together."
    )
    return [*blocks, _image(model_samples(run, 24, columns=8), caption)]


def _image(figure, caption: str) -> Block:
    return Picture(png(figure, 120), caption, drawing=False)


def _examples(run: Run, images: Tensor) -> list[Block]:
    """Each image with its most probable grids, decoded."""
    model = run.model
    if not run.has_policy:
        return []
    exact = model.log_marginal(images) if model.offers("log_marginal") else None
    z, log_weights = run.posterior(images).log_weights(EXAMPLE_DRAWS)
    weights = log_weights.softmax(1)
    if exact is not None:
        weights = (model.log_joint(images, z) - exact[:, None]).exp()
    blocks: list[Block] = [Text(BARS)]
    for row, image in enumerate(images):
        keys = [tuple(grid) for grid in z[row].tolist()]
        ranks = ranked(keys, weights[row].tolist(), exact is not None, sampler=True)
        choices = []
        for place, shares in ranks[:STRUCTURES]:
            decoded = model.decode(z[row : row + 1, place : place + 1])[0, 0].sigmoid()
            codes = " ".join(str(code) for code in keys[place])
            choices.append(Choice(shares, _image(picture(decoded), f"codes {codes}")))
        rest = others(ranks, STRUCTURES, EXAMPLE_DRAWS)
        seen = Picture(png(picture(image), 120), "the image", drawing=False)
        blocks.append(Posterior(f"Image {row + 1}", choices, rest, seen, tiles=True))
    return blocks

"""The world of binary images: pixels are observed, a grid of codes is latent."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from gfnem.errors import UserError
from gfnem.world import Observed, World

#: images of a batch
_BATCH = 64


class ImagesWorld(World):
    """Images `x` of black and white pixels, and a grid `z` of dictionary entries for each."""

    about = "images of black and white pixels, and a grid of codes for each"
    data = (
        "an .npz file with uint8 arrays x_train and x_test (images, height, width), or hf:NAME; "
        "without it scikit-learn's 8x8 digits (infer also takes an .npy array of images)"
    )
    config = "dvae"
    modules = (
        "gfnem.images.data",
        "gfnem.images.grids",
        "gfnem.images.guided",
        "gfnem.images.model",
        "gfnem.images.policies",
    )

    def read(self, run: Any, source: Any) -> Iterator[Observed]:
        """Test images of a source, or an array of images; bright pixels are white."""
        from gfnem.images.data import as_images, read

        threshold = run.metadata.get("threshold", 0.5)
        if isinstance(source, (str, Path)) and Path(source).suffix != ".npy":
            images = read(str(source), threshold)[1]
        else:
            images = as_images(source, threshold)
        size, known = tuple(images.shape[1:]), (run.model.height, run.model.width)
        if size != known:
            raise UserError(
                f"{source if isinstance(source, (str, Path)) else 'these'}: images of "
                f"{size[0]}x{size[1]}, where the run knows {known[0]}x{known[1]}"
            )
        for x in images.split(_BATCH):
            yield self.observed(run, x)

    def observed(self, run: Any, x: Any) -> Observed:
        """Images as rows of 0 and 1."""
        return Observed(x, x.int().tolist())

    def latents(self, run: Any, observed: Observed, z: Any) -> list[list[list[list[int]]]]:
        """Grids of codes, row by row."""
        return z.unflatten(2, (run.model.rows, run.model.columns)).tolist()

    def held_out(self, data: Any) -> Iterable[Any]:
        """The test images."""
        return data.images("test")[: data.test_images].split(_BATCH)

    def report(self, run: Any, data: Any, samples: int) -> list[Any]:
        """Reconstructions, codes, samples, figures."""
        from gfnem.images.report import sections

        return sections(run, data, samples)

"""The discrete VAE: a grid of dictionary entries, decoded to binary pixels."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from gfnem.images.grids import Codes
from gfnem.images.networks import CausalNet, Decoder, pyramid
from gfnem.ranges import Amount, Count, Fact
from gfnem.target import GenerativeModel


class DiscreteVAE(GenerativeModel[Tensor, Tensor]):
    """`p(z) p(x|z)`: a grid of codes, a number for each code, Bernoulli pixels.

    The model of van den Oord et al. (2017, arXiv 1711.00937) with dictionary entries of dimension
    1, as in section 5.3 of Hu et al. (2023). Images `x` are `(batch, height, width)` floats, 0 or
    1; latents `z` are `(batch, samples, rows * columns)` int64, cells in raster order.

    Args:
        height: of the images. This and the next four must be given; as constructor arguments they
            may be left out only where the data module tells them.
        width: of the images.
        rows: of the grid; the image halved (rounding up) some number of times.
        columns: of the grid, likewise.
        codes: entries of the dictionary.
        channels: of the decoder.
        prior: "uniform", or "autoregressive" for one that is learned with the decoder.
        prior_width: units of the autoregressive prior for each cell.
        exact_limit: where there are no more grids than this, `log_marginal` sums over all of them.

    Raises:
        ValueError: if the grid does not fit the image or the prior is unknown.
    """

    unit = "image"

    def __init__(
        self,
        height: Fact = None,
        width: Fact = None,
        rows: Fact = None,
        columns: Fact = None,
        codes: Codes = None,
        channels: Count = 32,
        prior: str = "uniform",
        prior_width: Count = 16,
        exact_limit: Amount = 65_536,
    ):
        super().__init__()
        if prior not in ("uniform", "autoregressive"):
            raise ValueError(f"prior is uniform or autoregressive, not {prior!r}")
        sizes = pyramid(height, width, rows, columns)
        self.height, self.width, self.rows, self.columns = height, width, rows, columns
        self.codes, self.cells = codes, rows * columns
        self.exact_limit = exact_limit
        self.dictionary = nn.Parameter(torch.linspace(-1, 1, codes))
        self.decoder = Decoder(sizes, channels)
        self.prior = None
        if prior == "autoregressive":
            self.prior = CausalNet(self.cells, codes, prior_width, 1)

    def draw_values(self, values: Tensor) -> Tensor:
        """Pixel logits `(n, height, width)` of grids of numbers `(n, cells)`."""
        return self.decoder(values.unflatten(1, (self.rows, self.columns)))

    def decode(self, z: Tensor) -> Tensor:
        """Pixel logits `(batch, samples, height, width)` of latents `(batch, samples, cells)`."""
        return self.draw_values(self.dictionary[z].flatten(0, 1)).unflatten(0, z.shape[:2])

    def log_prior_probability(self, z: Tensor) -> Tensor:
        """`log p(z)` in nats, `(...)` for codes `(..., cells)`."""
        if self.prior is None:
            nats = -self.cells * math.log(self.codes)
            return torch.full(z.shape[:-1], nats, device=z.device)
        chosen = self.prior.logits(self.prior.hidden(z)).log_softmax(-1)
        return chosen.gather(-1, z.unsqueeze(-1)).squeeze(-1).sum(-1)

    def log_joint(self, x: Tensor, z: Tensor) -> Tensor:
        """`log p(z) + log p(x|z)` in nats, `(batch, samples)`."""
        logits = self.decode(z)
        shared = torch.einsum("bhw,bshw->bs", x, logits)
        return shared - nn.functional.softplus(logits).sum((2, 3)) + self.log_prior_probability(z)

    def all_codes(self, start: int = 0, stop: int | None = None) -> Tensor:
        """Grids number `start` to `stop`, `(n, cells)`; the last cell's code changes fastest."""
        stop = self.codes**self.cells if stop is None else stop
        number = torch.arange(start, stop, device=self.dictionary.device)
        base = self.codes ** torch.arange(self.cells - 1, -1, -1, device=number.device)
        return number[:, None] // base % self.codes

    def log_joint_of_all(self, x: Tensor, chunk: int = 8192) -> Tensor:
        """`(batch, codes ** cells)` log joint with every grid there is, in nats.

        A grid is decoded once for all images: the likelihood is linear in the pixels.
        """
        columns = []
        for start in range(0, self.codes**self.cells, chunk):
            codes = self.all_codes(start, min(start + chunk, self.codes**self.cells))
            logits = self.decode(codes[None])[0].flatten(1)
            weight = self.log_prior_probability(codes) - nn.functional.softplus(logits).sum(1)
            columns.append(x.flatten(1) @ logits.T + weight)
        return torch.cat(columns, 1)

    def offers(self, hook: str) -> bool:
        """Exact inference only where there are at most `exact_limit` grids."""
        few = self.codes**self.cells <= self.exact_limit
        return super().offers(hook) and (few or hook != "log_marginal")

    def log_marginal(self, x: Tensor) -> Tensor:
        """`(batch,)` exact `log p(x)` in nats; not offered for more than `exact_limit` grids."""
        return self.log_joint_of_all(x).logsumexp(1)

    @torch.no_grad()
    def sample_codes(self, count: int) -> Tensor:
        """`(count, cells)` draws of the prior."""
        if self.prior is None:
            device = self.dictionary.device
            return torch.randint(self.codes, (count, self.cells), device=device)

        def choose(logits: Tensor) -> Tensor:
            return torch.multinomial(logits.softmax(-1), 1).squeeze(-1)

        return self.prior.draw((count,), 0.0, choose)

    @torch.no_grad()
    def sample(self, count: int) -> tuple[Tensor, Tensor]:
        """`count` images `(count, height, width)` and their codes `(count, 1, cells)`."""
        z = self.sample_codes(count)[:, None]
        return torch.bernoulli(self.decode(z).squeeze(1).sigmoid()), z

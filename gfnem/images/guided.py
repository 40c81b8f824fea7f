"""A sampler of code grids that looks at the decoder: a Gaussian guess, corrected by a network."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from gfnem.images.grids import Codes
from gfnem.images.model import DiscreteVAE
from gfnem.images.networks import CausalNet, Filling
from gfnem.images.policies import ImageContext, RasterPolicy
from gfnem.ranges import Amount, Count, Fact, NotNegative, Positive
from gfnem.target import Conditioned


@dataclass
class GuidedContext(ImageContext):
    """What was read off a batch of images, and what the decoder says to it.

    Attributes:
        guess: `(batch, cells)` the numbers the encoder takes the image for.
        centre: `(batch, cells)` these moved one Newton step towards the image.
        root: `(batch, cells, cells)` lower triangular `A`; the Gaussian's precision is `A^T A`.
        dictionary: `(codes,)`.
        prior: the model's, where it is not uniform.
    """

    guess: Tensor
    centre: Tensor
    root: Tensor
    dictionary: Tensor
    prior: CausalNet | None


class GuidedPolicy(RasterPolicy):
    """Code after code, each from a Gaussian approximation of the posterior times a learned factor.

    If cells held any numbers, not only the dictionary's, then near a good guess `p(z|x)` would be
    nearly Gaussian: one Gauss-Newton step from the encoder's guess gives its mean and precision
    (Laplace's approximation; MacKay 2003, chapter 27). Its conditionals, cell given the cells
    before it, weigh the codes, as does a learned prior; a network as in `RasterPolicy` adds what is
    wrong with that. So the sampler follows the model from one M-step to the next without having to
    learn it anew.

    Costs `cells + 1` decoded grids for each image, whatever the number of samples.

    Args:
        height: of the images.
        width: of the images.
        rows: of the grid.
        columns: of the grid.
        codes: entries of the dictionary.
        channels: of the encoder.
        hidden: width of the encoder's output.
        units: of the masked network for each cell.
        layers: of the masked network.
        flow: whether `log F(s|x)` is learned (for objectives that need it).
        trust: the power of the Gaussian at the start; one power for each cell is learned. Small,
            because an untrained decoder's opinion would fix codes before they mean anything.
        guess_weight: of the encoder's squared distance from the corrected guess in the E-loss.
    """

    def __init__(
        self,
        height: Fact = None,
        width: Fact = None,
        rows: Fact = None,
        columns: Fact = None,
        codes: Codes = None,
        channels: Count = 32,
        hidden: Count = 128,
        units: Count = 16,
        layers: Amount = 1,
        flow: bool = False,
        trust: Positive = 0.05,
        guess_weight: NotNegative = 3.0,
    ):
        super().__init__(height, width, rows, columns, codes, channels, hidden, units, layers, flow)
        cells = rows * columns
        self.guess_weight = guess_weight
        self.guess = nn.Linear(hidden, cells)
        nn.init.normal_(self.guess.weight, std=0.02)
        nn.init.zeros_(self.guess.bias)
        self.centre_features = nn.Linear(1, units)
        # counted in tenths, so that small steps of the optimiser go far enough
        self.log_trust = nn.Parameter(torch.full((cells,), math.log(trust) / 10))

    def encode(self, x: Tensor, given: Conditioned | None = None) -> GuidedContext:
        """Reads images `(batch, height, width)` and the decoder of `target`, a `DiscreteVAE`."""
        target = None if given is None else given.target.normalised()
        if not isinstance(target, DiscreteVAE):
            raise TypeError("a guided sampler looks at the decoder of the DiscreteVAE it samples")
        features, whole = self.encoder(x)
        guess, dictionary = self.guess(whole), target.dictionary.detach()
        moved, precision = newton_step(target, x, guess.detach())
        # the step itself is held constant: what moves the centre moves the guess
        centre = guess + (moved - guess).detach()
        features = features + self.centre_features(centre[:, :, None])
        root = lower_root(precision) * (5 * self.log_trust).exp()[:, None]
        log_z = self.log_z_head(whole)
        return GuidedContext(features, log_z, guess, centre, root, dictionary, target.prior)

    def auxiliary_loss(self, context: GuidedContext) -> Tensor:
        """`(batch,)` squared distance of the guess from where the decoder moved it."""
        distance = (context.guess - context.centre.detach()).square().sum(1)
        return self.guess_weight / 2 * distance

    def cell_logits(self, context, codes):
        """See `CodePolicy`; one pass."""
        logits, flows = super().cell_logits(context, codes)
        off = context.dictionary[codes] - context.centre[:, None]
        shift = off @ context.root.tril(-1).mT
        logits = logits + _gaussian(context, shift, slice(None))
        if context.prior is not None:
            with torch.no_grad():
                prior = context.prior.logits(context.prior.hidden(codes))
            logits = logits + prior
        return logits, flows

    def draw_codes(self, context, samples, choose):
        """See `CodePolicy`; cell by cell, as much arithmetic as one pass."""
        batch, cells = context.centre.shape
        shift = context.centre.new_zeros(batch, samples, cells)
        order = iter(range(cells))
        prior = None if context.prior is None else Filling(context.prior, (batch, samples))

        def guided(logits: Tensor) -> Tensor:
            cell = next(order)
            here = slice(cell, cell + 1)
            logits = logits + _gaussian(context, shift[..., here], here).squeeze(2)
            code = choose(logits if prior is None else logits + prior.logits())
            if prior is not None:
                prior.put(code)
            off = context.dictionary[code] - context.centre[:, None, cell]
            shift.add_(off[:, :, None] * context.root[:, None, :, cell])
            return code

        return super().draw_codes(context, samples, guided)


def _gaussian(context: GuidedContext, shift: Tensor, cells: slice) -> Tensor:
    """`(batch, samples, cells, codes)` unnormalised log density of each code in some cells.

    `shift` `(batch, samples, cells)` is what the cells before add to `A (z - centre)`.
    """
    scale = context.root.diagonal(dim1=1, dim2=2)[:, cells, None]
    off = context.dictionary - context.centre[:, cells, None]
    return -0.5 * ((scale * off)[:, None] + shift[..., None]).square()


@torch.no_grad()
def newton_step(
    model: DiscreteVAE, x: Tensor, guess: Tensor, spacing: float = 0.2, longest: float = 0.7
) -> tuple[Tensor, Tensor]:
    """A Gauss-Newton step up `log p(x|v) + log N(v)` over grids of numbers `v`.

    `N` is a Gaussian with the dictionary's mean and variance, in place of the prior. The derivative
    of pixel logits is a quotient of differences over about the distance of two codes: what matters
    is the change from code to code.

    Args:
        model: the decoder.
        x: `(batch, height, width)` images.
        guess: `(batch, cells)` where to start; cut to the dictionary's range.
        spacing: of the differences.
        longest: largest change of a cell.

    Returns:
        The numbers reached, `(batch, cells)`, and the precision at the start,
        `(batch, cells, cells)`.
    """
    dictionary = model.dictionary
    low, high = dictionary.min() - spacing / 2, dictionary.max() + spacing / 2
    mean, variance = dictionary.mean(), dictionary.var(correction=0).clamp(min=1e-3)
    guess = torch.minimum(torch.maximum(guess, low), high)
    step = torch.where(guess > mean, -spacing, spacing)[:, :, None]  # inwards
    eye = torch.eye(guess.shape[1], device=guess.device)
    near = torch.cat([guess[:, None], guess[:, None] + step * eye], 1)
    logits = model.draw_values(near.flatten(0, 1)).flatten(1).unflatten(0, near.shape[:2])
    slope = (logits[:, 1:] - logits[:, :1]) / step
    p = logits[:, :1].sigmoid()
    gradient = (slope * (x.flatten(1)[:, None] - p)).sum(2) - (guess - mean) / variance
    precision = (slope * p * (1 - p)) @ slope.mT + eye / variance
    change = torch.linalg.solve(precision, gradient).clamp(-longest, longest)
    return torch.minimum(torch.maximum(guess + change, low), high), precision


def lower_root(precision: Tensor) -> Tensor:
    """Lower triangular `A` with `A^T A` the given `(batch, n, n)` positive definite matrices.

    `A (z - mean)` is then standard normal, entry `i` of it given by `z[:i + 1]` alone.
    """
    return torch.linalg.cholesky(precision.flip(1, 2)).mT.flip(1, 2)

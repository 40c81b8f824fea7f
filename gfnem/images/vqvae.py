"""The VQ-VAE baseline: nearest codes, straight-through gradients, a prior fitted afterwards."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn

from gfnem.images.grids import Codes
from gfnem.images.model import DiscreteVAE
from gfnem.images.networks import Encoder, Residual, pyramid
from gfnem.images.policies import CodePolicy
from gfnem.ranges import Count, Fact
from gfnem.schedules import Anneal, value_at
from gfnem.target import Conditioned


class NearestCode(CodePolicy[Tensor]):
    """An encoder to one number a cell; the code is the dictionary entry nearest to it.

    As a policy it softens the choice: a code's log weight is minus its squared distance over
    `2 * spread ** 2`, every cell independently. That is the proposal with which a VQ-VAE's
    likelihood is estimated; `fit_spread` chooses `spread`.

    Args:
        height, width: of the images.
        rows, columns, codes: of the grid.
        channels, hidden: of the encoder.
        units: features of each cell, from which its number is read.
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
        units: Count = 32,
    ):
        super().__init__()
        self.encoder = Encoder(pyramid(height, width, rows, columns), channels, units, hidden)
        self.residual = Residual(units)
        self.head = nn.Conv2d(units, 1, 1)
        self.grid, self.codes = (rows, columns), codes
        self.register_buffer("spread", torch.ones(()))

    def values(self, x: Tensor) -> Tensor:
        """`(batch, cells)` the numbers that images `(batch, height, width)` are encoded as."""
        features = self.encoder(x)[0].transpose(1, 2).unflatten(2, self.grid)
        return self.head(self.residual(features)).flatten(1)

    def distances(self, x: Tensor, dictionary: Tensor) -> Tensor:
        """`(batch, cells, codes)` squared distances to the entries of `dictionary` `(codes,)`."""
        return (self.values(x)[:, :, None] - dictionary).square()

    @torch.no_grad()
    def nearest(self, x: Tensor, model: DiscreteVAE) -> Tensor:
        """`(batch, cells)` the dictionary entries nearest to the encoder's values."""
        return self.distances(x, model.dictionary).argmin(2)

    def encode(self, x: Tensor, given: Conditioned | None = None) -> Tensor:
        """`(batch, cells, codes)` log weights under the dictionary of `target`, a `DiscreteVAE`."""
        target = None if given is None else given.target.normalised()
        if not isinstance(target, DiscreteVAE):
            raise TypeError("distances to a dictionary need the DiscreteVAE that has it")
        return -self.distances(x, target.dictionary) / (2 * self.spread.square())

    def cell_logits(self, context, codes):
        """See `CodePolicy`; what other cells hold does not matter."""
        return context[:, None].expand(-1, codes.shape[1], -1, -1), None

    def draw_codes(self, context, samples, choose):
        """See `CodePolicy`."""
        repeated = context[:, None].expand(-1, samples, -1, -1)
        return torch.stack([choose(logits) for logits in repeated.unbind(2)], 2)


def vqvae_loss(model: DiscreteVAE, encoder: NearestCode, x: Tensor, commitment: float) -> Tensor:
    """The VQ-VAE's loss in nats an image (van den Oord et al. 2017, eq. 3).

    Reconstruction through the nearest codes with straight-through gradients, the dictionary pulled
    to the encoder's numbers and, `commitment` times as hard, the numbers to the dictionary.
    """
    values = encoder.values(x)
    code = (values[:, :, None] - model.dictionary).square().argmin(2)
    chosen = model.dictionary[code]
    logits = model.draw_values(values + (chosen - values).detach())
    reconstruction = nn.functional.softplus(logits) - x * logits
    pull = (chosen - values.detach()).square() + commitment * (values - chosen.detach()).square()
    return reconstruction.sum((1, 2)).mean() + pull.sum(1).mean()


def train_vqvae(
    model: DiscreteVAE,
    encoder: NearestCode,
    batch: Callable[[int], Tensor],
    updates: int,
    *,
    commitment: float = 5.0,
    revive_every: int = 100,
    lr: float | Anneal = 1e-3,
) -> float:
    """Trains decoder, dictionary and encoder together.

    A code that went unused for `revive_every` updates is moved to a number the encoder has just
    given; without that, dictionaries collapse to a few entries.

    Args:
        model: its decoder and dictionary are trained; its prior is not touched.
        encoder: trained.
        batch: the images of update number `t`.
        updates: how many.
        commitment: weight of the commitment term; reconstruction is counted in nats, not as a
            normalised square, so this is larger than the 0.25 of the paper.
        revive_every: updates after which unused codes are moved.
        lr: Adam learning rate, a number or an `Anneal` over updates.

    Returns:
        The last loss, in nats an image.
    """
    decoder = [model.dictionary, *model.decoder.parameters()]
    optimizer = torch.optim.Adam([*decoder, *encoder.parameters()])
    used = torch.zeros(model.codes, dtype=torch.bool, device=model.dictionary.device)
    loss = torch.tensor(torch.nan, device=model.dictionary.device)
    for update in range(updates):
        x = batch(update)
        optimizer.param_groups[0]["lr"] = value_at(lr, update)
        loss = vqvae_loss(model, encoder, x, commitment)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_([*decoder, *encoder.parameters()], 100.0)
        optimizer.step()
        with torch.no_grad():
            values = encoder.values(x)
            used[(values[:, :, None] - model.dictionary).square().argmin(2).unique()] = True
            # not at the very end: a code that has just been moved must be trained
            if (update + 1) % revive_every == 0 and update < 0.8 * updates:
                unused = (~used).nonzero().squeeze(1)
                pick = torch.randint(values.numel(), (len(unused),), device=values.device)
                model.dictionary[unused] = values.flatten()[pick]
                used.zero_()
    return loss.item()


def fit_prior(
    model: DiscreteVAE,
    codes: Callable[[int], Tensor],
    updates: int,
    lr: float = 1e-3,
) -> float:
    """Fits the model's autoregressive prior to codes of images; nothing else is changed.

    Args:
        model: whose prior it is.
        codes: the codes for each update, as `model.log_prior_probability` takes them.
        updates: how many.
        lr: Adam's learning rate.

    Returns:
        The last loss, `-log p(z)` in nats an image.

    Raises:
        ValueError: if the model's prior is uniform.
    """
    if model.prior is None:
        raise ValueError("a uniform prior has nothing to fit")
    optimizer = torch.optim.Adam(model.prior.parameters(), lr=lr)
    loss = torch.tensor(torch.nan, device=model.dictionary.device)
    for update in range(updates):
        loss = -model.log_prior_probability(codes(update)).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return loss.item()


@torch.no_grad()
def fit_spread(
    model: DiscreteVAE,
    encoder: NearestCode,
    x: Tensor,
    candidates: Iterable[float] = (0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 0.8),
    samples: int = 200,
) -> float:
    """Sets `encoder.spread` to the candidate with the tightest importance-weighted bound on `x`."""
    bounds = []
    for spread in candidates:
        encoder.spread.fill_(spread)
        context = encoder.encode(x, model.given(x))
        drawn = encoder.sample(context, x, None, samples)
        log_weights = model.log_joint(x, drawn.latent) - drawn.log_behaviour
        bounds.append((log_weights.logsumexp(1).mean().item(), spread))
    best = max(bounds)[1]
    encoder.spread.fill_(best)
    return best

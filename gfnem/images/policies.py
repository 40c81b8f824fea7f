"""Samplers of code grids given an image."""

from __future__ import annotations

import math
from abc import abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from gfnem import sampling
from gfnem.batched import Context
from gfnem.images.grids import EMPTY, Codes, GridState
from gfnem.images.networks import CausalNet, Encoder, Residual, pyramid
from gfnem.policy import Policy, Scores, Step
from gfnem.ranges import Amount, Count, Fact
from gfnem.sampling import Exploration
from gfnem.space import LatentSpace, Trajectories
from gfnem.target import Conditioned


@dataclass
class ImageContext:
    """What was read off a batch of images.

    Attributes:
        features: `(batch, cells, width)`.
        log_z: `(batch,)` learned `log Z(x)` in nats.
    """

    features: Tensor
    log_z: Tensor


class _LogZ(nn.Module):
    """`log Z(x)` in nats from the features of a whole image."""

    def __init__(self, hidden: int, pixels: int):
        super().__init__()
        self.head = nn.Linear(hidden, 1)
        nn.init.zeros_(self.head.weight)
        # an untrained decoder gives each pixel a half
        nn.init.constant_(self.head.bias, -math.log(2))
        self.pixels = pixels

    def forward(self, whole: Tensor) -> Tensor:
        # the head counts nats a pixel, so that small steps of the optimiser go far enough
        return self.pixels * self.head(whole).squeeze(-1)


class CodePolicy(Policy[Tensor, Tensor, GridState, Context]):
    """Policies over `RasterGrid` that score all cells of a grid at once.

    A subclass says how probable each cell's codes are given the cells before it (`cell_logits`) and
    how to draw a grid (`draw_codes`).
    """

    @abstractmethod
    def cell_logits(self, context: Context, codes: Tensor) -> tuple[Tensor, Tensor | None]:
        """Log weights of each cell's codes, and flows, given the cells before it.

        Args:
            context: of the images.
            codes: `(batch, samples, cells)` int64; what a cell holds must not matter to it.

        Returns:
            `(batch, samples, cells, codes)` unnormalised, and `(batch, samples, cells)` log flows
            in nats of the states in which each cell is next, or None.
        """

    @abstractmethod
    def draw_codes(self, context: Context, samples: int, choose) -> Tensor:
        """`(batch, samples, cells)` codes; `choose` draws codes `(...)` from logits `(..., K)`."""

    def forward(self, context: Context, state: GridState) -> Step:
        """Scores the next code of partly filled grids."""
        filled = (state.codes != EMPTY).sum(2)
        logits, flows = self.cell_logits(context, state.codes.clamp(min=0))
        place = filled.clamp(max=logits.shape[2] - 1)[:, :, None]
        if flows is not None:
            flows = flows.gather(2, place).squeeze(2)
            flows = flows.masked_fill(filled == logits.shape[2], 0.0)
        place = place[..., None].expand(-1, -1, -1, logits.shape[3])
        return Step(logits.gather(2, place).squeeze(2), None, flows)

    @torch.no_grad()
    def sample(
        self,
        context: Context,
        x: Tensor,
        space: LatentSpace,
        samples: int,
        exploration: Exploration | None = None,
    ) -> Trajectories:
        """Draws `samples` grids for each image, without autograd or intermediate states."""
        log_behaviour: list[Tensor] = []

        def choose(logits: Tensor) -> Tensor:
            every = torch.ones_like(logits, dtype=torch.bool)
            code, log_drawn = sampling.draw(logits, every, exploration or sampling.ON_POLICY)
            log_behaviour.append(log_drawn)
            return code

        codes = self.draw_codes(context, samples, choose)
        return Trajectories(codes, log_behaviour=torch.stack(log_behaviour).sum(0))

    @torch.no_grad()
    def retrace(
        self, context: Context, x: Tensor, space: LatentSpace, latent: Tensor
    ) -> Trajectories:
        """The one trajectory to each of the given latents `(batch, samples, cells)`."""
        return Trajectories(
            latent, log_behaviour=torch.zeros(latent.shape[:2], device=latent.device)
        )

    def score(
        self, context: Context, space: LatentSpace, trajectories: Trajectories, flows: bool = False
    ) -> Scores:
        """Scores every choice of every grid in one pass."""
        codes = trajectories.latent
        logits, log_flow = self.cell_logits(context, codes)
        log_pf = logits.log_softmax(3).gather(3, codes.unsqueeze(3)).squeeze(3)
        if not flows or log_flow is None:
            log_flow = None
        else:  # a full grid's flow is its reward, which is not the policy's to say
            log_flow = nn.functional.pad(log_flow, (0, 1))
        every = torch.ones_like(codes, dtype=torch.bool)
        log_z = self.log_z(context) if self.offers("log_z") else None
        return Scores(log_pf, torch.zeros_like(log_pf), every, log_z, log_flow)


class RasterPolicy(CodePolicy[ImageContext]):
    """Code after code, each given the image and all codes before it.

    A convolutional encoder reads the image once; a masked network (`CausalNet`) scores all cells
    in one pass. Nothing is assumed independent.

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
    """

    log_z_parts = ("log_z_head",)

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
        layers: Amount = 2,
        flow: bool = False,
    ):
        super().__init__()
        self.encoder = Encoder(pyramid(height, width, rows, columns), channels, units, hidden)
        self.network = CausalNet(rows * columns, codes, units, layers)
        self.log_z_head = _LogZ(hidden, height * width)
        self.flow = nn.Linear(units, 1) if flow else None

    def encode(self, x: Tensor, given: Conditioned | None = None) -> ImageContext:
        """Reads images `(batch, height, width)`."""
        features, whole = self.encoder(x)
        return ImageContext(features, self.log_z_head(whole))

    def log_z(self, context: ImageContext) -> Tensor:
        """`(batch,)` in nats, one for each image."""
        return context.log_z

    def cell_logits(self, context, codes):
        """See `CodePolicy`; one pass."""
        hidden = self.network.hidden(codes, context.features[:, None])
        flows = None
        if self.flow is not None:
            flows = self.flow(hidden.relu()).squeeze(-1) + context.log_z[:, None, None]
        return self.network.logits(hidden), flows

    def draw_codes(self, context, samples, choose):
        """See `CodePolicy`; cell by cell, as much arithmetic as one pass."""
        features = context.features[:, None]
        return self.network.draw((len(features), samples), features, choose)


class AnyOrderPolicy(Policy[Tensor, Tensor, GridState, ImageContext]):
    """Chooses a cell and its code, and which cell to empty, on `AnyOrderGrid`.

    Args:
        height: of the images.
        width: of the images.
        rows: of the grid.
        columns: of the grid.
        codes: entries of the dictionary.
        channels: of the encoder.
        hidden: width of the encoder's output.
        units: of the network that reads partly filled grids, for each cell.
        layers: its residual layers.
        flow: whether `log F(s|x)` is learned.
        backward: whether the backward policy is learned; uniform if not.
    """

    log_z_parts = ("log_z_head",)

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
        layers: Amount = 2,
        flow: bool = False,
        backward: bool = True,
    ):
        super().__init__()
        cells = rows * columns
        self.rows, self.columns = rows, columns
        self.encoder = Encoder(pyramid(height, width, rows, columns), channels, units, hidden)
        self.embedding = nn.Embedding(codes + 1, units)
        self.first = nn.Linear(cells * units, cells * units)
        self.layers = nn.ModuleList(nn.Linear(cells * units, cells * units) for _ in range(layers))
        self.head = nn.Linear(cells * units, cells * codes)
        self.backward_head = nn.Linear(cells * units, cells) if backward else None
        self.flow = nn.Linear(cells * units, 1) if flow else None
        self.log_z_head = _LogZ(hidden, height * width)
        for head in (self.head, self.backward_head, self.flow):
            if head is not None:
                nn.init.normal_(head.weight, std=0.01)

    def encode(self, x: Tensor, given: Conditioned | None = None) -> ImageContext:
        """Reads images `(batch, height, width)`."""
        features, whole = self.encoder(x)
        return ImageContext(features.flatten(1), self.log_z_head(whole))

    def log_z(self, context: ImageContext) -> Tensor:
        """`(batch,)` in nats, one for each image."""
        return context.log_z

    def forward(self, context: ImageContext, state: GridState) -> Step:
        """Scores partly filled grids, `(batch, any number, cells)`."""
        hidden = self.first(self.embedding(state.codes + 1).flatten(2))
        hidden = hidden + context.features[:, None]
        for layer in self.layers:
            hidden = hidden + layer(hidden.relu())
        hidden = hidden.relu()
        flows = None
        if self.flow is not None:
            flows = self.flow(hidden).squeeze(2) + context.log_z[:, None]
        backward = None if self.backward_head is None else self.backward_head(hidden)
        return Step(self.head(hidden), backward, flows)


class MeanFieldPolicy(CodePolicy[Tensor]):
    """Codes that are independent of each other given the image: the variational baseline.

    With the objective `ReverseKL` this is mean-field variational EM, a discrete VAE trained by the
    score function with a leave-one-out baseline.

    Args:
        height: of the images.
        width: of the images.
        rows: of the grid.
        columns: of the grid.
        codes: entries of the dictionary.
        channels: of the encoder.
        hidden: width of the encoder's output.
        units: features of each cell, from which its code is drawn.
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
        self.head = nn.Conv2d(units, codes, 1)
        self.grid = (rows, columns)

    def encode(self, x: Tensor, given: Conditioned | None = None) -> Tensor:
        """`(batch, cells, codes)` log weights for images `(batch, height, width)`."""
        features = self.encoder(x)[0].transpose(1, 2).unflatten(2, self.grid)
        return self.head(self.residual(features)).flatten(2).transpose(1, 2)

    def cell_logits(self, context, codes):
        """See `CodePolicy`; what other cells hold does not matter."""
        return context[:, None].expand(-1, codes.shape[1], -1, -1), None

    def draw_codes(self, context, samples, choose):
        """See `CodePolicy`; cell by cell, so that `choose` sees what it would see elsewhere."""
        repeated = context[:, None].expand(-1, samples, -1, -1)
        return torch.stack([choose(logits) for logits in repeated.unbind(2)], 2)

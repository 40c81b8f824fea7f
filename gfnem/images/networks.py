"""Convolutions between an image and its grid of cells."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def pyramid(height: int, width: int, rows: int, columns: int) -> list[tuple[int, int]]:
    """The sizes met on the way from the image to the grid, each half the last (rounded up).

    Raises:
        ValueError: if halving never meets `rows` x `columns`.
    """
    sizes = [(height, width)]
    while sizes[-1] != (rows, columns):
        if sizes[-1] == (1, 1):
            possible = ", ".join(f"{a}x{b}" for a, b in sizes)
            raise ValueError(f"a grid of {rows}x{columns} is not one of {possible}")
        above, across = sizes[-1]
        sizes.append(((above + 1) // 2, (across + 1) // 2))
    return sizes


def keep_scale(network: nn.Module) -> None:
    """Initialises layers so that signals keep their size through ReLUs (He et al. 2015, eq. 10).

    PyTorch's own start shrinks what passes: images would hardly depend on their codes, and samplers
    would have nothing to go by for a long time.
    """
    for layer in network.modules():
        if isinstance(layer, (nn.Linear, nn.Conv2d)):
            nn.init.normal_(layer.weight, std=(2 / layer.weight[0].numel()) ** 0.5)
            nn.init.zeros_(layer.bias)


class Residual(nn.Module):
    """Two convolutions added to what comes in."""

    def __init__(self, channels: int):
        super().__init__()
        self.first = nn.Conv2d(channels, channels, 3, padding=1)
        self.second = nn.Conv2d(channels, channels, 1)

    def forward(self, features: Tensor) -> Tensor:
        """`(n, channels, rows, columns)` to the same shape."""
        return features + self.second(self.first(features.relu()).relu())


class Encoder(nn.Module):
    """Reads binary images into features of each cell; every cell sees the whole image.

    Args:
        sizes: `pyramid` from image to grid.
        channels: of the convolutions.
        width: features of each cell.
        hidden: of the dense layer that all cells share.
    """

    def __init__(self, sizes: list[tuple[int, int]], channels: int, width: int, hidden: int = 128):
        super().__init__()
        layers: list[nn.Module] = []
        previous = 1
        for _ in sizes[1:]:
            layers += [nn.Conv2d(previous, channels, 3, stride=2, padding=1), nn.ReLU()]
            previous = channels
        cells = sizes[-1][0] * sizes[-1][1]
        self.convolutions = nn.Sequential(*layers)
        self.dense = nn.Linear(previous * cells, hidden)
        self.cells = nn.Linear(hidden, cells * width)
        self.width = width
        keep_scale(self)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Images `(batch, height, width)` to `(batch, cells, width)` and `(batch, hidden)`."""
        features = self.convolutions(2 * x[:, None] - 1).flatten(1)
        whole = self.dense(features).relu()
        return self.cells(whole).unflatten(1, (-1, self.width)), whole


class Decoder(nn.Module):
    """Draws a grid of numbers (dictionary entries of dimension 1) as pixel logits.

    Grids grow by sub-pixel convolutions (Shi et al. 2016, arXiv 1609.05158), which on a CPU take a
    quarter of the time of transposed ones. The last two doublings are one step.

    Args:
        sizes: `pyramid` from image to grid.
        channels: of the convolutions.
    """

    def __init__(self, sizes: list[tuple[int, int]], channels: int):
        super().__init__()
        layers: list[nn.Module] = [nn.Conv2d(1, channels, 3, padding=1), Residual(channels)]
        for size in sizes[-2:1:-1]:
            layers += [nn.ReLU(), _Grow(channels, channels, 2, size)]
        factor = 2 ** min(2, len(sizes) - 1)
        layers += [Residual(channels), nn.ReLU(), _Grow(channels, 1, factor, sizes[0])]
        self.layers = nn.Sequential(*layers)
        keep_scale(self)

    def forward(self, values: Tensor) -> Tensor:
        """`(n, rows, columns)` numbers to `(n, height, width)` logits."""
        return self.layers(values[:, None]).squeeze(1)


class _Grow(nn.Module):
    """`factor` times as high and wide, then cut to `size` (which halving had rounded up)."""

    def __init__(self, channels: int, out: int, factor: int, size: tuple[int, int]):
        super().__init__()
        self.convolution = nn.Conv2d(channels, out * factor**2, 3, padding=1)
        self.shuffle, self.size = nn.PixelShuffle(factor), size

    def forward(self, features: Tensor) -> Tensor:
        height, width = self.size
        return self.shuffle(self.convolution(features))[:, :, :height, :width]


class _BlockLinear(nn.Module):
    """A linear map between `cells` blocks in which a block sees no later block.

    `strict` also hides a block from itself.
    """

    def __init__(self, cells: int, width: int, strict: bool):
        super().__init__()
        mask = torch.ones(cells, cells).tril(-1 if strict else 0)
        mask = mask.repeat_interleave(width, 0).repeat_interleave(width, 1)
        self.register_buffer("mask", mask, persistent=False)
        # the fan-in differs from block to block: the last one sees all, the first next to nothing
        fan_in = mask.sum(1, keepdim=True).clamp(min=width)
        self.weight = nn.Parameter(torch.randn_like(mask) * mask / fan_in.sqrt())
        self.bias = nn.Parameter(torch.zeros(len(mask)))
        self.width, self.strict = width, strict

    def forward(self, blocks: Tensor) -> Tensor:
        """All blocks at once, `(..., cells * width)` to the same shape."""
        return nn.functional.linear(blocks, self.weight * self.mask, self.bias)

    def block(self, cell: int, history: Tensor) -> Tensor:
        """Block `cell` alone, from the blocks it may see, `(..., seen * width)`."""
        rows = slice(cell * self.width, (cell + 1) * self.width)
        seen = (cell if self.strict else cell + 1) * self.width
        return nn.functional.linear(history, self.weight[rows, :seen], self.bias[rows])


class CausalNet(nn.Module):
    """A distribution over grids that scores all cells in one pass, each given those before it.

    A masked network (Germain et al. 2015, MADE) whose units come in one block for each cell.
    Drawing a grid costs as much arithmetic as scoring one: only the next block is computed.

    Args:
        cells, codes: of the grid.
        width: units of a block.
        layers: residual layers after the first.
    """

    def __init__(self, cells: int, codes: int, width: int = 32, layers: int = 2):
        super().__init__()
        self.cells, self.codes, self.width = cells, codes, width
        self.embedding = nn.Embedding(codes, width)
        self.first = _BlockLinear(cells, width, strict=True)
        self.layers = nn.ModuleList(_BlockLinear(cells, width, False) for _ in range(layers))
        self.head = nn.Parameter(torch.randn(cells, width, codes) * 0.1 / width**0.5)
        self.head_bias = nn.Parameter(torch.zeros(cells, codes))

    def hidden(self, codes: Tensor, context: Tensor | float = 0.0) -> Tensor:
        """Features of each cell that depend on the cells before it only.

        Args:
            codes: `(..., cells)` int64.
            context: broadcastable to `(..., cells, width)`, added to the first layer.

        Returns:
            `(..., cells, width)`.
        """
        features = self.first(self.embedding(codes).flatten(-2))
        features = features.unflatten(-1, (self.cells, self.width)) + context
        features = features.flatten(-2)
        for layer in self.layers:
            features = features + layer(features.relu())
        return features.unflatten(-1, (self.cells, self.width))

    def logits(self, hidden: Tensor) -> Tensor:
        """`(..., cells, codes)` unnormalised log probabilities from `hidden`."""
        return torch.einsum("...cw,cwk->...ck", hidden.relu(), self.head) + self.head_bias

    def draw(self, shape: tuple[int, ...], context: Tensor | float, choose) -> Tensor:
        """Fills grids cell by cell, without autograd.

        Args:
            shape: leading axes of what is drawn.
            context: as in `hidden`.
            choose: takes `(*shape, codes)` logits and returns `(*shape,)` codes.

        Returns:
            `(*shape, cells)` codes.
        """
        filling, drawn = Filling(self, shape, context), []
        for _ in range(self.cells):
            drawn.append(choose(filling.logits()))
            filling.put(drawn[-1])
        return torch.stack(drawn, -1)


class Filling:
    """Grids that are being filled by a `CausalNet`: ask for `logits`, `put` a code, and again.

    Args:
        network: scores the next code.
        shape: leading axes of the grids.
        context: as in `CausalNet.hidden`.
    """

    def __init__(self, network: CausalNet, shape: tuple[int, ...], context: Tensor | float = 0.0):
        like = network.head
        context = torch.as_tensor(context, dtype=like.dtype, device=like.device)
        self.context = context.expand(*shape, network.cells, network.width)
        size = network.cells * network.width
        self.network, self.cell = network, 0
        self.seen = [like.new_zeros(*shape, size) for _ in range(len(network.layers) + 1)]

    def logits(self) -> Tensor:
        """`(*shape, codes)` log weights of the next cell's codes; to be asked for once a cell."""
        network, cell = self.network, self.cell
        start, stop = cell * network.width, (cell + 1) * network.width
        features = network.first.block(cell, self.seen[0][..., :start])
        features = features + self.context[..., cell, :]
        for depth, layer in enumerate(network.layers, 1):
            self.seen[depth][..., start:stop] = features.relu()
            features = features + layer.block(cell, self.seen[depth][..., :stop])
        return features.relu() @ network.head[cell] + network.head_bias[cell]

    def put(self, code: Tensor) -> None:
        """Writes `(*shape,)` codes into the next cell."""
        width = self.network.width
        here = slice(self.cell * width, (self.cell + 1) * width)
        self.seen[0][..., here] = self.network.embedding(code)
        self.cell += 1

"""What the gaps of a sentence see of each other."""

from __future__ import annotations

import torch
from torch import Tensor, nn

#: gaps farther apart than this count as so far apart
_FARTHEST = 16


class GapMixing(nn.Module):
    """Lets each gap of a sentence see the others, by how far away they are on which side.

    Gated sums with learned weights for each distance (as in the spatial gating of Liu et al., 2021,
    arXiv 2105.08050, but by distance). All gaps are summed over at once: many short sequences take
    a fraction of the time of a recurrent network, whose steps come one after the other.

    Args:
        size: of a gap's vector.
        heads: groups of units with weights of their own; `size` is a multiple of them.
    """

    def __init__(self, size: int, heads: int = 8):
        super().__init__()
        self.heads = heads if size % heads == 0 else 1
        self.read = nn.Linear(size, 2 * size)
        # at first one half sees what is on the left, the other what is on the right, and some more
        # of what is far away than others
        apart = torch.arange(-_FARTHEST, _FARTHEST + 1)
        head = torch.arange(self.heads)[:, None]
        side = (apart < 0) == (head % 2 == 0)
        decay = torch.exp(-(apart.abs() - 1) / 2.0 ** (head // 2))
        self.distance = nn.Parameter(decay * side * (apart != 0))
        self.write = nn.Linear(size, size)

    def forward(self, gaps: Tensor, counts: Tensor) -> Tensor:
        """`(rows, gaps, size)` what each gap has seen.

        Args:
            gaps: `(rows, gaps, size)`.
            counts: `(rows,)` int64 how many of a row's gaps there are, 1 or more.
        """
        place = torch.arange(gaps.shape[1], device=gaps.device)
        value, gate = self.read(gaps).chunk(2, 2)
        value = value * (gate.sigmoid() * (place < counts[:, None])[..., None])
        apart = (place - place[:, None]).clamp(-_FARTHEST, _FARTHEST) + _FARTHEST
        # (heads, gaps, gaps) by (heads, gaps, rows * size / heads)
        value = value.unflatten(2, (self.heads, -1)).permute(2, 1, 0, 3).flatten(2)
        seen = (self.distance[:, apart] @ value).unflatten(2, (len(gaps), -1))
        return self.write(seen.permute(2, 1, 0, 3).flatten(2))

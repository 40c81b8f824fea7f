"""What potentials of context-free grammars have in common whose words stand in one table."""

from __future__ import annotations

import torch
from torch import Tensor

from gfnem.parsing.inference.potentials import Potentials, kept, relative


class OneContext(Potentials):
    """Potentials under one context; a subclass says which rules there are.

    Attributes:
        start: `(..., N + T)` log weights of the start symbol's child; with a leading axis of
            sentences where each has rules of its own.
        words: `(batch, n, T)` log weight of each word under each preterminal.
        lengths: `(batch,)` int64 sentence lengths in tokens.
    """

    start: Tensor
    words: Tensor

    one_table = False

    @property
    def contexts(self) -> int:
        """One."""
        return 1

    @property
    def max_length(self) -> int:
        """The padded width `n` of the batch, in tokens."""
        return self.words.shape[1]

    @property
    def root(self) -> Tensor:
        """`(..., N)`; see `Potentials`."""
        return self.start[..., : self.labels]

    @kept
    def single(self) -> Tensor:
        """See `Potentials`."""
        return torch.logsumexp(self.start[..., self.labels :] + self.words[:, 0], -1)

    @kept
    def word_weights(self) -> tuple[Tensor, Tensor]:
        """`(batch, n, T)` words in exp space, and their `(batch, n)` log maxima."""
        return relative(self.words)

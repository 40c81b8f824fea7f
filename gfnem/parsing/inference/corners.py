"""What the first and the last word of a span say of its label."""

from __future__ import annotations

import torch
from torch import Tensor

from gfnem.parsing.inference.potentials import Potentials, full_precision

#: log shares of labels are held above this, in nats
LEAST = -12.0
#: a chain of children goes on with at most this probability, so that all chains end
_GOING_ON = 0.999


@torch.no_grad()
def corners(potentials: Potentials) -> tuple[Tensor, Tensor]:
    """Two `(batch, n, N)`: log shares of the labels by the first and by the last word of a span.

    How probable it is that what a label derives begins (ends) with the word, whatever its width:
    the label's left corner, its leftmost child's and so on, in closed form (Jelinek and Lafferty,
    1991, "Computation of the probability of initial substring generation", section 2).

    Args:
        potentials: of rules that do not look at parents. Weights of a label's children count as
            shares of their sum.
    """
    with full_precision(potentials.root):
        words = potentials.words.flatten(2)  # of one context
        relative = (words - words.amax(2, keepdim=True)).exp()
        found = []
        for children in potentials.children():
            inner, leaves = children.softmax(1).split([potentials.labels, words.shape[2]], 1)
            chains = (
                torch.eye(len(inner), dtype=inner.dtype, device=inner.device) - _GOING_ON * inner
            )
            share = relative @ torch.linalg.solve(chains, leaves).T
            logs = share.clamp(min=torch.finfo(share.dtype).tiny).log()
            found.append(logs.log_softmax(2).clamp(min=LEAST))
        return found[0], found[1]

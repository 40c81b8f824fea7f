"""Small random changes of a graph: an edge is added, removed or reversed."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from gfnem.graphs.dags import closure_of
from gfnem.graphs.knowledge import Knowledge
from gfnem.mcmc import LocalMoves


class EdgeMoves(LocalMoves[Any, Tensor]):
    """Structure MCMC (Madigan and York 1995): a uniform neighbour among all that are permitted.

    Graphs are `(batch, samples, n, n)` bool. Neighbours differ by one edge added, removed or
    reversed; how many there are is counted on both sides, as the correction needs it.

    Args:
        knowledge: what is permitted.
    """

    def __init__(self, knowledge: Knowledge):
        self.knowledge = knowledge

    def initial(self, x, samples: int) -> Tensor:
        """The required edges alone."""
        required = self.knowledge.on(x.device).required
        return required.expand(len(x), samples, -1, -1).clone()

    def neighbours(self, z: Tensor) -> Tensor:
        """`(batch, samples, 3, n, n)` bool: edges that can be added, removed, reversed."""
        known = self.knowledge.on(z.device)
        closure = closure_of(z)
        room = torch.ones_like(z)
        if known.max_parents is not None:
            room = (z.sum(-2, keepdim=True) < known.max_parents).expand_as(z)
        add = known.permitted & ~z & ~closure.mT & room
        remove = z & ~known.required
        # an edge can be turned where no other path leads the same way: none goes over a child of
        # the tail that is an ancestor of the head
        detour = z.float() @ closure.float() > 0
        reverse = remove & ~detour & known.permitted.mT & room.mT
        return torch.stack([add, remove, reverse], 2)

    def propose(self, x, z: Tensor) -> tuple[Tensor, Tensor]:
        """A neighbour, each as likely; the correction is the ratio of their numbers."""
        options = self.neighbours(z).flatten(2)
        count = options.sum(2)
        weights = torch.where(count[..., None] > 0, options.float(), 1.0)
        choice = torch.multinomial(weights.flatten(0, 1), 1).view(count.shape)
        n = z.shape[-1]
        kind, edge = choice // (n * n), choice % (n * n)
        place = torch.nn.functional.one_hot(edge, n * n).bool().unflatten(2, (n, n))
        kind = kind[..., None, None]
        new = torch.where(kind == 0, z | place, z & ~place)
        new = torch.where(kind == 2, new | place.mT, new)
        new = torch.where(count[..., None, None] > 0, new, z)
        after = self.neighbours(new).flatten(2).sum(2)
        ratio = count.double().log() - after.double().log()
        return new, ratio.masked_fill(count == 0, -torch.inf)

    def choose(self, accepted: Tensor, new: Tensor, old: Tensor) -> Tensor:
        """The new graph where accepted."""
        return torch.where(accepted[..., None, None], new, old)

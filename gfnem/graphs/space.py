"""Building a directed acyclic graph, one edge after the other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from gfnem.batched import Batched
from gfnem.graphs.dags import bit_masks, bits_of, closure_of
from gfnem.graphs.knowledge import Knowledge
from gfnem.graphs.moves import EdgeMoves
from gfnem.ranges import Amount, Count, Fact
from gfnem.space import LatentSpace


@dataclass
class DagState(Batched):
    """Graphs under construction, as bit masks: a step is some integer operations for each node.

    Attributes:
        parents: `(batch, samples, n)` int64; the parents of each node (see `bit_masks`).
        descendants: `(batch, samples, n)` int64; the nodes that a path leads to from each node.
        joining: `(batch, samples, n)` int64; the nodes that may now become parents of each node.
        added: `(batch, samples)` int64; how many edges there are that can be removed.
        stopped: `(batch, samples)` bool; whether the graph is complete.
    """

    parents: Tensor
    descendants: Tensor
    joining: Tensor
    added: Tensor
    stopped: Tensor

    def _matrix(self, masks: Tensor) -> Tensor:
        return bits_of(masks, masks.shape[-1])

    @cached_property
    def adjacency(self) -> Tensor:
        """`(batch, samples, n, n)` bool; entry `[i, j]` is the edge from `i` to `j`."""
        return self._matrix(self.parents).mT

    @cached_property
    def closure(self) -> Tensor:
        """`(batch, samples, n, n)` bool: whether a path leads from `i` to `j`."""
        return self._matrix(self.descendants)

    @cached_property
    def open_edges(self) -> Tensor:
        """`(batch, samples, n, n)` bool: edges that can be added now."""
        return self._matrix(self.joining).mT


class DagSpace(LatentSpace[Any, Tensor, DagState]):
    """`z` is an adjacency matrix `(batch, samples, n, n)` bool; edges are added in any order.

    Forward action `j * n + i` adds the edge from `i` to `j`, action `n * n` stops; backward actions
    remove it and reopen. Every set of edges that leaves out some is a graph, so that a graph of
    `m` edges that are not required is reached by `m!` trajectories (Deleu et al. 2022, arXiv
    2202.13903).

    Args:
        variables: how many nodes there are.
        max_parents: most parents of a node; any number if None.
        forbidden: `[i, j]` pairs, edges that never are there; none if None.
        required: `[i, j]` pairs, edges that are there from the start; none if None.

    Raises:
        ValueError: if required edges are forbidden, too many or form a cycle.
    """

    def __init__(
        self,
        variables: Fact = None,
        max_parents: Count | None = None,
        forbidden: Sequence[Sequence[Amount]] | None = None,
        required: Sequence[Sequence[Amount]] | None = None,
    ):
        assert variables is not None
        self.variables, self.max_parents = variables, max_parents
        self.knowledge = Knowledge(variables, max_parents, forbidden, required)

    def initial_state(self, x, samples: int) -> DagState:
        """The required edges alone."""
        known = self.knowledge.on(x.device)
        shape = len(x), samples

        def spread(masks: Tensor) -> Tensor:
            return masks.expand(*shape, -1)

        parents, descendants = bit_masks(known.required.mT), bit_masks(known.required_closure)
        none = torch.zeros(shape, dtype=torch.long, device=x.device)
        return self._state(spread(parents), spread(descendants), none, none.bool())

    def _state(
        self, parents: Tensor, descendants: Tensor, added: Tensor, stopped: Tensor
    ) -> DagState:
        """With the nodes that may join: they close no cycle, and there is room for them."""
        joining = self.knowledge.on(parents.device).candidates & ~(parents | descendants)
        if self.max_parents is not None:
            room = bits_of(parents, self.variables).sum(-1) < self.max_parents
            joining = torch.where(room, joining, 0)
        return DagState(parents, descendants, joining, added, stopped)

    def final_state(self, x, z: Tensor) -> DagState:
        """Stopped graphs; their closures are computed."""
        added = (z & ~self.knowledge.on(z.device).required).flatten(2).sum(2)
        stopped = torch.ones(z.shape[:2], dtype=torch.bool, device=z.device)
        return self._state(bit_masks(z.mT), bit_masks(closure_of(z)), added, stopped)

    def to_latent(self, x, state: DagState) -> Tensor:
        """`(batch, samples, n, n)` bool."""
        return state.adjacency

    def is_final(self, state: DagState) -> Tensor:
        """Whether a graph is stopped."""
        return state.stopped

    def is_initial(self, state: DagState) -> Tensor:
        """Whether no edge can be removed."""
        return ~state.stopped & (state.added == 0)

    def forward_mask(self, state: DagState) -> Tensor:
        """`(batch, samples, n * n + 1)`: edges that close no cycle, and to stop."""
        going = ~state.stopped[..., None]
        return torch.cat([state.open_edges.mT.flatten(2), going], 2) & going

    def backward_mask(self, state: DagState) -> Tensor:
        """`(batch, samples, n * n + 1)`: any edge of a graph that is open, or to reopen."""
        stopped = state.stopped[..., None]
        required = self.knowledge.on(stopped.device).required
        edges = (state.adjacency & ~required).mT.flatten(2)
        return torch.cat([edges & ~stopped, stopped], 2)

    def _edge(self, action: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Tail and head `(batch, samples, 1)` of an edge, and whether `(batch, samples)` it is one.

        If it is none the head is `n`, which no node is.
        """
        n = self.variables
        return (action % n)[..., None], (action // n)[..., None], action < n * n

    def step(self, state: DagState, action: Tensor) -> DagState:
        """Adds an edge, or stops."""
        tail, head, is_edge = self._edge(action)
        node = torch.arange(self.variables, device=action.device)
        parents = state.parents | torch.where(node == head, 1 << tail, 0)
        # from the tail, and from all that leads to it, one now comes to the head and on from there
        leads = ((1 << node | state.descendants) >> tail & 1) * is_edge[..., None]
        beyond = state.descendants.gather(2, head.clamp(max=self.variables - 1)) | 1 << head
        descendants = state.descendants | leads * beyond
        return self._state(parents, descendants, state.added + is_edge, state.stopped | ~is_edge)

    def unstep(self, state: DagState, action: Tensor) -> DagState:
        """Removes an edge, the closure computed anew, or reopens."""
        tail, head, is_edge = self._edge(action)
        node = torch.arange(self.variables, device=action.device)
        parents = torch.where(node == head, state.parents & ~(1 << tail), state.parents)
        closure = closure_of(bits_of(parents, self.variables).mT)
        stopped, added = state.stopped & is_edge, state.added - is_edge.long()
        return self._state(parents, bit_masks(closure), added, stopped)

    def backward_action(self, state: DagState, action: Tensor) -> Tensor:
        """The same number."""
        return action

    def forward_action(self, state: DagState, action: Tensor) -> Tensor:
        """The same number."""
        return action

    def moves(self) -> EdgeMoves:
        """An edge is added, removed or reversed."""
        return EdgeMoves(self.knowledge)

"""Building a directed acyclic graph, one edge after the other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from gfnem.batched import Batched
from gfnem.graphs.dags import closure_of
from gfnem.graphs.knowledge import Knowledge
from gfnem.graphs.moves import EdgeMoves
from gfnem.ranges import Amount, Count, Fact
from gfnem.space import LatentSpace


@dataclass
class DagState(Batched):
    """Graphs under construction.

    Attributes:
        adjacency: `(batch, samples, n, n)` bool; entry `[i, j]` is the edge from `i` to `j`.
        closure: `(batch, samples, n, n)` bool; whether a path leads from `i` to `j`.
        addable: `(batch, samples, n, n)` bool; the edges that may be added, cycles apart.
        removable: `(batch, samples, n, n)` bool; the edges that need not be there.
        stopped: `(batch, samples)` bool; whether the graph is complete.
    """

    adjacency: Tensor
    closure: Tensor
    addable: Tensor
    removable: Tensor
    stopped: Tensor

    @cached_property
    def open_edges(self) -> Tensor:
        """`(batch, samples, n, n)` bool: edges that can be added now."""
        return self.addable & ~self.adjacency & ~self.closure.mT


class DagSpace(LatentSpace[Any, Tensor, DagState]):
    """`z` is an adjacency matrix `(batch, samples, n, n)` bool; edges are added in any order.

    Forward action `i * n + j` adds the edge from `i` to `j`, action `n * n` stops; backward actions
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
        shape = len(x), samples, self.variables, self.variables

        def spread(matrix: Tensor) -> Tensor:
            return matrix.expand(shape)

        stopped = torch.zeros(shape[:2], dtype=torch.bool, device=x.device)
        return self._limited(
            DagState(
                spread(known.required),
                spread(known.required_closure),
                spread(known.permitted),
                spread(~known.required),
                stopped,
            )
        )

    def _limited(self, state: DagState) -> DagState:
        """Closes nodes that have as many parents as they may."""
        if self.max_parents is None:
            return state
        permitted = self.knowledge.on(state.adjacency.device).permitted
        full = state.adjacency.sum(-2, keepdim=True) >= self.max_parents
        state.addable = permitted & ~full
        return state

    def final_state(self, x, z: Tensor) -> DagState:
        """Stopped graphs; their closures are computed."""
        known = self.knowledge.on(z.device)
        return self._limited(
            DagState(
                z,
                closure_of(z),
                known.permitted.expand_as(z),
                (~known.required).expand_as(z),
                torch.ones(z.shape[:2], dtype=torch.bool, device=z.device),
            )
        )

    def to_latent(self, x, state: DagState) -> Tensor:
        """`(batch, samples, n, n)` bool."""
        return state.adjacency

    def is_final(self, state: DagState) -> Tensor:
        """Whether a graph is stopped."""
        return state.stopped

    def is_initial(self, state: DagState) -> Tensor:
        """Whether no edge can be removed."""
        return ~state.stopped & ~(state.adjacency & state.removable).flatten(2).any(2)

    def forward_mask(self, state: DagState) -> Tensor:
        """`(batch, samples, n * n + 1)`: edges that close no cycle, and to stop."""
        going = ~state.stopped[..., None]
        return torch.cat([state.open_edges.flatten(2), going], 2) & going

    def backward_mask(self, state: DagState) -> Tensor:
        """`(batch, samples, n * n + 1)`: any edge of a graph that is open, or to reopen."""
        stopped = state.stopped[..., None]
        edges = (state.adjacency & state.removable).flatten(2)
        return torch.cat([edges & ~stopped, stopped], 2)

    def _edge(self, action: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Tail and head `(batch, samples, n)` one-hot, and whether it is an edge at all."""
        n, place = self.variables, torch.arange(self.variables, device=action.device)
        is_edge = action < n * n
        tail = (place == (action // n)[..., None]) & is_edge[..., None]
        return tail, (place == (action % n)[..., None]) & is_edge[..., None], is_edge

    def step(self, state: DagState, action: Tensor) -> DagState:
        """Adds an edge, with an outer product on the closure, or stops."""
        n = self.variables
        tail, head, is_edge = self._edge(action)
        adjacency = state.adjacency | (tail[..., :, None] & head[..., None, :])
        # what leads to the tail, the tail included, now leads to the head and on from there
        column = (action // n).clamp(max=n - 1)[..., None, None].expand(*action.shape, n, 1)
        row = (action % n)[..., None, None].expand(*action.shape, 1, n)
        into = (state.closure.gather(-1, column)[..., 0] & is_edge[..., None]) | tail
        on = state.closure.gather(-2, row)[..., 0, :] | head
        closure = state.closure | (into[..., :, None] & on[..., None, :])
        stopped = state.stopped | ~is_edge
        return self._limited(DagState(adjacency, closure, state.addable, state.removable, stopped))

    def unstep(self, state: DagState, action: Tensor) -> DagState:
        """Removes an edge, the closure computed anew, or reopens."""
        tail, head, is_edge = self._edge(action)
        adjacency = state.adjacency & ~(tail[..., :, None] & head[..., None, :])
        stopped = state.stopped & is_edge
        return self._limited(
            DagState(adjacency, closure_of(adjacency), state.addable, state.removable, stopped)
        )

    def backward_action(self, state: DagState, action: Tensor) -> Tensor:
        """The same number."""
        return action

    def forward_action(self, state: DagState, action: Tensor) -> Tensor:
        """The same number."""
        return action

    def moves(self) -> EdgeMoves:
        """An edge is added, removed or reversed."""
        return EdgeMoves(self.knowledge)

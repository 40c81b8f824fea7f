"""Building a directed acyclic graph, one edge after the other."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from gfnem.batched import Batched
from gfnem.graphs.dags import bit_masks, bits_of, closure_of
from gfnem.graphs.knowledge import Knowledge
from gfnem.graphs.moves import EdgeMoves
from gfnem.ranges import Amount, Count, Fact
from gfnem.space import LatentSpace

#: most nodes whose sets are numbers of 64 bits
_ROOM = 62


@dataclass
class DagState(Batched):
    """Graphs under construction, as bit masks: a step is some integer operations for each node.

    Attributes:
        parents: `(batch, samples, n)` int64; the parents of each node (see `bit_masks`).
        reached: `(batch, samples, n)` int64; each node and those that a path leads to from it.
        joining: `(batch, samples, n)` int64; the nodes that may now become parents of each node.
        added: `(batch, samples)` int64; how many edges there are that can be removed.
        stopped: `(batch, samples)` bool; whether the graph is complete.
    """

    parents: Tensor
    reached: Tensor
    joining: Tensor
    added: Tensor
    stopped: Tensor

    def _matrix(self, masks: Tensor) -> Tensor:
        return bits_of(masks, masks.shape[-1])

    @functools.cached_property
    def adjacency(self) -> Tensor:
        """`(batch, samples, n, n)` bool; entry `[i, j]` is the edge from `i` to `j`."""
        return self._matrix(self.parents).mT

    @functools.cached_property
    def closure(self) -> Tensor:
        """`(batch, samples, n, n)` bool: whether a path leads from `i` to `j`."""
        return self._matrix(self.reached ^ _own(self.reached))

    @functools.cached_property
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
        ValueError: if there are more than 62 nodes, or required edges are forbidden, too many or
            form a cycle.
    """

    def __init__(
        self,
        variables: Fact = None,
        max_parents: Count | None = None,
        forbidden: Sequence[Sequence[Amount]] | None = None,
        required: Sequence[Sequence[Amount]] | None = None,
    ):
        assert variables is not None
        if variables > _ROOM:
            raise ValueError(f"{variables} nodes, where bit masks have room for {_ROOM}")
        self.variables, self.max_parents = variables, max_parents
        self.knowledge = Knowledge(variables, max_parents, forbidden, required)

    def initial_state(self, x, samples: int) -> DagState:
        """The required edges alone."""
        known = self.knowledge.on(x.device)
        shape = len(x), samples
        none = torch.zeros(shape, dtype=torch.long, device=x.device)
        parents, closure = bit_masks(known.required.mT), known.required_closure
        return self._state(
            parents.expand(*shape, -1), _reached(closure).expand(*shape, -1), none, none.bool()
        )

    def _state(self, parents: Tensor, reached: Tensor, added: Tensor, stopped: Tensor) -> DagState:
        """With the nodes that may join: they close no cycle, and there is room for them."""
        joining = self.knowledge.on(parents.device).candidates & ~(parents | reached)
        if self.max_parents is not None:
            room = bits_of(parents, self.variables).sum(-1) < self.max_parents
            joining = torch.where(room, joining, 0)
        return DagState(parents, reached, joining, added, stopped)

    def final_state(self, x, z: Tensor) -> DagState:
        """Stopped graphs; their closures are computed."""
        added = (z & ~self.knowledge.on(z.device).required).flatten(2).sum(2)
        stopped = torch.ones(z.shape[:2], dtype=torch.bool, device=z.device)
        return self._state(bit_masks(z.mT), _reached(closure_of(z)), added, stopped)

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

    def step(self, state: DagState, action: Tensor) -> DagState:
        """Adds an edge, or stops."""
        n = self.variables
        added = _edges(n, str(action.device)).index_select(0, action.flatten())
        parent, tail, head = added.view(*action.shape, n + 2).split([n, 1, 1], -1)
        is_edge = action < n**2
        # what leads to the tail now leads to the head and on from there
        leads, beyond = state.reached >> tail & 1, state.reached.gather(2, head)
        return self._state(
            state.parents | parent,
            state.reached | leads * beyond,
            state.added + is_edge,
            state.stopped | ~is_edge,
        )

    def unstep(self, state: DagState, action: Tensor) -> DagState:
        """Removes an edge, the closure computed anew, or reopens."""
        n = self.variables
        parents = state.parents & ~_edges(n, str(action.device))[action][..., :n]
        is_edge = action < n**2
        reached = _reached(closure_of(bits_of(parents, n).mT))
        return self._state(parents, reached, state.added - is_edge.long(), state.stopped & is_edge)

    def backward_action(self, state: DagState, action: Tensor) -> Tensor:
        """The same number."""
        return action

    def forward_action(self, state: DagState, action: Tensor) -> Tensor:
        """The same number."""
        return action

    def moves(self) -> EdgeMoves:
        """An edge is added, removed or reversed."""
        return EdgeMoves(self.knowledge)


def _own(masks: Tensor) -> Tensor:
    """`(n,)` int64 the bit masks of single nodes."""
    return 1 << torch.arange(masks.shape[-1], device=masks.device)


def _reached(closure: Tensor) -> Tensor:
    """`(..., n)` int64 what each node reaches, itself included, by a closure `(..., n, n)`."""
    masks = bit_masks(closure)
    return masks | _own(masks)


@functools.lru_cache(maxsize=8)
def _edges(n: int, device: str) -> Tensor:
    """`(n * n + 1, n + 2)` what each action adds: bit masks of parents, its tail and its head.

    To stop adds nothing; its tail is one that no node leads to.
    """
    action = torch.arange(n * n + 1, device=device)[:, None]
    head, tail = action // n, action % n
    parent = torch.where(torch.arange(n, device=device) == head, 1 << tail, 0)
    return torch.cat([parent, torch.where(head < n, tail, n), head.clamp(max=n - 1)], 1)

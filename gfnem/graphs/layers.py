"""Building a directed acyclic graph layer by layer: each node with all of its parents at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from gfnem.batched import Batched
from gfnem.graphs.dags import ParentSets, bit_masks, bits_of, parent_sets
from gfnem.graphs.knowledge import Knowledge
from gfnem.graphs.moves import EdgeMoves
from gfnem.ranges import Amount, Count, Fact
from gfnem.space import LatentSpace

#: what a node's status is while a graph is built
OPEN, SETTLED, LAST, CURRENT = range(4)


@dataclass
class LayerState(Batched):
    """Graphs under construction.

    Attributes:
        adjacency: `(batch, samples, n, n)` bool; entry `[i, j]` is the edge from `i` to `j`.
        depth: `(batch, samples, n)` int64 the layer of each node, -1 of those not yet placed.
        now: `(batch, samples)` int64 the layer that is being filled.
    """

    adjacency: Tensor
    depth: Tensor
    now: Tensor

    @cached_property
    def status(self) -> Tensor:
        """`(batch, samples, n)` int64 `OPEN`, `SETTLED`, `LAST` (the layer before) or `CURRENT`."""
        behind = (self.now[..., None] - self.depth).clamp(max=CURRENT - SETTLED)
        return (CURRENT - behind).masked_fill(self.depth < 0, OPEN)

    @cached_property
    def layers(self) -> tuple[Tensor, Tensor, Tensor]:
        """Bit masks `(batch, samples)` of the nodes settled, in the last layer, and in this one."""
        kind = torch.arange(SETTLED, CURRENT + 1, device=self.depth.device)
        weight = 2 ** torch.arange(self.depth.shape[-1], device=kind.device)
        held = (self.status[..., None] == kind) * weight[:, None]
        settled, last, current = held.sum(-2).unbind(-1)
        return settled, last, current


class LayerSpace(LatentSpace[Any, Tensor, LayerState]):
    """`z` is an adjacency matrix `(batch, samples, n, n)` bool, built in `n` steps and some more.

    A node stands in the first layer that comes after all its parents. Forward action `j * sets + p`
    places node `j` with set of parents number `p` (see `parent_sets`), of which one at least is in
    the layer before; the last action closes the layer. The only backward action undoes what came
    last, so that each graph has one trajectory.

    Args:
        variables: how many nodes there are.
        max_parents: most parents of a node; any number if None.
        forbidden: `[i, j]` pairs, edges that never are there; none if None.
        required: `[i, j]` pairs, edges that always are there; none if None.

    Raises:
        ValueError: if required edges are forbidden, too many or form a cycle.
    """

    unique_trajectory = True

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

    def sets(self, device: torch.device | str = "cpu") -> ParentSets:
        """The sets of parents that there are."""
        return parent_sets(self.variables, self.max_parents, device)

    def initial_state(self, x: Any, samples: int) -> LayerState:
        """Nothing placed."""
        n, shape, device = self.variables, (len(x), samples), x.device
        return LayerState(
            torch.zeros(*shape, n, n, dtype=torch.bool, device=device),
            torch.full((*shape, n), -1, device=device),
            torch.zeros(shape, dtype=torch.long, device=device),
        )

    def final_state(self, x: Any, z: Tensor) -> LayerState:
        """Every node in its layer."""
        depth = torch.zeros(z.shape[:-1], dtype=torch.long, device=z.device)
        for _ in range(self.variables - 1):  # the longest path has n - 1 edges
            depth = (z * (depth + 1).unsqueeze(-1)).amax(-2)
        return LayerState(z, depth, depth.amax(-1))

    def to_latent(self, x: Any, state: LayerState) -> Tensor:
        """`(batch, samples, n, n)` bool."""
        return state.adjacency

    def is_final(self, state: LayerState) -> Tensor:
        """Whether all nodes are placed."""
        return (state.depth >= 0).all(-1)

    def is_initial(self, state: LayerState) -> Tensor:
        """Whether none is."""
        return (state.depth < 0).all(-1)

    def fitting(self, state: LayerState) -> Tensor:
        """`(batch, samples, sets)` bool: sets of parents that a node of this layer may have.

        What is known of edges apart.
        """
        settled, last, _ = (part[..., None] for part in state.layers)
        placed, masks = settled | last, self.sets(last.device).masks
        hit = ((masks & last) > 0) | ((placed == 0) & (masks == 0))
        return ((masks & ~placed) == 0) & hit

    def _ready(self, placed: Tensor, last: Tensor) -> Tensor:
        """`(...)` bit masks of the nodes that a layer after `last` may hold, by what is known.

        Args:
            placed: `(...)` bit masks of all nodes before that layer, `last` among them.
            last: `(...)` bit masks.
        """
        known = self.knowledge.on(placed.device)
        required, permitted = bit_masks(known.required.mT), bit_masks(known.permitted.mT)
        placed, last = placed[..., None], last[..., None]
        follows = (required & last) > 0
        room = True if self.max_parents is None else known.required.sum(0) < self.max_parents
        follows = follows | (((permitted & last) > 0) & room) | (placed == 0)
        here = bits_of(placed[..., 0], self.variables)
        return bit_masks(((required & ~placed) == 0) & follows & ~here)

    def _can_end(self, placed: Tensor, last: Tensor) -> Tensor:
        """`(...)` bool: whether all other nodes can come in layers after `last`.

        If they can, they can with each node in the first layer that may hold it: its parents then
        come no later than they would, and the last of them is in the layer before.
        """
        while (more := self._ready(placed, last)).any():
            placed, last = placed | more, torch.where(more > 0, more, last)
        return placed == 2**self.variables - 1

    def choices(self, state: LayerState) -> Tensor:
        """`(batch, samples, n + 1)` bool: nodes that may come next, and closing the layer.

        Those alone after which every other node can still be placed.
        """
        n = self.variables
        settled, last, current = state.layers
        placed = settled | last
        bit = 2 ** torch.arange(n, device=placed.device)
        ready = 2**n - 1 - placed if self.knowledge.free else self._ready(placed, last)
        # of a layer the nodes come in order, so that every graph is built in one way
        ready = ready[..., None] & torch.where(bit > current[..., None], bit, 0)
        closable = (current > 0) & (placed | current != 2**n - 1)
        found = torch.cat([ready > 0, closable[..., None]], -1)
        if self.knowledge.free:
            return found
        # a layer may hold all that can come after a node
        after = ready.flip(-1).cumsum(-1).flip(-1)
        layer = current[..., None] | torch.nn.functional.pad(after, (0, 1))
        return found & self._can_end(placed[..., None] | layer, layer)

    def forward_mask(self, state: LayerState) -> Tensor:
        """`(batch, samples, n * sets + 1)`: nodes with their parents, and to close the layer."""
        choices, members = self.choices(state), self.sets(state.depth.device).members()
        fits = self.fitting(state)[..., None, :] & self.knowledge.permits(members)
        place = choices[..., :-1, None] & fits
        return torch.cat([place.flatten(2), choices[..., -1:]], 2)

    def backward_mask(self, state: LayerState) -> Tensor:
        """`(batch, samples, 1)`: there is one way back."""
        return ~self.is_initial(state)[..., None]

    def step(self, state: LayerState, action: Tensor) -> LayerState:
        """Places a node or closes the layer."""
        n, sets = self.variables, len(self.sets())
        closes = action == n * sets
        node, number = action // sets, action % sets
        is_node = (torch.arange(n, device=action.device) == node[..., None]) & ~closes[..., None]
        parents = bits_of(self.sets(action.device).masks[number], n)
        adjacency = torch.where(is_node[..., None, :], parents[..., None], state.adjacency)
        depth = torch.where(is_node, state.now[..., None], state.depth)
        return LayerState(adjacency, depth, state.now + closes)

    def _newest(self, state: LayerState) -> tuple[Tensor, Tensor]:
        """The node placed last `(batch, samples)`, and whether the layer holds any node at all."""
        current = state.status == CURRENT
        place = torch.arange(self.variables, device=current.device)
        return (current * place).amax(-1), current.any(-1)

    def unstep(self, state: LayerState, action: Tensor) -> LayerState:
        """Takes the newest node away, or reopens the layer before."""
        node, holds = self._newest(state)
        gone = torch.arange(self.variables, device=node.device) == node[..., None]
        gone = gone & holds[..., None]
        return LayerState(
            state.adjacency & ~gone[..., None, :],
            torch.where(gone, -1, state.depth),
            (state.now - (~holds).long()).clamp(min=0),
        )

    def backward_action(self, state: LayerState, action: Tensor) -> Tensor:
        """0."""
        return torch.zeros_like(action)

    def forward_action(self, state: LayerState, action: Tensor) -> Tensor:
        """What was done last."""
        node, holds = self._newest(state)
        index = node[..., None, None].expand(*node.shape, self.variables, 1)
        parents = state.adjacency.gather(3, index)[..., 0]
        weight = 2 ** torch.arange(self.variables, device=node.device)
        number = self.sets(node.device).number((parents * weight).sum(-1))
        sets = len(self.sets())
        place = (node * sets + number).clamp(max=self.variables * sets - 1)
        return torch.where(holds, place, self.variables * sets)

    def moves(self) -> EdgeMoves:
        """An edge is added, removed or reversed."""
        return EdgeMoves(self.knowledge)

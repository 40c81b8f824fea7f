"""Rivals of the sampler on the same table of scores: Markov chains, bootstrap and greedy search."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from gfnem.graphs.dags import bit_masks, bits_of
from gfnem.graphs.model import DagPosterior, GivenTables
from gfnem.graphs.moves import EdgeMoves
from gfnem.graphs.parents import draw_parents, log_shares
from gfnem.graphs.tables import Tables
from gfnem.mcmc import LocalMoves, metropolis
from gfnem.ranges import Count


class PartitionMoves(LocalMoves[Any, Tensor]):
    """Partition MCMC (Kuipers and Moffa 2017): a node goes to another layer, or to one of its own.

    Structures are the layers `(batch, samples, n)` int64 of nodes, numbered from 0 without gaps. A
    node is taken out, and put into any layer that is left or between any two; there are equally
    many places on the way back, so the proposal is symmetric.

    Args:
        variables: how many nodes there are.
    """

    def __init__(self, variables: Count):
        self.variables = variables

    def initial(self, x: Any, samples: int) -> Tensor:
        """All nodes in one layer: the graph without edges."""
        return torch.zeros(len(x), samples, self.variables, dtype=torch.long, device=x.device)

    def propose(self, x: Any, z: Tensor) -> tuple[Tensor, Tensor]:
        """One node elsewhere; the correction is 0."""
        n, device = self.variables, z.device
        node = torch.randint(n, z.shape[:2], device=device)
        taken = torch.arange(n, device=device) == node[..., None]
        held = torch.zeros(*z.shape[:2], n, device=device).scatter_add(2, z, (~taken).float())
        layers = (held > 0).sum(2)
        place = (torch.rand(z.shape[:2], device=device) * (2 * layers + 1)).long()
        # even places are gaps, odd ones are layers: doubled, the numbers only have to be closed up
        number = ((held > 0).cumsum(2) - 1).gather(2, z)
        doubled = torch.where(taken, place[..., None], 2 * number + 1)
        used = torch.zeros(*z.shape[:2], 2 * n + 1, device=device).scatter(2, doubled, 1.0)
        new = (used.cumsum(2) - 1).gather(2, doubled).long()
        return new, torch.zeros(z.shape[:2], device=device)

    def choose(self, accepted: Tensor, new: Tensor, old: Tensor) -> Tensor:
        """The new layers where accepted."""
        return torch.where(accepted[..., None], new, old)


def log_layers(given: GivenTables, layers: Tensor) -> Tensor:
    """`(batch, samples)` float64 log sum over the graphs of layers `(batch, samples, n)`."""
    behind = layers[..., :, None] - layers[..., None, :]  # of the second node, seen from the first
    found = log_shares(given.sums()[-1], bit_masks(behind > 0), bit_masks(behind == 1))
    return found.sum(2) + given.best.sum(1, keepdim=True)


def graphs_of(given: GivenTables, layers: Tensor) -> Tensor:
    """`(batch, samples, n, n)` a graph drawn for each set of layers `(batch, samples, n)`."""
    behind = layers[..., :, None] - layers[..., None, :]
    node = torch.arange(layers.shape[2], device=layers.device).expand_as(layers)
    parts = node, bit_masks(behind > 0), bit_masks(behind == 1)
    parents = draw_parents(given.sums(), *(part.flatten(1) for part in parts))
    return bits_of(parents.view_as(layers), layers.shape[2]).mT


def partition_chains(
    model: DagPosterior, x: Tables, chains: int, steps: int, layers: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Ends of chains of partition MCMC.

    Args:
        model: a modular posterior without known edges.
        x: data sets.
        chains: side by side for each.
        steps: proposals to each.
        layers: `(batch, chains, n)` where the chains start; all in one layer if None.

    Returns:
        Graphs `(batch, chains, n, n)` and where the chains stand now.
    """
    given, moves = model.given(x), PartitionMoves(model.variables)
    start = moves.initial(x, chains) if layers is None else layers
    layers, _, _ = metropolis(moves, lambda z: log_layers(given, z), x, start, steps)
    return graphs_of(given, layers), layers


def structure_chains(
    model: DagPosterior, x: Tables, chains: int, steps: int, graphs: Tensor | None = None
) -> Tensor:
    """`(batch, chains, n, n)` ends of chains of structure MCMC (see `EdgeMoves`)."""
    moves = EdgeMoves(model.space.knowledge)
    start = moves.initial(x, chains) if graphs is None else graphs
    return metropolis(moves, model.given(x).log_joint, x, start, steps)[0]


@torch.no_grad()
def greedy(model: DagPosterior, x: Tables, steps: int = 1000) -> Tensor:
    """`(batch, n, n)` bool: hill climbing over edges added, removed and reversed, from no edge.

    Args:
        model: the posterior whose log joint is climbed.
        x: data sets, all at once.
        steps: most moves.
    """
    given, moves = model.given(x), EdgeMoves(model.space.knowledge)
    graph = moves.initial(x, 1)
    for _ in range(steps):
        gains = given.deltas(bit_masks(graph.mT))
        turned = gains + gains.mT  # an edge is taken away, and the opposite one put in
        gains = torch.stack([gains, gains, turned], 2)
        gains = gains.masked_fill(~moves.neighbours(graph), -torch.inf)
        best, choice = gains.flatten(2).max(2)
        if not (best > 1e-9).any():
            break
        n = graph.shape[-1]
        place = torch.nn.functional.one_hot(choice % (n * n), n * n).bool().unflatten(2, (n, n))
        kind = (choice // (n * n))[..., None, None]
        new = torch.where(kind == 0, graph | place, graph & ~place)
        new = torch.where(kind == 2, new | place.mT, new)
        graph = torch.where((best > 1e-9)[..., None, None], new, graph)
    return graph[:, 0]


def bootstrap(
    model: DagPosterior, rows: Tensor, replicates: int, levels: Sequence[int] | None = None
) -> Tensor:
    """`(replicates, n, n)` graphs found by `greedy` in resampled tables of `rows` `(rows, n)`.

    Friedman, Goldszmidt and Wyner (1999). Not a posterior, but often taken for one.

    Args:
        model: the posterior whose log joint is climbed.
        rows: the table.
        replicates: how many.
        levels: how many values each discrete variable can take; a replicate need not have all.
    """
    index = torch.randint(len(rows), (replicates, len(rows)), device=rows.device)
    return greedy(model, Tables.of(list(rows[index]), levels=levels))

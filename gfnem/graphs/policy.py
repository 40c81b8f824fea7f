"""Policies over graphs, whose logits start from what each edge would gain."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from gfnem.graphs.model import GivenTables
from gfnem.graphs.space import DagState
from gfnem.policy import Policy, Step
from gfnem.ranges import Count, Fact
from gfnem.sampling import log_probability


@dataclass
class Reading:
    """What a policy knows of a batch of data sets.

    Attributes:
        given: the posterior's table of local scores; None where a policy is tried without one.
        single: `(batch, n, n)` nats that each edge alone gains over the empty graph.
    """

    given: GivenTables | None
    single: Tensor


class ScoredPolicy(Policy):
    """Adds what a network says to what the table of local scores says.

    Every graph is complete, so the flow through it is `R(G) / P(stop|G)`: that is how the flow is
    parametrised. Detailed balance then is the modified detailed balance of Deleu et al. (2022,
    arXiv 2202.13903, eq. 10), and `log Z(D)` follows from the empty graph. The logit of an edge is
    its gain less the log of the number of edges then, which is right where the flow ends after it;
    the network learns the rest. `P_B` is uniform.

    Args:
        variables: how many nodes there are.
    """

    def __init__(self, variables: Fact = None):
        super().__init__()
        assert variables is not None
        self.variables = variables

    def correction(self, reading: Reading, state: DagState, gains: Tensor) -> tuple[Tensor, Tensor]:
        """`(batch, samples, n, n)` and `(batch, samples)` what is added to edges' logits, and stop.

        Args:
            reading: of the data sets.
            state: graphs.
            gains: `(batch, samples, n, n)` nats that adding, or removing, each edge gains; 0 where
                neither is permitted.
        """
        raise NotImplementedError

    def encode(self, x: Any, given: Any = None) -> Reading:
        """Reads the table of local scores."""
        n, like = self.variables, next(self.parameters())
        if given is None:
            return Reading(None, like.new_zeros(len(x), n, n))
        empty = torch.zeros(len(x), 1, n, n, dtype=torch.bool, device=like.device)
        return Reading(given, finite(given.deltas(empty)[:, 0]).to(like))

    def forward(self, context: Reading, state: DagState) -> Step:
        """Scores graphs `(batch, any number)`."""
        adjacency, given = state.adjacency, context.given
        allowed = state.open_edges()
        if given is None:
            gains = context.single[:, None].expand(adjacency.shape)
        else:
            gains = finite(given.deltas(adjacency)).to(context.single)
            gains = gains.masked_fill(~(allowed | (adjacency & state.removable)), 0.0)
        edges, stop = self.correction(context, state, gains)
        count = (adjacency & state.removable).flatten(2).sum(2) + 1
        logits = gains + edges - count.log()[..., None, None]
        logits = torch.cat([logits.flatten(2), stop[..., None]], 2)
        if given is None:
            return Step(logits)
        mask = torch.cat([allowed.flatten(2), torch.ones_like(state.stopped)[..., None]], 2)
        log_stop = log_probability(logits, mask)[..., -1]
        with torch.no_grad():
            reward = given.partial_log_joint(state)
        return Step(logits, None, reward - log_stop)

    def log_z(self, context: Reading) -> Tensor:
        """`(batch,)` `log Z(D)` in nats, by the flow through the first graph."""
        assert context.given is not None
        state = self._first(context)
        log_flow = self(context, state).log_flow
        assert log_flow is not None
        return log_flow[:, 0]

    def _first(self, context: Reading) -> DagState:
        from gfnem.graphs.space import DagSpace

        given = context.given
        assert given is not None
        target = given.target
        space = DagSpace(
            target.variables, target.max_parents, target.forbidden, target.required
        )
        return space.initial_state(given.x, 1)


def finite(gains: Tensor) -> Tensor:
    """Gains of any shape with 0 where something is not permitted."""
    return torch.where(torch.isfinite(gains), gains, 0.0)


def squashed(gains: Tensor) -> Tensor:
    """`(..., 2)` gains in nats as a network reads them: small ones apart, large ones tamed."""
    return torch.stack([torch.tanh(gains / 2), torch.asinh(gains / 4) / 2], -1)


class FlatPolicy(ScoredPolicy):
    """A perceptron over the whole graph: precise for few variables, and for one data set.

    Args:
        variables: how many nodes there are.
        hidden: width.
        layers: hidden layers.
    """

    def __init__(self, variables: Fact = None, hidden: Count = 256, layers: Count = 2):
        super().__init__(variables)
        n = self.variables
        width, stages = 6 * n * n, []
        for _ in range(layers):
            stages += [nn.Linear(width, hidden), nn.SiLU()]
            width = hidden
        self.network = nn.Sequential(*stages, nn.Linear(width, n * n + 1))
        last = self.network[-1]
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)

    def correction(self, reading: Reading, state: DagState, gains: Tensor) -> tuple[Tensor, Tensor]:
        """See `ScoredPolicy`."""
        flags = torch.stack([state.adjacency, state.closure], -1).to(gains)
        alone = squashed(reading.single)[:, None].expand(*gains.shape, 2)
        features = torch.cat([flags, squashed(gains), alone], -1)
        output = self.network(features.flatten(2))
        return output[..., :-1].unflatten(2, gains.shape[2:]), output[..., -1]


class GraphPolicy(ScoredPolicy):
    """Messages between pairs of nodes: what it says is the same under any numbering of the nodes.

    Each layer mixes a pair with its reverse, with means over the pairs that share one of its nodes,
    and with the mean of all.

    Args:
        variables: how many nodes there are.
        hidden: features of a pair.
        layers: rounds of messages.
    """

    def __init__(self, variables: Fact = None, hidden: Count = 48, layers: Count = 3):
        super().__init__(variables)
        self.read = nn.Linear(11, hidden)
        self.rounds = nn.ModuleList(_Round(hidden) for _ in range(layers))
        self.edge = nn.Linear(hidden, 1)
        self.stop = nn.Sequential(nn.Linear(2 * hidden, hidden), nn.SiLU(), nn.Linear(hidden, 1))
        for last in (self.edge, self.stop[-1]):
            nn.init.zeros_(last.weight)
            nn.init.zeros_(last.bias)

    def correction(self, reading: Reading, state: DagState, gains: Tensor) -> tuple[Tensor, Tensor]:
        """See `ScoredPolicy`."""
        n = self.variables
        eye = torch.eye(n, dtype=torch.bool, device=gains.device).expand_as(state.adjacency)
        edges = state.adjacency.flatten(2).float().mean(2)[..., None, None].expand(gains.shape)
        flags = [state.adjacency, state.closure, state.open_edges(), state.removable, eye]
        flags = torch.stack(flags, -1).to(gains)
        alone = squashed(reading.single)[:, None].expand(*gains.shape, 2)
        here = torch.where(state.adjacency, -gains, 0.0)  # what an edge that is there is worth
        features = [flags, squashed(gains - here * 0), alone, torch.tanh(here / 2)[..., None]]
        features.append(edges[..., None])
        pairs = self.read(torch.cat(features, -1))
        for mix in self.rounds:
            pairs = pairs + mix(pairs)
        whole = torch.cat([pairs.mean((2, 3)), pairs.amax((2, 3))], -1)
        return self.edge(pairs)[..., 0], self.stop(whole)[..., 0]


class _Round(nn.Module):
    """One round of messages between pairs `(batch, samples, n, n, hidden)`."""

    def __init__(self, hidden: int):
        super().__init__()
        self.norm = nn.LayerNorm(hidden)
        self.own = nn.Linear(hidden, 2 * hidden)
        self.tail = nn.Linear(2 * hidden, 2 * hidden)
        self.head = nn.Linear(2 * hidden, 2 * hidden)
        self.out = nn.Linear(hidden, hidden)

    def forward(self, pairs: Tensor) -> Tensor:
        pairs = self.norm(pairs)
        own, turned = self.own(pairs).chunk(2, -1)
        nodes = torch.cat([pairs.mean(3), pairs.mean(2)], -1)  # of edges from it, and to it
        tail, all_tail = self.tail(nodes).chunk(2, -1)
        head, all_head = self.head(nodes).chunk(2, -1)
        mean = (all_tail + all_head).mean(2)
        mixed = own + turned.transpose(2, 3) + tail.unsqueeze(3) + head.unsqueeze(2)
        return self.out(nn.functional.silu(mixed + mean[:, :, None, None]))

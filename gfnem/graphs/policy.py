"""Policies over graphs, whose logits start from what each edge would gain."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from gfnem.graphs.model import GivenTables
from gfnem.graphs.space import DagState
from gfnem.policy import Policy, Scores, Step
from gfnem.ranges import Count, Fact
from gfnem.sampling import Exploration, by_weight, explored, log_probability
from gfnem.space import LatentSpace, Trajectories


@dataclass
class Reading:
    """What a policy knows of a batch of data sets.

    Attributes:
        given: the posterior's table of local scores; None where a policy is tried without one.
        single: `(batch, n, n)` nats that each edge alone gains over the empty graph.
    """

    given: GivenTables | None
    single: Tensor


@dataclass
class Hints:
    """What the table of local scores says of graphs, in nats.

    Attributes:
        gains: `(batch, samples, n, n)` what adding an edge gains; minus what one that is there is
            worth; 0 where neither is permitted.
        joins: `(batch, samples, n, n)` log probability that an edge is added, families apart.
        stop: `(batch, samples)` log probability that none is.
        single: `(batch, samples, n, n)` what each edge alone gains over the empty graph.
    """

    gains: Tensor
    joins: Tensor
    stop: Tensor
    single: Tensor


class ScoredPolicy(Policy[Any, Tensor, DagState, Reading]):
    """Adds what a network says to what the table of local scores says.

    Every graph is complete, so the flow through it is `R(G) / P(stop|G)`: that is how the flow is
    parametrised. Detailed balance then is the modified detailed balance of Deleu et al. (2022,
    arXiv 2202.13903, eq. 10), and `log Z(D)` follows from the empty graph. Logits start from the
    posterior of each family by itself (`GivenTables.joins`), less the log of the number of edges,
    by which the backward choice divides the flow; the network learns what families have to do with
    each other. `P_B` is uniform.

    Args:
        variables: how many nodes there are.
    """

    def __init__(self, variables: Fact = None):
        super().__init__()
        assert variables is not None
        self.variables = variables

    @abstractmethod
    def correction(self, state: DagState, hints: Hints) -> tuple[Tensor, Tensor]:
        """`(batch, samples, n, n)` and `(batch, samples)` what is added to edges' logits and stop.

        Args:
            state: graphs.
            hints: what the table says of them.
        """

    def encode(self, x: Any, given: Any = None) -> Reading:
        """Reads the table of local scores."""
        n, like = self.variables, next(self.parameters())
        if given is None:
            return Reading(None, like.new_zeros(len(x), n, n))
        empty = torch.zeros(len(x), 1, n, dtype=torch.long, device=like.device)
        return Reading(given, finite(given.deltas(empty)[:, 0]).to(like))

    @torch.no_grad()
    def hints(self, context: Reading, state: DagState) -> Hints:
        """What the table says of graphs."""
        single = context.single[:, None].expand(state.adjacency.shape)
        if context.given is None:
            return Hints(single, single, single[..., 0, 0], single)
        gains = context.given.deltas(state.parents)
        joins, stop = context.given.joins(state, gains)
        known = state.open_edges | state.adjacency
        gains = finite(gains).masked_fill(~known, 0.0)
        return Hints(gains.to(single), joins.to(single), stop.to(single), single)

    def logits(self, context: Reading, state: DagState) -> Tensor:
        """`(batch, samples, n * n + 1)` of every edge, and of stopping."""
        hints = self.hints(context, state)
        edges, stop = self.correction(state, hints)
        edges = (hints.joins + edges - (state.added + 1).log()[..., None, None]).mT.flatten(2)
        return torch.cat([edges, (hints.stop + stop)[..., None]], 2)

    def choose(
        self, context: Reading, space: LatentSpace, state: DagState, exploration: Exploration
    ) -> tuple[Tensor, Tensor]:
        """Draws an edge, or to stop; no flow is needed for it.

        Graphs that have stopped are not looked at, once they are many.
        """
        going = ~state.stopped
        index = _first(going) if 4 * int(going.sum()) <= 3 * going.numel() else None
        some = state if index is None else state.take(index)
        p = explored(self.logits(context, some), self._mask(some), exploration)
        action = by_weight(p)
        log_drawn = p.gather(2, action[..., None])[..., 0].log()
        if index is None:
            return action, log_drawn
        nothing = torch.full_like(state.added, p.shape[2] - 1)
        found = log_drawn.new_zeros(nothing.shape)
        return nothing.scatter(1, index, action), found.scatter(1, index, log_drawn)

    def forward(self, context: Reading, state: DagState) -> Step:
        """Scores graphs `(batch, any number)`."""
        logits = self.logits(context, state)
        if context.given is None:
            return Step(logits)
        return Step(logits, None, self._flow(context, state, self._log_p(logits, state)))

    @staticmethod
    def _mask(state: DagState) -> Tensor:
        """`(batch, samples, n * n + 1)` edges that can be added, and to stop."""
        return nn.functional.pad(state.open_edges.mT.flatten(2), (0, 1), value=True)

    def _log_p(self, logits: Tensor, state: DagState) -> Tensor:
        """`(batch, samples, n * n + 1)` log probabilities of edges and of stopping."""
        return log_probability(logits, self._mask(state))

    def _flow(self, context: Reading, state: DagState, log_p: Tensor) -> Tensor:
        """`(batch, samples)` `R(G) / P(stop|G)` in nats."""
        assert context.given is not None
        with torch.no_grad():
            reward = context.given.log_state(state)
        return reward - log_p[..., -1]

    def score(
        self,
        context: Reading,
        space: LatentSpace,
        trajectories: Trajectories,
        flows: bool = False,
        forward_looking: bool = False,
        steps: int | None = None,
    ) -> Scores:
        """See `Policy.score`; only graphs that a step is taken from are looked at."""
        states, actions, mask = trajectories.states, trajectories.actions, trajectories.mask
        if steps is not None or context.given is None or states is None:
            return super().score(context, space, trajectories, flows, forward_looking, steps)
        assert actions is not None and mask is not None
        batch, samples, time = actions.shape

        def folded(tensor: Tensor) -> Tensor:  # (batch, samples, time) -> (batch, time * samples)
            return tensor.transpose(1, 2).flatten(1)

        taken = folded(mask)
        index = _first(taken)
        state = DagState.cat(states[:-1]).take(index)
        log_p = self._log_p(self.logits(context, state), state)
        action = folded(actions).gather(1, index)
        log_pf = log_p.gather(2, action[..., None])[..., 0]
        # the graph that an edge leads to has one edge more that can be taken away
        log_pb = -(state.added + 1).to(log_pf).log().masked_fill(action == log_p.shape[2] - 1, 0.0)

        def unfolded(tensor: Tensor) -> Tensor:
            tensor = tensor.masked_fill(~taken.gather(1, index), 0.0)
            found = tensor.new_zeros(batch, time * samples).scatter(1, index, tensor)
            return found.unflatten(1, (time, samples)).transpose(1, 2)

        log_flow = unfolded(self._flow(context, state, log_p))
        first = mask[:, 0].to(torch.uint8).argmax(1, keepdim=True)  # of which all are the same
        log_z = log_flow[:, 0].gather(1, first)[:, 0]
        log_flow = nn.functional.pad(log_flow, (0, 1)) if flows else None
        return Scores(unfolded(log_pf), unfolded(log_pb), mask, log_z, log_flow)

    def log_z(self, context: Reading) -> Tensor:
        """`(batch,)` `log Z(D)` in nats, the flow through the first graph; 0 without a target."""
        if context.given is None:
            return context.single.new_zeros(len(context.single))
        log_flow = self(context, context.given.first()).log_flow
        assert log_flow is not None
        return log_flow[:, 0]


def _first(rows: Tensor) -> Tensor:
    """`(batch, most)` the numbers of the rows `(batch, rows)` bool that are wanted, these first.

    As many as the observation has that wants most.
    """
    most = int(rows.sum(1).max())
    return rows.to(torch.uint8).argsort(dim=1, descending=True, stable=True)[:, :most]


def finite(gains: Tensor) -> Tensor:
    """Gains of any shape with 0 where something is not permitted."""
    return torch.where(torch.isfinite(gains), gains, 0.0)


def squashed(nats: Tensor) -> Tensor:
    """`(..., 2)` nats `(...)` as a network reads them: small ones apart, large ones tamed."""
    return torch.stack([torch.tanh(nats / 2), torch.asinh(nats / 4) / 2], -1)


def features(state: DagState, hints: Hints) -> Tensor:
    """`(batch, samples, n, n, FEATURES)` what networks read of each pair of nodes."""
    edges = state.adjacency.flatten(2).sum(2, keepdim=True) / state.adjacency.shape[-1]
    flags = [state.adjacency, state.closure, state.open_edges, edges[..., None]]
    flags = [flag.to(hints.gains).expand(hints.gains.shape) for flag in flags]
    nats = [squashed(part) for part in (hints.gains, hints.joins, hints.single)]
    stop = squashed(hints.stop)[..., None, None, :].expand(*hints.gains.shape, 2)
    return torch.cat([torch.stack(flags, -1), *nats, stop], -1)


#: what `features` makes of a pair
FEATURES = 12


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
        self.first = nn.Linear(FEATURES * n * n, hidden)
        self.blocks = nn.ModuleList(_Residual(hidden) for _ in range(layers - 1))
        self.last = nn.Linear(hidden, n * n + 1)
        nn.init.zeros_(self.last.weight)
        nn.init.zeros_(self.last.bias)

    def correction(self, state: DagState, hints: Hints) -> tuple[Tensor, Tensor]:
        """See `ScoredPolicy`."""
        hidden = nn.functional.silu(self.first(features(state, hints).flatten(2)))
        for block in self.blocks:
            hidden = hidden + block(hidden)
        output = self.last(hidden)
        return output[..., :-1].unflatten(2, hints.gains.shape[2:]), output[..., -1]


class _Residual(nn.Module):
    """What a hidden layer adds to its input."""

    def __init__(self, hidden: int):
        super().__init__()
        self.linear = nn.Linear(hidden, hidden)

    def forward(self, hidden: Tensor) -> Tensor:
        return nn.functional.silu(self.linear(hidden))


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
        self.read = nn.Linear(FEATURES + 1, hidden)
        self.rounds = nn.ModuleList(_Round(hidden) for _ in range(layers))
        self.edge = nn.Linear(hidden, 1)
        self.stop = nn.Sequential(nn.Linear(2 * hidden, hidden), nn.SiLU(), nn.Linear(hidden, 1))
        for last in (self.edge, self.stop[-1]):
            nn.init.zeros_(last.weight)
            nn.init.zeros_(last.bias)

    def correction(self, state: DagState, hints: Hints) -> tuple[Tensor, Tensor]:
        """See `ScoredPolicy`."""
        eye = torch.eye(self.variables, device=hints.gains.device).expand(hints.gains.shape)
        pairs = self.read(torch.cat([features(state, hints), eye[..., None]], -1))
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

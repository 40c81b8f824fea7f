"""The policy over layers: given the layers, parents are drawn from the exact conditional."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from gfnem.graphs.dags import bit_masks
from gfnem.graphs.layers import OPEN, LayerSpace, LayerState
from gfnem.graphs.model import DagPosterior, GivenTables
from gfnem.graphs.parents import draw_parents, log_shares, partial_sums
from gfnem.graphs.policy import squashed
from gfnem.policy import Policy, Scores, Step
from gfnem.ranges import Amount, Count, Fact
from gfnem.sampling import Exploration, draw, log_probability
from gfnem.space import LatentSpace, Trajectories


@dataclass
class LayerReading:
    """What a policy knows of a batch of data sets.

    Attributes:
        given: the posterior's tables; None where a policy is tried without one.
        local: `(batch, n, sets)` local scores, less the log sum over all sets of a variable.
        sums: each `(batch, n, 2 ** n)` float64; see `GivenTables.sums`.
        orders: `(batch, 2 ** n)` see `GivenTables.orders`.
        level: `(batch,)` float64 the log joint if families had nothing to do with each other.
        code: `(batch, width)` what is read of the data set itself; of width 0 where nothing is.
        swaps: `(batch, 2 ** n, n - 1)` see `GivenTables.swaps`; of width 0 likewise.
    """

    given: GivenTables | None
    local: Tensor
    sums: list[Tensor]
    orders: Tensor
    level: Tensor
    code: Tensor
    swaps: Tensor


class LayerPolicy(Policy[Any, Tensor, LayerState, LayerReading]):
    """Chooses which node joins a layer, and when a layer is closed.

    Where the posterior adds over families, what is still to come depends on the layers alone, so a
    node's parents are drawn in proportion to their local scores: this part is exact and learns
    nothing. Logits and flows of the rest start from a sum over orders of the nodes to come, in
    which a graph counts once for each order that it agrees with; a network learns to set this
    right.

    Args:
        variables: how many nodes there are.
        max_parents: most parents of a node; any number if None.
        hidden: width of the network.
        layers: hidden layers.
        reads: width of what is read of the table of scores, so that one policy serves many data
            sets; 0 for one data set. It is for few nodes (see `orders.swaps_after`).
    """

    def __init__(
        self,
        variables: Fact = None,
        max_parents: Count | None = None,
        hidden: Count = 128,
        layers: Count = 2,
        reads: Amount = 0,
    ):
        super().__init__()
        assert variables is not None
        self.space = LayerSpace(variables, max_parents)
        self.variables, self.sets = variables, len(self.space.sets())
        self.reader = None
        if reads:
            self.reader = nn.Sequential(
                nn.Linear(2 * variables * self.sets + variables - 1, 2 * reads),
                nn.SiLU(),
                nn.Linear(2 * reads, reads),
            )
        read = reads + (variables + 1) * (variables - 1) if reads else 0
        self.first = nn.Linear(10 * variables + read, hidden)
        self.between = nn.ModuleList(nn.Linear(hidden, hidden) for _ in range(layers - 1))
        self.last = nn.Linear(hidden, variables + 2)
        nn.init.zeros_(self.last.weight)
        nn.init.zeros_(self.last.bias)

    def serve(self, target: Any) -> None:
        """Refuses a posterior that does not add over families.

        Raises:
            ValueError: naming what is in the way.
        """
        if isinstance(target, DagPosterior) and target.terms:
            raise ValueError(
                "terms cannot be heeded layer by layer; build graphs edge by edge, with "
                "--build edges (DagSpace and GraphPolicy)"
            )

    def encode(self, x: Any, given: Any = None) -> LayerReading:
        """Reads the tables of local scores."""
        n, like = self.variables, self.last.weight
        if given is None:
            sets = self.space.sets(like.device)
            local = like.new_zeros(len(x), n, self.sets)
            local = local.masked_fill(sets.members().mT, -torch.inf)
            sums = torch.nn.functional.pad(local, (0, 1), value=-torch.inf)[..., sets.lookup]
            sums = partial_sums(sums.double().clamp(min=-1e30))
            orders = like.new_zeros(len(x), 2**n)
            level = like.new_zeros(len(x), dtype=torch.float64)
        else:
            best = given.best
            local, sums = (given.table - best[..., None]).to(like), given.sums()
            orders = given.orders().to(like)
            level = best.sum(1)
        code, swaps = like.new_zeros(len(x), 0), like.new_zeros(len(x), 2**n, 0)
        if self.reader is not None:
            swaps = like.new_zeros(len(x), 2**n, n - 1)
            if given is not None:
                swaps = given.swaps().to(like)
            read = squashed(local.clamp(min=-1e4)).flatten(1)
            code = self.reader(torch.cat([read, swaps[:, 0]], 1))
        return LayerReading(given, local, sums, orders, level, code, swaps)

    def _nodes(
        self, context: LayerReading, state: LayerState
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """What there is to say of nodes, sets of parents left aside.

        Returns:
            `(batch, samples, n)` logits of nodes; `(batch, samples)` that of closing;
            `(batch, samples)` log flow, less that of the families placed; `(batch, samples, n)`
            each node's log share of sets of parents. The logits of nodes include their shares.
        """
        n, open_ = self.variables, state.status == OPEN
        settled, last, current = (part[..., None] for part in state.layers)
        placed, begun = settled | last, current > 0
        share = self._shares(context, placed, last)
        after = self._shares(context, placed | current, current) * begun  # once this one is closed
        # what is still to come, now and with each node placed
        bit = 2 ** torch.arange(n, device=placed.device)
        masks = torch.cat([placed | current, placed | current | bit], 2)
        ahead = context.orders.gather(1, masks.flatten(1)).unflatten(1, (-1, n + 1))
        ahead, then = ahead[..., 0], ahead[..., 1:] - ahead[..., :1]
        nodes = share + then
        later = open_ & (bit > current)
        likely = nodes.masked_fill(~later, -1e30).log_softmax(2)
        kinds = (state.status[..., None] == torch.arange(4, device=placed.device)).to(share)
        nats = torch.stack([likely, after, then], 3).clamp(min=-1e4) * open_[..., None]
        features = torch.cat([kinds, squashed(nats).flatten(3)], 3).flatten(2)
        row = torch.arange(len(masks), device=placed.device)[:, None, None]
        swaps = context.swaps[row, masks].flatten(2)
        # what is read of a data set is the same in all its states, and goes in once
        own = torch.cat([features, swaps], 2)
        weight, code = self.first.weight.split([own.shape[2], context.code.shape[1]], 1)
        code = nn.functional.linear(context.code, code, self.first.bias)
        hidden = nn.functional.silu(nn.functional.linear(own, weight) + code[:, None])
        for linear in self.between:
            hidden = hidden + nn.functional.silu(linear(hidden))
        output = self.last(hidden)
        return nodes + output[..., :n], output[..., n], ahead + output[..., n + 1], share

    def _shares(self, context: LayerReading, placed: Tensor, last: Tensor) -> Tensor:
        """`(batch, samples, n)` see `log_shares`, of one layer `(batch, samples, 1)` for all."""
        placed, last = (part.expand(-1, -1, self.variables) for part in (placed, last))
        return log_shares(context.sums[-1], placed, last).to(context.local)

    def _flow(self, context: LayerReading, state: LayerState, learned: Tensor) -> Tensor:
        """`(batch, samples)` float64 log flow."""
        placed = state.depth >= 0
        given = context.given
        if given is None:
            return learned
        own = given.families(bit_masks(state.adjacency.mT)) - given.best[:, None]
        own = torch.where(placed, own, 0.0).sum(2)
        learned = learned.masked_fill(placed.all(2), 0.0)
        return own + context.level[:, None] + learned

    def forward(self, context: LayerReading, state: LayerState) -> Step:
        """Scores all nodes with all sets of parents; `choose` and `score` need less."""
        nodes, close, flow, share = self._nodes(context, state)
        each = (nodes - share)[..., None] + context.local[:, None]
        logits = torch.cat([each.flatten(2), close[..., None]], 2)
        return Step(logits, None, self._flow(context, state, flow))

    def choose(
        self, context: LayerReading, space: LatentSpace, state: LayerState, exploration: Exploration
    ) -> tuple[Tensor, Tensor]:
        """Draws a node, or closing, then the node's parents; only the former is explored."""
        nodes, close, _, share = self._nodes(context, state)
        logits = torch.cat([nodes, close[..., None]], 2)
        choice, log_drawn = draw(logits, space.choices(state), exploration)
        node = choice.clamp(max=self.variables - 1)
        settled, last, _ = state.layers
        masks = draw_parents(context.sums, node, settled | last, last)
        # where a layer is closed no set is looked at
        parents = self.space.sets(masks.device).number(masks).clamp(max=self.sets - 1)
        batch = torch.arange(len(node), device=node.device)[:, None]
        log_parents = context.local[batch, node, parents] - share.gather(2, node[..., None])[..., 0]
        is_node = choice < self.variables
        action = torch.where(is_node, node * self.sets + parents, self.variables * self.sets)
        return action, log_drawn + log_parents.masked_fill(~is_node, 0.0)

    def score(
        self,
        context: LayerReading,
        space: LatentSpace,
        trajectories: Trajectories,
        flows: bool = False,
        forward_looking: bool = False,
        steps: int | None = None,
    ) -> Scores:
        """See `Policy.score`; log weights of all sets of parents are not needed."""
        if steps is not None:
            return super().score(context, space, trajectories, flows, forward_looking, steps)
        states, actions, mask = trajectories.states, trajectories.actions, trajectories.mask
        assert states is not None and actions is not None and mask is not None
        steps, samples = actions.shape[2], actions.shape[1]
        state = LayerState.cat(states)
        nodes, close, flow, share = self._nodes(context, state)

        def unfold(tensor: Tensor) -> Tensor:
            return tensor.unflatten(1, (steps + 1, samples)).transpose(1, 2)

        logits = torch.cat([nodes, close[..., None]], 2)
        log_choice = unfold(log_probability(logits, space.choices(state)))[:, :, :-1]
        node, parents = actions // self.sets, actions % self.sets
        log_choice = log_choice.gather(3, node[..., None])[..., 0]
        is_node = node < self.variables
        node = node.clamp(max=self.variables - 1)
        batch = torch.arange(len(node), device=node.device)[:, None, None]
        share = unfold(share)[:, :, :-1].gather(3, node[..., None])[..., 0]
        log_parents = (context.local[batch, node, parents] - share).masked_fill(~is_node, 0.0)
        log_pf = (log_choice + log_parents).masked_fill(~mask, 0.0)
        log_flow = unfold(self._flow(context, state, flow)) if flows else None
        return Scores(log_pf, torch.zeros_like(log_pf), mask, self.log_z(context), log_flow)

    def log_z(self, context: LayerReading) -> Tensor:
        """`(batch,)` `log Z(D)` in nats, the flow through the empty state."""
        state = self.space.initial_state(context.local, 1)
        return self._flow(context, state, self._nodes(context, state)[2])[:, 0]

"""Policies that look states up by number, and the one that remembers each state by itself."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from gfnem.batched import pick
from gfnem.enumeration import enumerate_states
from gfnem.policy import Policy, Scores, Step
from gfnem.ranges import Count
from gfnem.sampling import ON_POLICY, Exploration, explored, log_probability
from gfnem.space import LatentSpace, Trajectories
from gfnem.state_graph import StateGraph
from gfnem.target import Conditioned

#: what the settings of a policy may be
WORDS = {
    "backward": ("uniform", "learned"),
    "flow": ("learned", "stop"),
    "start": ("actions", "structures"),
}


@dataclass
class Tables:
    """What a policy says of all states, in nats.

    Attributes:
        copy: `(batch,)` int64 which copies.
        log_pf, log_pb: `(batch, states, ...)` normalised.
        log_flow: `(batch, states)`.
        log_z: `(batch,)`.
    """

    copy: Tensor
    log_pf: Tensor
    log_pb: Tensor
    log_flow: Tensor
    log_z: Tensor

    def take(self, rows: Tensor) -> Tables:
        """Those of some rows `(rows,)` int64."""
        parts = (self.copy, self.log_pf, self.log_pb, self.log_flow, self.log_z)
        return Tables(*(part[rows] for part in parts))


class ListedPolicy(Policy[Tensor, Any, Any, Tables]):
    """Knows what it says of every state once it has seen `x`; a subclass writes `learned`.

    Draws and scores are look-ups by numbers of states (`gfnem.state_graph.StateGraph`). An
    observation `(batch,)` int64 is the number of a copy. Copies share no parameter, and each loss
    looks at one copy alone. So an update of a batch of copies is an update of each of them: losses
    add up, and Adam goes by entries.

    Args:
        space: whose states are listed when the policy is made.
        copies: how many there are; 1 if None.
        backward: "uniform" over parents, or "learned".
        flow: "learned", or "stop" where the last action stops and every state can take it: then
            `F(s) P_F(stop|s) = R(s)` tells the flow of `s`, and `Step.log_flow` is what is beside
            `log R(s)`, for objectives that look forward (Deleu et al. 2022, arXiv 2202.13903, eq.
            10).
        start: what is uniform before training: the choice among "actions", or, under a uniform
            `P_B`, the choice among "structures". The second is the exact sampler of a constant
            reward, so that nothing is out of reach.

    Raises:
        ValueError: if a word is none of these.
    """

    log_z_parts = ("level",)

    def __init__(
        self, space: LatentSpace, copies: Count | None, backward: str, flow: str, start: str
    ):
        super().__init__()
        for name, value in (("backward", backward), ("flow", flow), ("start", start)):
            if value not in WORDS[name]:
                raise ValueError(f"{name} is {' or '.join(WORDS[name])}, not {value!r}")
        self.space, self.copies, self.backward = space, copies or 1, backward
        self.level = nn.Parameter(torch.zeros(self.copies))
        self._graph = graph = enumerate_states(space, torch.zeros(1, dtype=torch.long))
        masks = space.forward_mask(graph.states)[0], space.backward_mask(graph.states)[0]
        self.actions, undoings = (mask.shape[1] for mask in masks)
        self.undoings, self.flows = undoings * (backward == "learned"), int(flow == "learned")
        self.width = self.actions + self.undoings + self.flows
        first = torch.zeros(len(graph), self.width)
        stay = torch.arange(len(graph))[:, None]  # where an action is not permitted
        child = stay.expand(masks[0].shape).clone()
        undo = torch.zeros_like(child)
        parent, redo = (torch.zeros_like(masks[1], dtype=torch.long) for _ in range(2))
        child[graph.parent, graph.action] = graph.child
        undo[graph.parent, graph.action] = graph.backward_action
        parent[graph.child, graph.backward_action] = graph.parent
        redo[graph.child, graph.backward_action] = graph.action
        if start == "structures":
            flow_of = graph.log_flow(torch.zeros(len(graph.ends), dtype=torch.double))
            chosen = graph.choices(flow_of, graph.uniform_backward())
            first[graph.parent, graph.action] = chosen.float()
            if self.flows:
                first[:, -1] = (flow_of - flow_of[0]).float()
        for name, tensor in {
            "first": first,
            "child": child,
            "parent": parent,
            "forward_mask": masks[0],
            "backward_mask": masks[1],
            "redo": redo,
            "undo": undo,
            "final": space.is_final(graph.states)[0],
        }.items():
            self.register_buffer(name, tensor, persistent=False)

    @abstractmethod
    def learned(self, copy: Tensor) -> Tensor:
        """`(batch, states, width)` what is added to the start for each copy."""

    @property
    def graph(self) -> StateGraph:
        """The states, where the parameters are."""
        if self._graph.parent.device != self.child.device:
            self._graph = self._graph.to(self.child.device)
        return self._graph

    # ---------------------------------------------------------------- look-ups

    def encode(self, x: Tensor, given: Conditioned | None = None) -> Tables:
        """Everything the policy says."""
        sizes = (self.actions, self.undoings, self.flows)
        forward, backward, flow = (self.first + self.learned(x)).split(sizes, 2)
        log_pf = _normalised(forward, self.forward_mask)
        if not self.undoings:
            backward = torch.zeros_like(self.backward_mask, dtype=log_pf.dtype)
            backward = backward.expand(len(x), -1, -1)
        log_pb = _normalised(backward, self.backward_mask)
        level = self.level[x]
        if self.flows:
            log_flow = flow[..., 0] + level[:, None]
        else:
            log_flow = torch.where(self.final, 0.0, -log_pf[..., -1])
        return Tables(x, log_pf, log_pb, log_flow, level)

    def log_z(self, context: Tables) -> Tensor:
        """`(batch,)` learned log Z of each copy."""
        return context.log_z

    def forward(self, context: Tables, state: Any) -> Step:
        """Looks states up."""
        number = self.graph.find(state)
        parts = (context.log_pf, context.log_pb, context.log_flow)
        return Step(*(pick(part, number) for part in parts))

    @torch.no_grad()
    def sample(
        self,
        context: Tables,
        x: Tensor,
        space: LatentSpace,
        samples: int,
        exploration: Exploration | None = None,
    ) -> Trajectories:
        """Walks over numbers of states."""
        allowed = self.forward_mask.expand(context.log_pf.shape)
        chance = explored(context.log_pf, allowed, exploration or ON_POLICY)
        below, first = _cumulative(chance), self._first_rows(context)
        number = torch.zeros(len(x), samples, dtype=torch.long, device=x.device)
        numbers, actions = [number], []
        while not self.final[number].all():
            drawn = torch.rand(number.shape, device=x.device)
            action = (drawn[..., None] > below[first + number]).sum(2)
            actions.append(action)
            number = self.child[number, action]
            numbers.append(number)
        at, taken = stacked(numbers[:-1], number), stacked(actions, number)
        going = ~self.final[at]
        log_drawn = chance.flatten(0, 1)[first[..., None] + at, taken].log()
        return self._bundle(x, numbers, taken, self.undo[at, taken], going, log_drawn)

    @torch.no_grad()
    def retrace(self, context: Tables, x: Tensor, space: LatentSpace, latent: Any) -> Trajectories:
        """Walks back over numbers of states."""
        number = self.graph.find(space.final_state(x, latent))
        below, first = _cumulative(context.log_pb.exp()), self._first_rows(context)
        numbers, undos = [number], []
        while (number > 0).any():
            drawn = torch.rand(number.shape, device=x.device)
            undo = (drawn[..., None] > below[first + number]).sum(2)
            undos.append(undo)
            number = self.parent[number, undo]  # state 0 stays
            numbers.append(number)
        numbers.reverse()
        undos.reverse()
        at, taken = stacked(numbers[1:], number), stacked(undos, number)
        log_drawn = context.log_pb.flatten(0, 1)[first[..., None] + at, taken]
        return self._bundle(x, numbers, self.redo[at, taken], taken, at > 0, log_drawn)

    def _first_rows(self, context: Tables) -> Tensor:
        """`(batch, 1)` where each copy's states begin if all are in one table."""
        place = torch.arange(len(context.copy), device=context.copy.device)
        return place[:, None] * len(self.child)

    def _bundle(self, x, numbers, actions, undos, mask, log_drawn) -> Trajectories:
        every = self.graph.states.map(lambda tensor: tensor[0, torch.stack(numbers)])
        states = [every[time] for time in range(len(numbers))]
        latent = self.space.to_latent(x, states[-1])
        log_behaviour = log_drawn.masked_fill(~mask, 0.0).sum(2)
        return Trajectories(latent, states, actions, undos, mask, log_behaviour)

    def score(
        self,
        context: Tables,
        space: LatentSpace,
        trajectories: Trajectories,
        flows: bool = False,
        forward_looking: bool = False,
        steps: int | None = None,
    ) -> Scores:
        """Looks up what was taken."""
        if steps is not None:
            return super().score(context, space, trajectories, flows, forward_looking, steps)
        actions, undos = trajectories.actions, trajectories.backward_actions
        mask = trajectories.mask
        assert actions is not None and undos is not None and mask is not None
        numbers = [torch.zeros_like(mask.sum(2))]  # every trajectory starts from state 0
        for action, going in zip(actions.unbind(2), mask.unbind(2), strict=True):
            numbers.append(torch.where(going, self.child[numbers[-1], action], numbers[-1]))
        number = torch.stack(numbers, 2)

        def taken(table: Tensor, at: Tensor, which: Tensor | int) -> Tensor:
            where = (at * table.shape[2] + which).flatten(1)
            return table.flatten(1).gather(1, where).unflatten(1, at.shape[1:])

        return Scores(
            taken(context.log_pf, number[..., :-1], actions).masked_fill(~mask, 0.0),
            taken(context.log_pb, number[..., 1:], undos).masked_fill(~mask, 0.0),
            mask,
            context.log_z,
            taken(context.log_flow[..., None], number, 0) if flows else None,
        )


def stacked(numbers: Sequence[Tensor], like: Tensor) -> Tensor:
    """`(batch, samples, steps)` of so many `(batch, samples)` int64; there may be none."""
    return torch.stack([*numbers, like], 2)[..., :-1]


class TablePolicy(ListedPolicy):
    """A number for each action of each state: what an objective does when nothing generalises.

    Args:
        space: whose states are listed when the policy is made.
        copies: independent tables; as many as the data have, and 1 if None.
        backward, flow, start: as of `ListedPolicy`.
    """

    def __init__(
        self,
        space: LatentSpace,
        copies: Count | None = None,
        backward: str = "uniform",
        flow: str = "learned",
        start: str = "structures",
    ):
        super().__init__(space, copies, backward, flow, start)
        self.table = nn.Parameter(torch.zeros(self.copies, len(self.graph), self.width))

    def learned(self, copy: Tensor) -> Tensor:
        """The table."""
        return self.table[copy]


def _normalised(log_weights: Tensor, allowed: Tensor) -> Tensor:
    """`(batch, states, options)` log probabilities; `allowed` `(states, options)` bool.

    Normalised over a middle axis, which is several times faster: rows are many and short.
    """
    columns = log_weights.mT.contiguous()
    return log_probability(columns, allowed.mT.expand(columns.shape), 1).mT


def _cumulative(chance: Tensor) -> Tensor:
    """`(batch * states, options - 1)` of probabilities: how many a random number exceeds is drawn.

    They end with exactly 1, so that nothing is drawn that has no probability.
    """
    below = chance.cumsum(-1)
    return (below / below[..., -1:])[..., :-1].flatten(0, 1)

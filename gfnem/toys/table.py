"""A policy that remembers every state by itself."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from gfnem.enumeration import enumerate_states
from gfnem.policy import Scores, Step
from gfnem.ranges import Count
from gfnem.sampling import Exploration, log_probability
from gfnem.space import LatentSpace, Trajectories
from gfnem.state_graph import StateGraph
from gfnem.toys.policy import ToyPolicy

START = ("actions", "structures")


class TablePolicy(ToyPolicy):
    """A number for each action of each state: what an objective does when nothing generalises.

    Draws and scores are look-ups by numbers of states (`gfnem.state_graph.StateGraph`).

    Args:
        space: whose states are listed when the policy is made.
        copies: independent tables.
        backward: as of `ToyPolicy`.
        flow: as of `ToyPolicy`.
        start: what is uniform before training: the choice among "actions", or, under a uniform
            `P_B`, the choice among "structures". The second is the exact sampler of a constant
            reward, so that nothing is out of reach.

    Raises:
        ValueError: if `start` is neither.
    """

    def __init__(
        self,
        space: LatentSpace,
        copies: Count = 1,
        backward: str = "uniform",
        flow: str = "learned",
        start: str = "structures",
    ):
        super().__init__(space, copies, backward, flow)
        if start not in START:
            raise ValueError(f"start is {' or '.join(START)}, not {start!r}")
        self._graph = graph = enumerate_states(space, torch.zeros(1, dtype=torch.long))
        width = self.actions + self.undoings + self.flows
        table = torch.zeros(len(graph), width)
        masks = space.forward_mask(graph.states)[0], space.backward_mask(graph.states)[0]
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
            table[graph.parent, graph.action] = chosen.float()
            if self.flows:
                table[:, -1] = (flow_of - flow_of[0]).float()
        self.table = nn.Parameter(table.expand(copies, -1, -1).clone())
        for name, tensor in {
            "child": child,
            "parent": parent,
            "forward_mask": masks[0],
            "backward_mask": masks[1],
            "redo": redo,
            "undo": undo,
            "final": space.is_final(graph.states)[0],
        }.items():
            self.register_buffer(name, tensor, persistent=False)

    @property
    def graph(self) -> StateGraph:
        """The states, where the parameters are."""
        if self._graph.parent.device != self.child.device:
            self._graph = self._graph.to(self.child.device)
        return self._graph

    # ---------------------------------------------------------------- look-ups

    def forward(self, context: Tensor, state: Any) -> Step:
        """Looks states up."""
        return self.split(context, state, self.table[context[:, None], self.graph.find(state)])

    def log_tables(self, context: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """All normalised log P_F and P_B, `(batch, states, ...)`, and `(batch, states)` flows."""
        forward, backward, flow = self.parts(self.table[context])
        log_pf = log_probability(forward, self.forward_mask.expand(forward.shape))
        undoing = torch.zeros_like(self.backward_mask, dtype=log_pf.dtype)
        if backward is not None:
            undoing = backward
        log_pb = log_probability(undoing, self.backward_mask.expand(undoing.shape))
        log_pb = log_pb.expand(len(context), -1, -1)
        if flow is None:
            flow = torch.where(self.final, 0.0, -log_pf[..., -1])
        else:
            flow = flow + self.level[context][:, None]
        return log_pf, log_pb, flow

    @torch.no_grad()
    def sample(
        self,
        context: Tensor,
        x: Tensor,
        space: LatentSpace,
        samples: int,
        exploration: Exploration | None = None,
    ) -> Trajectories:
        """Walks over numbers of states."""
        exploration, states = exploration or Exploration(), len(self.child)
        logits = self.table[context][..., : self.actions] / exploration.temperature
        allowed = self.forward_mask.expand(logits.shape)
        chance = log_probability(logits, allowed).exp()
        uniform = allowed / allowed.sum(-1, keepdim=True).clamp(min=1)
        chance = torch.lerp(chance, uniform.to(chance), exploration.epsilon)
        below = _cumulative(chance)
        first = torch.arange(len(context), device=context.device)[:, None] * states
        number = torch.zeros(len(context), samples, dtype=torch.long, device=context.device)
        numbers, actions = [number], []
        while not self.final[number].all():
            drawn = torch.rand(number.shape, device=context.device)
            action = (drawn[..., None] > below[first + number]).sum(2)
            actions.append(action)
            number = self.child[number, action]
            numbers.append(number)
        log_behaviour = self.level.new_zeros(number.shape)
        masks, undos = [], []
        if actions:
            at, taken = torch.stack(numbers[:-1], 2), torch.stack(actions, 2)
            going = ~self.final[at]
            log_drawn = chance.flatten(0, 1)[first[..., None] + at, taken].log()
            log_behaviour = log_drawn.masked_fill(~going, 0.0).sum(2)
            masks, undos = going.unbind(2), self.undo[at, taken].unbind(2)
        return self._bundle(x, numbers, actions, undos, masks, log_behaviour)

    @torch.no_grad()
    def retrace(self, context: Tensor, x: Tensor, space: LatentSpace, latent: Any) -> Trajectories:
        """Walks back over numbers of states."""
        number = self.graph.find(space.final_state(x, latent))
        chance = self.log_tables(context)[1].exp()
        below = _cumulative(chance)
        first = torch.arange(len(context), device=context.device)[:, None] * len(self.child)
        numbers, undos = [number], []
        while (number > 0).any():
            drawn = torch.rand(number.shape, device=context.device)
            undo = (drawn[..., None] > below[first + number]).sum(2)
            undos.append(undo)
            number = self.parent[number, undo]  # state 0 stays
            numbers.append(number)
        numbers.reverse()
        undos.reverse()
        log_behaviour, masks, actions = self.level.new_zeros(number.shape), [], []
        if undos:
            at, taken = torch.stack(numbers[1:], 2), torch.stack(undos, 2)
            going = at > 0
            log_drawn = chance.flatten(0, 1)[first[..., None] + at, taken].log()
            log_behaviour = log_drawn.masked_fill(~going, 0.0).sum(2)
            masks, actions = going.unbind(2), self.redo[at, taken].unbind(2)
        return self._bundle(x, numbers, actions, undos, masks, log_behaviour)

    def _bundle(self, x, numbers, actions, undos, masks, log_behaviour) -> Trajectories:
        def stack(tensors: Sequence[Tensor], dtype: torch.dtype) -> Tensor:
            if tensors:
                return torch.stack(tensors, 2)
            return torch.zeros(*log_behaviour.shape, 0, dtype=dtype, device=x.device)

        every = self.graph.states.map(lambda tensor: tensor[0, torch.stack(numbers)])
        states = [every[time] for time in range(len(numbers))]
        return Trajectories(
            self.space.to_latent(x, states[-1]), states, stack(actions, torch.long),
            stack(undos, torch.long), stack(masks, torch.bool), log_behaviour,
        )  # fmt: skip

    def score(
        self,
        context: Tensor,
        space: LatentSpace,
        trajectories: Trajectories,
        flows: bool = False,
        forward_looking: bool = False,
        steps: int | None = None,
    ) -> Scores:
        """All states' log probabilities, and of these the ones that were taken."""
        if steps is not None:
            return super().score(context, space, trajectories, flows, forward_looking, steps)
        actions, undos = trajectories.actions, trajectories.backward_actions
        mask = trajectories.mask
        assert actions is not None and undos is not None and mask is not None
        numbers = [torch.zeros_like(mask.sum(2))]  # every trajectory starts from state 0
        for action, going in zip(actions.unbind(2), mask.unbind(2), strict=True):
            numbers.append(torch.where(going, self.child[numbers[-1], action], numbers[-1]))
        number = torch.stack(numbers, 2)
        log_pf, log_pb, log_flow = self.log_tables(context)

        def taken(table: Tensor, at: Tensor, which: Tensor) -> Tensor:
            where = (at * table.shape[2] + which).flatten(1)
            return table.flatten(1).gather(1, where).unflatten(1, at.shape[1:])

        return Scores(
            taken(log_pf, number[..., :-1], actions).masked_fill(~mask, 0.0),
            taken(log_pb, number[..., 1:], undos).masked_fill(~mask, 0.0),
            mask,
            self.log_z(context),
            taken(log_flow[..., None], number, torch.zeros_like(number)) if flows else None,
        )


def _cumulative(chance: Tensor) -> Tensor:
    """`(batch * states, options - 1)` of probabilities: how many a random number exceeds is drawn.

    They end with exactly 1, so that nothing is drawn that has no probability.
    """
    below = chance.cumsum(-1)
    return (below / below[..., -1:])[..., :-1].flatten(0, 1)

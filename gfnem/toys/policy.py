"""Policies of independent copies."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from gfnem.policy import Policy, Step
from gfnem.ranges import Count
from gfnem.sampling import log_probability
from gfnem.space import LatentSpace
from gfnem.target import Conditioned

BACKWARD = ("uniform", "learned")
FLOW = ("learned", "stop")


class ToyPolicy(Policy[Tensor, Any, Any, Tensor]):
    """What the policies of copies have in common; a subclass writes `forward`.

    An observation `(batch,)` int64 is the number of a copy. Copies share no parameter, and each
    loss looks at one copy alone. So one update of a batch of copies is an update of each of them:
    losses add up, and Adam goes by entries.

    Args:
        space: whose states all copies have.
        copies: how many there are.
        backward: "uniform" over parents, or "learned".
        flow: "learned", or "stop" where the last action stops and every state can take it: then
            `F(s) P_F(stop|s) = R(s)` tells the flow of `s`, and `Step.log_flow` is what is beside
            `log R(s)`, for objectives that look forward (Deleu et al. 2022, arXiv 2202.13903, eq.
            10).

    Raises:
        ValueError: if `backward` or `flow` is none of these.
    """

    log_z_parts = ("level",)

    def __init__(self, space: LatentSpace, copies: Count, backward: str, flow: str):
        super().__init__()
        for name, value, known in (("backward", backward, BACKWARD), ("flow", flow, FLOW)):
            if value not in known:
                raise ValueError(f"{name} is {' or '.join(known)}, not {value!r}")
        self.space, self.copies = space, copies
        self.backward, self.flow = backward, flow
        self.level = nn.Parameter(torch.zeros(copies))
        state = space.initial_state(torch.zeros(1, dtype=torch.long), 1)
        self.actions = space.forward_mask(state).shape[2]
        self.undoings = space.backward_mask(state).shape[2] if backward == "learned" else 0
        self.flows = int(flow == "learned")

    def encode(self, x: Tensor, given: Conditioned | None = None) -> Tensor:
        """The numbers of the copies, `(batch,)`."""
        return x

    def parts(self, output: Tensor) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """`(batch, samples, ...)` numbers of actions and undoings, and of flows without an axis."""
        forward, backward, flow = output.split((self.actions, self.undoings, self.flows), 2)
        return (
            forward,
            backward if self.undoings else None,
            flow[..., 0] if self.flows else None,
        )

    def split(self, context: Tensor, state: Any, output: Tensor) -> Step:
        """What `(batch, samples, actions + undoings + flows)` numbers say of states."""
        forward, backward, flow = self.parts(output)
        if flow is None:
            log_stop = log_probability(forward, self.space.forward_mask(state))[..., -1]
            flow = torch.where(self.space.is_final(state), 0.0, -log_stop)
        else:
            flow = flow + self.level[context][:, None]
        return Step(forward, backward, flow)

    def log_z(self, context: Tensor) -> Tensor:
        """`(batch,)` learned log Z of each copy."""
        return self.level[context]

"""Policies of independent copies."""

from __future__ import annotations

from typing import Any, Generic

import torch
from torch import Tensor, nn

from gfnem.batched import Context
from gfnem.policy import Policy
from gfnem.ranges import Count
from gfnem.space import LatentSpace

BACKWARD = ("uniform", "learned")
FLOW = ("learned", "stop")


class ToyPolicy(Policy[Tensor, Any, Any, Context], Generic[Context]):
    """What the policies of copies have in common; see `gfnem.toys.table`.

    An observation `(batch,)` int64 is the number of a copy. Copies share no parameter, and each
    loss looks at one copy alone. So one update of a batch of copies is an update of each of them:
    losses add up, and Adam goes by entries.

    Args:
        space: whose states all copies have.
        copies: how many there are; 1 if None.
        backward: "uniform" over parents, or "learned".
        flow: "learned", or "stop" where the last action stops and every state can take it: then
            `F(s) P_F(stop|s) = R(s)` tells the flow of `s`, and `Step.log_flow` is what is beside
            `log R(s)`, for objectives that look forward (Deleu et al. 2022, arXiv 2202.13903, eq.
            10).

    Raises:
        ValueError: if `backward` or `flow` is none of these.
    """

    log_z_parts = ("level",)

    def __init__(self, space: LatentSpace, copies: Count | None, backward: str, flow: str):
        super().__init__()
        for name, value, known in (("backward", backward, BACKWARD), ("flow", flow, FLOW)):
            if value not in known:
                raise ValueError(f"{name} is {' or '.join(known)}, not {value!r}")
        self.space, self.copies = space, copies or 1
        self.backward, self.flow = backward, flow
        self.level = nn.Parameter(torch.zeros(self.copies))
        state = space.initial_state(torch.zeros(1, dtype=torch.long), 1)
        self.actions = space.forward_mask(state).shape[2]
        self.undoings = space.backward_mask(state).shape[2] if backward == "learned" else 0
        self.flows = int(flow == "learned")

"""Why an order drawn at random is hard on a checkerboard: samplers of a parity among other bits.

In Gray code a square's colour is the parity of four bits, the two leading ones of each coordinate.
The target here is that parity with further bits beside it which say nothing.
"""

from __future__ import annotations

import math
import time
from typing import Any

import torch
from torch import Tensor, nn

from gfnem.em import EM
from gfnem.energies import AssignmentEnergy, AssignmentPolicy, AssignmentSpace
from gfnem.energies.recipes import free_sampler
from gfnem.posterior import Posterior
from gfnem.rates import Descent, Rates

#: bits of the parity, what it is worth in nats, and the sampler's divergence that counts as learned
BITS, STRENGTH, LEARNED = 4, 2.0, 0.3


class Parity(AssignmentEnergy):
    """`log p~` is `STRENGTH` times the product of some spins.

    Args:
        variables: how many spins there are.
        first: where those of the product begin.
    """

    def __init__(self, variables: int, first: int = 0):
        super().__init__(variables, 2)
        self.chosen = slice(first, first + BITS)
        self.strength = nn.Parameter(torch.tensor(STRENGTH), requires_grad=False)

    def score(self, features: Tensor) -> Tensor:
        """`(...)` nats."""
        return self.strength * features[..., self.chosen].prod(-1)


#: whether the order is fixed, whether `P_B` is learned, and whether the parity's bits come last
ORDERS = {
    "uniform": ("any", "uniform", False),
    "learned": ("any", "learned", False),
    "parity first": ("fixed", "uniform", False),
    "parity last": ("fixed", "uniform", True),
}


def parity(others: str, method: str, seed: int, device: str, updates: int | None, _: Any) -> dict:
    """Updates of 128 trajectories until a sampler has learned the parity among `others` bits."""
    torch.manual_seed(seed)
    variables = BITS + int(others)
    order, backward, last = ORDERS[method]
    model = Parity(variables, int(others) if last else 0).to(device)
    space = AssignmentSpace(variables, 2, order=order)
    policy = AssignmentPolicy(variables, 2, 1, order, backward, hidden=64, layers=2).to(device)
    nothing = torch.full((1, variables), -1, device=device)
    descent = Descent(EM(model, space, policy, free_sampler(samples=128)), Rates(policy=3e-3))
    log_z = variables * math.log(2) + math.log(math.cosh(STRENGTH))
    start, learned, divergence = time.perf_counter(), "", math.nan
    for number in range(updates or 2000):
        descent.update(nothing)
        if number % 50 == 49:
            weights = Posterior(model, space, policy, nothing).log_weights(1024)[1]
            divergence = log_z - weights.mean().item()
            if divergence < LEARNED:
                learned = number + 1
                break
    return {
        "learned_after": learned,
        "sampler_kl": divergence,
        "seconds": time.perf_counter() - start,
    }

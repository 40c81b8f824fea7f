"""Annealed importance sampling (Neal 2001): log Z where no sum is exact, and no sampler needed."""

from __future__ import annotations

import torch
from torch import Tensor

from gfnem.energies.chains import EnergyMoves, Gibbs
from gfnem.energies.models import AssignmentEnergy
from gfnem.energies.space import limits
from gfnem.mcmc import metropolis
from gfnem.target import Conditioned


class Tempered(AssignmentEnergy):
    """An energy whose log p~ is multiplied by `beta`: uniform at 0, itself at 1.

    Args:
        energy: the energy.
    """

    def __init__(self, energy: AssignmentEnergy):
        sizes = energy.visible, energy.values, energy.latent, energy.summed > 0
        super().__init__(*sizes, energy.counts)
        self.energy, self.beta = energy, 0.0

    def score(self, features: Tensor) -> Tensor:
        """`(...)` nats."""
        excluded = self.energy.excluded(features)  # at every beta
        return self.beta * (self.energy.score(features) - excluded) + excluded


@torch.no_grad()
def annealed_log_partition(
    model: AssignmentEnergy,
    chains: int = 256,
    steps: int = 200,
    sweeps: int = 1,
    moves: EnergyMoves | None = None,
) -> Tensor:
    """`(chains,)` log weights in nats, whose mean weight is an unbiased estimate of Z.

    Args:
        model: the energy.
        chains: independent ones.
        steps: temperatures between the uniform distribution and the energy's.
        sweeps: at each temperature as many moves as there are variables, so often.
        moves: of the chains; `Gibbs` if None.
    """
    tempered = Tempered(model)
    device = next(model.parameters()).device
    x = torch.full((1, model.visible), -1, device=device)
    going = (Gibbs() if moves is None else moves).given(Conditioned(tempered, x))
    z = going.initial(x, chains)
    written = model.variables - model.summed
    most = limits(model.values, model.variables, model.counts, device)[model.summed :]
    weights = most.log().sum().expand(chains)
    for step in range(steps):
        weights = weights + model.log_joint(x, z)[0] / steps
        tempered.beta = (step + 1) / steps
        z, _, _ = metropolis(going, lambda z: tempered.log_joint(x, z), x, z, sweeps * written)
    return weights

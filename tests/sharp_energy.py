"""An energy over bracketings that is far from uniform."""

import torch

from gfnem.parsing.bracket_prior.energy import BracketEnergy


def sharp_energy(dim=8, seed=1) -> BracketEnergy:
    """A random energy under which shapes differ by several nats."""
    torch.manual_seed(seed)
    energy = BracketEnergy(dim)
    with torch.no_grad():
        energy.join.weight.mul_(3.0)
        energy.score.weight.normal_(std=5.0)
    return energy

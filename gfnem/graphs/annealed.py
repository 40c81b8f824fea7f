"""The evidence of each family of a `NetworkPosterior`, by many annealed chains side by side."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from gfnem.graphs.networks import FamilyLikelihood, NetworkPosterior
from gfnem.graphs.tables import Tables
from gfnem.ranges import Count


@dataclass
class Families:
    """What the chains find.

    Attributes:
        table: `(n, sets)` float64 log evidence of each variable with each set of parents and their
            prior, in nats; -inf where a set holds the variable, and of families not looked at.
        inner, bias, outer: `(n, sets, chains, units, n)`, `(n, sets, chains, units)` twice: draws
            of the conditional posterior of each family's network.
    """

    table: Tensor
    inner: Tensor
    bias: Tensor
    outer: Tensor


@torch.no_grad()
def families(
    model: NetworkPosterior,
    x: Tables,
    chains: Count = 2000,
    moves: Count = 10,
    some: Tensor | None = None,
) -> Families:
    """Sequential Monte Carlo from the prior to the posterior (Del Moral et al. 2006).

    All families at once. The likelihood, output weights summed out, is taken to a power that rises
    so that nine tenths of the chains' effective number are left in each round; then chains are
    resampled, and each takes some random walk proposals.

    Args:
        model: the target.
        x: one data set.
        chains: of each family.
        moves: proposals to each chain in a round; five times as many in the last.
        some: `(n, sets)` bool families to look at; all if None.
    """
    likelihood = FamilyLikelihood(model, x, some=some)
    child, active = likelihood.child, likelihood.active

    def log_likelihood(theta: Tensor) -> Tensor:
        return likelihood.regressed(theta)[2]

    theta = likelihood.draw(chains)
    value = log_likelihood(theta)
    power = value.new_zeros(len(child))
    evidence = value.new_zeros(len(child))
    step = value.new_full((len(child),), 0.5)
    while (power < 1).any():
        low, high = torch.zeros_like(power), 1 - power
        for _ in range(30):  # the greatest rise that leaves enough of the chains
            middle = torch.where(_effective(high, value) > 0.9, high, (low + high) / 2)
            fine = _effective(middle, value) > 0.9
            low, high = torch.where(fine, middle, low), torch.where(fine, high, middle)
        rise = torch.where(_effective(1 - power, value) > 0.9, 1 - power, low.clamp(min=1e-6))
        rise = torch.minimum(rise, 1 - power)
        weight = rise[:, None] * value
        evidence = evidence + weight.logsumexp(1) - torch.tensor(float(chains)).log()
        power = power + rise
        heights = weight.softmax(1).cumsum(1)
        start = torch.rand(len(child), 1, dtype=value.dtype, device=x.device)
        even = (torch.arange(chains, device=x.device) + start) / chains
        index = torch.searchsorted(heights, even).clamp(max=chains - 1)
        theta = theta.gather(1, index[..., None, None].expand_as(theta))
        value = value.gather(1, index)
        last = bool((power >= 1).all())
        for _ in range(moves * (5 if last else 1)):
            # some steps are short: networks' posteriors have narrow and wide directions
            length = step[:, None] * 10 ** (-2 * torch.rand_like(value))
            new = theta + length[..., None, None] * torch.randn_like(theta) * active
            better = log_likelihood(new)
            ratio = power[:, None] * (better - value)
            ratio = ratio + (theta.square() - new.square()).sum((2, 3)) / 2
            accept = torch.rand_like(ratio).log() < ratio
            theta = torch.where(accept[..., None, None], new, theta)
            value = torch.where(accept, better, value)
            rate = accept.to(step).mean(1)
            step = (step * (1 + 0.3 * (rate - 0.4))).clamp(0.02, 3.0)
    mean, factor, _ = likelihood.regressed(theta)
    noise = torch.randn_like(mean)[..., None]
    outer = mean + torch.linalg.solve_triangular(factor.mT, noise, upper=True)[..., 0]
    outer = outer * active[..., 0, -1:]
    weights = theta * likelihood.scale
    prior = model.prior_table(x.device)

    def placed(part: Tensor, nothing: float = 0.0) -> Tensor:
        found = torch.full_like(part[:1], nothing).repeat(prior.numel(), *[1] * (part.dim() - 1))
        found = found.unflatten(0, prior.shape)
        found[child, likelihood.number] = part
        return found

    table = placed(evidence, -torch.inf) + prior
    return Families(table, placed(weights[..., :-1]), placed(weights[..., -1]), placed(outer))


def _effective(rise: Tensor, value: Tensor) -> Tensor:
    """`(families,)` share of the chains that count if the power rises by so much."""
    weight = (rise[:, None] * value).softmax(1)
    return 1 / weight.square().sum(1) / value.shape[1]

"""Rivals of `gfnem.recipes.eb_gfn` that need no sampler, for energies of complete rows."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from gfnem.batch import Batch, Draws
from gfnem.energies.chains import BlockGibbs, Gibbs
from gfnem.mcmc import LocalMoves
from gfnem.objectives import Objective, TrajectoryBalance
from gfnem.phases import MODEL, Phase, TrainModel, TrainPolicy
from gfnem.policy import Policy
from gfnem.ranges import Count, NotNegative, PartialShare, Positive, Share
from gfnem.recipes import recipe
from gfnem.schedules import Anneal
from gfnem.sources import Chains, Free, Moved, Own, PosteriorSamples, Released, Source, needs
from gfnem.space import LatentSpace
from gfnem.target import Target


@recipe
def contrastive(
    moves: LocalMoves | None = None,
    samples: Count = 128,
    steps: Count = 10,
    persistent: bool = True,
    latents: Count = 1,
    collapse: bool = True,
) -> list[Phase]:
    """Contrastive divergence (Hinton 2002), persistent (Tieleman 2008) or from the data.

    Args:
        moves: of the chains, by the energy; `Gibbs` if None.
        samples: chains, where they are persistent; else each observation starts one.
        steps: moves of each chain in each update.
        persistent: whether chains go on where the last update left them.
        latents: exact posterior samples for each observation, of an energy with latents.
        collapse: whether the model sums out what it can sum out of a sample in closed form.
    """
    seen = PosteriorSamples(latents)
    chosen = Gibbs() if moves is None else moves
    negative: Source = Free(Chains(samples, steps, True, chosen))
    if not persistent:
        negative = Moved(Released(seen), chosen, steps)
    return [TrainModel(seen, "equal", collapse, negative)]


class MeanField(Source):
    """Draws of a fully factorised distribution of a machine's latent units, fitted to each row.

    Args:
        samples: for each observation.
        sweeps: of the fixed-point equations.
    """

    def __init__(self, samples: Count = 1, sweeps: Count = 10):
        super().__init__()
        self.samples, self.sweeps = samples, sweeps

    def draw(self, batch: Batch) -> Draws:
        """Draws each unit by its mean."""
        means = torch.cat(batch.em.model.mean_field(batch.x, self.sweeps), 1)
        units = means[:, None].expand(-1, self.samples, -1).bernoulli().long()
        seen = batch.x[:, None].expand(-1, self.samples, -1)
        return Draws(batch, torch.cat([seen, units], 2))

    def check(self, model: Target, space: LatentSpace, policy: Policy) -> None:
        """The model must offer `mean_field`."""
        needs(model, "mean_field", "a mean-field positive phase")


@recipe
def mean_field_contrastive(
    samples: Count = 128, steps: Count = 1, latents: Count = 1
) -> list[Phase]:
    """A mean-field positive phase and persistent chains (Salakhutdinov and Hinton 2009).

    Args:
        samples: persistent chains, which sweep over the layers.
        steps: sweeps of each in each update.
        latents: draws of the mean-field distribution for each observation.
    """
    negative = Free(Chains(samples, steps, True, BlockGibbs()))
    return [TrainModel(MeanField(latents), "equal", False, negative)]


@recipe
def free_sampler(
    objective: Objective | None = None,
    samples: Count = 128,
    temperature: Positive | Anneal = 1.0,
    epsilon: Share | Anneal = 0.0,
) -> list[Phase]:
    """The sampler alone, of everything there is: for an energy that stays as it is.

    Args:
        objective: the loss; trajectory balance if None.
        samples: structures drawn in each update.
        temperature, epsilon: how they stray.
    """
    chosen = TrajectoryBalance() if objective is None else objective
    return [TrainPolicy(Free(Own(samples, temperature, epsilon)), chosen)]


class Sparse(Phase):
    """A penalty on the absolute couplings of a `Pairwise` energy, each pair once.

    Args:
        weight: nats for each unit of coupling.
    """

    trains = MODEL

    def __init__(self, weight: NotNegative = 0.1):
        super().__init__()
        self.weight = weight

    def forward(self, batch: Batch) -> Tensor:
        """`()` the penalty."""
        return self.weight * (batch.em.model.coupling.abs().sum() / 2)


class EnergyDiscrepancy(Phase):
    """Energy discrepancy of bits (Schroeder et al. 2023, arXiv 2307.07595, eq. 10): no sampler.

    A row is disturbed and disturbed again; it is to have less energy than what comes out.

    Args:
        flip: probability that a bit is flipped.
        others: disturbed rows for each observation.
        stabilise: weight of the row itself in the sum.
    """

    trains = MODEL

    def __init__(self, flip: PartialShare = 0.01, others: Count = 32, stabilise: NotNegative = 1.0):
        super().__init__()
        self.flip, self.others, self.stabilise = flip, others, stabilise

    def forward(self, batch: Batch) -> Tensor:
        """`()` the loss in nats."""
        x = batch.x[:, None]
        y = x ^ (torch.rand(x.shape, device=x.device) < self.flip)
        y = y.expand(-1, self.others, -1)
        z = torch.cat([x, y ^ (torch.rand(y.shape, device=x.device) < self.flip)], 1)
        value = batch.given.log_joint(z)
        more = value[:, 1:] - value[:, :1]
        if self.stabilise:
            own = torch.full_like(more[:, :1], math.log(self.stabilise))
            more = torch.cat([own, more], 1)
        loss = more.logsumexp(1).mean() - math.log(self.others)
        batch.figures["m_loss"] = loss.detach()
        return loss


class PseudoLikelihood(Phase):
    """The likelihood of each variable given all others (Besag 1975)."""

    trains = MODEL

    def forward(self, batch: Batch) -> Tensor:
        """`()` minus its mean, in nats a row."""
        x, model = batch.x, batch.em.model
        options = torch.arange(model.values, device=x.device)
        variables = x.shape[1]
        each = torch.eye(variables, dtype=torch.bool, device=x.device)
        # (batch, variables, values, variables): variable i of row i takes each value
        every = torch.where(each[:, None], options[:, None], x[:, None, None])
        value = batch.given.log_joint(every.flatten(1, 2)).unflatten(1, (variables, -1))
        log_p = value.log_softmax(2).gather(2, x.unsqueeze(2))
        loss = -log_p.sum((1, 2)).mean()
        batch.figures["m_loss"] = loss.detach()
        return loss


@recipe
def energy_discrepancy(
    flip: PartialShare = 0.01, others: Count = 32, stabilise: NotNegative = 1.0
) -> list[Phase]:
    """Energy discrepancy (see `EnergyDiscrepancy`), for energies of bits without latents."""
    return [EnergyDiscrepancy(flip, others, stabilise)]


@recipe
def pseudo_likelihood() -> list[Phase]:
    """Pseudo-likelihood, for energies without latents."""
    return [PseudoLikelihood()]

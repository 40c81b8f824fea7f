"""How well a trained model explains images: importance-sampled log likelihood."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from gfnem.images.model import DiscreteVAE
from gfnem.policy import Policy
from gfnem.posterior import Posterior
from gfnem.space import LatentSpace


@dataclass
class Likelihoods:
    """Estimates for each image, all `(images,)` and in nats.

    Attributes:
        log_marginal: importance-weighted `log p(x)`; in expectation a lower bound.
        error: its standard error (delta method on the mean weight).
        elbo: mean log weight.
        effective_samples: `(sum w)^2 / sum w^2`.
    """

    log_marginal: Tensor
    error: Tensor
    elbo: Tensor
    effective_samples: Tensor


@torch.no_grad()
def log_weights(
    model: DiscreteVAE, space: LatentSpace, policy: Policy, x: Tensor, samples: int
) -> Tensor:
    """`(batch, samples)` log importance weights of the policy's own draws, in nats.

    Where a grid has one trajectory, grids drawn more than once for an image are decoded once: the
    draws of a good sampler repeat each other, and the decoder is the dearer network.
    """
    if not space.unique_trajectory:
        return Posterior(model, space, policy, x).log_weights(samples)[1]
    drawn = policy.sample(policy.encode(x, model.given(x)), x, space, samples)
    cells, codes = drawn.latent.shape[2], model.codes
    if cells * math.log2(codes) + math.log2(len(x)) >= 62:  # the key below would overflow
        return model.log_joint(x, drawn.latent) - drawn.log_behaviour
    place = codes ** torch.arange(cells, device=x.device)
    key = (drawn.latent * place).sum(2)
    key = key + torch.arange(len(x), device=x.device)[:, None] * codes**cells
    different, which = key.flatten().unique(return_inverse=True)
    grids = different[:, None] // place % codes
    image = different // codes**cells
    blocks = zip(image.split(512), grids.split(512), strict=True)  # what fits a processor's cache
    log_joint = torch.cat([model.log_joint(x[i], z[:, None]).squeeze(1) for i, z in blocks])
    return log_joint[which].view(drawn.latent.shape[:2]) - drawn.log_behaviour


@torch.no_grad()
def likelihoods(
    model: DiscreteVAE,
    space: LatentSpace,
    policy: Policy,
    images: Tensor,
    samples: int,
    chunk: int = 20_000,
) -> Likelihoods:
    """Importance-sampled log likelihoods (Burda et al. 2016, eq. 8), `policy` the proposal.

    Args:
        model: what is measured.
        space: the space of `policy`.
        policy: the proposal.
        images: `(images, height, width)`.
        samples: importance samples for each image.
        chunk: grids drawn at a time; memory grows with it, the result's distribution does not
            depend on it.
    """
    parts: list[tuple[Tensor, ...]] = []
    width = min(samples, chunk)
    for x in images.split(max(1, chunk // width)):
        weights = [
            log_weights(model, space, policy, x, min(width, samples - start)).double()
            for start in range(0, samples, width)
        ]
        weight = torch.cat(weights, 1)
        log_marginal = weight.logsumexp(1) - math.log(samples)
        relative = (weight - log_marginal[:, None]).exp()
        error = torch.full_like(log_marginal, torch.nan)  # of one alone, which shows no spread
        if samples > 1:
            error = relative.std(1) / math.sqrt(samples)
        effective = samples / relative.square().mean(1)
        parts.append((log_marginal, error, weight.mean(1), effective))
    return Likelihoods(*(torch.cat(column) for column in zip(*parts, strict=True)))


def summary(figures: Likelihoods) -> dict[str, float]:
    """Means over images: `nll`, `elbo`, `gap` (all nats an image), errors, effective samples.

    `nll_error` is the standard error over images; `sampling_error` the part of it that importance
    sampling causes.
    """
    count = len(figures.log_marginal)
    spread = figures.log_marginal.std().item() / math.sqrt(count) if count > 1 else math.nan
    return {
        "nll": -figures.log_marginal.mean().item(),
        "nll_error": spread,
        "sampling_error": figures.error.square().sum().sqrt().item() / count,
        "elbo": figures.elbo.mean().item(),
        "gap": (figures.log_marginal - figures.elbo).mean().item(),
        "effective_samples": figures.effective_samples.median().item(),
    }

"""Hierarchical variational inference: the two divergences, for each of the two policies.

Malkin et al. 2023 (arXiv 2210.00580) compare GFlowNet objectives with these estimators.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from gfnem.objectives import Objective, log_ratio

DIVERGENCES = ("reverse", "forward")
BASELINES = ("none", "batch", "leave-one-out")


def hierarchical(
    log_pf: Float[Tensor, "batch samples steps"],
    log_pb: Float[Tensor, "batch samples steps"],
    log_reward: Float[Tensor, "batch samples"],
    log_behaviour: Float[Tensor, "batch samples"] | None = None,
    forward: str = "reverse",
    backward: str = "reverse",
    baseline: str = "leave-one-out",
) -> Float[Tensor, " batch"]:
    """A surrogate whose gradient estimates that of a divergence for each policy.

    The reverse divergence is `KL(P_F || P_B R / Z)`, the forward one `KL(P_B R / Z || P_F)`.
    Expectations are those over samples with self-normalised weights: `P_F / behaviour` for the
    reverse divergence, `R P_B / behaviour` for the forward one. Where the score function multiplies
    a number, a baseline is taken off it: the mean over all samples of an `x`, or over the others
    (Kool et al. 2019). The value is the negative ELBO of the samples so weighted.

    Args:
        log_pf, log_pb: `(batch, samples, steps)` nats.
        log_reward: `(batch, samples)` nats.
        log_behaviour: `(batch, samples)` of the distribution that samples were drawn from; the
            policy's own if None.
        forward, backward: the divergence that trains `P_F`, and that which trains `P_B`.
        baseline: "none", "batch" or "leave-one-out".
    """
    log_f, log_b = log_pf.sum(2), log_pb.sum(2)
    ratio = log_ratio(log_pf, log_pb, log_reward)
    found = ratio.detach()
    drawn = log_f.detach() if log_behaviour is None else log_behaviour
    own = (log_f.detach() - drawn).softmax(1)  # as if drawn from P_F
    ideal = (log_reward + log_b.detach() - drawn).softmax(1)  # as if from P_B R / Z
    if forward == "reverse":
        loss = (own * _above(found, own, baseline) * log_f).sum(1)
    else:  # of the weights, which add up to 1, the mean is that of samples of P_F
        loss = -((ideal - _usual(own, ideal, baseline)) * log_f).sum(1)
    if backward == "reverse":
        loss = loss - (own * log_b).sum(1)
    else:
        loss = loss - (ideal * _above(found, ideal, baseline) * log_b).sum(1)
    return loss - loss.detach() + (own * found).sum(1)


def _above(value: Tensor, weight: Tensor, baseline: str) -> Tensor:
    """Values `(batch, samples)` less their weighted mean, over all samples or over the others."""
    if baseline == "none":
        return value
    mean = (weight * value).sum(1, keepdim=True)
    if baseline == "batch":
        return value - mean
    others = (1 - weight).clamp(min=torch.finfo(value.dtype).eps)
    return value - (mean - weight * value) / others


def _usual(own: Tensor, ideal: Tensor, baseline: str) -> Tensor:
    """What a sample's weight `(batch, samples)` is where it is no better than the rest."""
    if baseline == "none":
        return torch.zeros_like(own)
    if baseline == "batch":
        return own
    others = (1 - own).clamp(min=torch.finfo(own.dtype).eps)
    return own * (1 - ideal) / others


class HierarchicalVI(Objective):
    """One of two divergences for each policy (Malkin et al. 2023, arXiv 2210.00580).

    `forward` and `backward` both "reverse" is the reverse KL divergence, both "forward" the forward
    one; "forward" and "reverse" is wake-sleep, where each policy learns the other's samples, and
    "reverse" and "forward" reverse wake-sleep. Samples may stray if their source knows how
    probable they were; they are then weighted.

    Args:
        forward: trains `P_F`.
        backward: trains `P_B`.
        baseline: "none", "batch" or "leave-one-out", over the samples of each `x`.

    Raises:
        ValueError: for any other word.
    """

    least_samples = 2

    def __init__(
        self, forward: str = "reverse", backward: str = "reverse", baseline: str = "leave-one-out"
    ):
        super().__init__()
        for name, value, known in (
            ("forward", forward, DIVERGENCES),
            ("backward", backward, DIVERGENCES),
            ("baseline", baseline, BASELINES),
        ):
            if value not in known:
                raise ValueError(f"{name} is one of {', '.join(known)}, not {value!r}")
        self.divergences, self.baseline = (forward, backward), baseline

    def forward(self, scores, log_reward, log_partial=None):
        """See `hierarchical`."""
        return hierarchical(
            scores.log_pf, scores.log_pb, log_reward, scores.log_behaviour, *self.divergences,
            self.baseline,
        )  # fmt: skip

"""GFlowNet objectives: pure functions of log probabilities, and their named forms.

Every function takes tensors in nats: `log_pf`, `log_pb` `(batch, samples, steps)` with zeros where
`mask` is False, `log_reward` `(batch, samples)`, flows `(batch, samples, steps + 1)`. Each returns
`(batch,)` losses, one for each `x`, so that what is conditional on `x` stays so.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from gfnem.component import Component
from gfnem.estimates import importance_weighted
from gfnem.policy import Scores
from gfnem.ranges import Count, NotNegative, Positive

#: weight of the level of `log_z` in `centred_balance`
LEVEL = 0.01


def log_ratio(
    log_pf: Float[Tensor, "batch samples steps"],
    log_pb: Float[Tensor, "batch samples steps"],
    log_reward: Float[Tensor, "batch samples"],
) -> Float[Tensor, "batch samples"]:
    """`(batch, samples)` of `log P_F(tau) - log P_B(tau|z) - log R(z)`, in nats."""
    return log_pf.sum(2) - log_pb.sum(2) - log_reward


def trajectory_balance(
    log_pf: Float[Tensor, "batch samples steps"],
    log_pb: Float[Tensor, "batch samples steps"],
    log_reward: Float[Tensor, "batch samples"],
    log_z: Float[Tensor, " batch"],
) -> Float[Tensor, " batch"]:
    """Trajectory balance with a conditional `log_z` `(batch,)` (Malkin et al. 2022, eq. 14)."""
    residual = log_z[:, None] + log_ratio(log_pf, log_pb, log_reward)
    return residual.square().mean(1)


def vargrad(
    log_pf: Float[Tensor, "batch samples steps"],
    log_pb: Float[Tensor, "batch samples steps"],
    log_reward: Float[Tensor, "batch samples"],
) -> Float[Tensor, " batch"]:
    """Log-variance over the samples of each `x` (Richter et al. 2020, eq. 7; Zhang et al. 2023).

    The unbiased variance of the log ratio: trajectory balance with `log Z(x)` replaced by its best
    constant, so nothing about `Z` is learned. At least two samples for each `x` are needed.
    """
    return _variance(log_ratio(log_pf, log_pb, log_reward))


def _variance(ratio: Float[Tensor, "batch samples"]) -> Float[Tensor, " batch"]:
    if ratio.shape[1] < 2:
        raise ValueError("VarGrad compares the samples of one x: it needs at least 2 of them")
    return ratio.var(1)


def huber(square: Tensor) -> Tensor:
    """The pseudo-Huber loss `sqrt(1 + r^2) - 1` of squared residuals `r^2`.

    Half of these if they are small, `|r|` if large.
    """
    return (1 + square).sqrt() - 1


def centred_balance(
    log_pf: Float[Tensor, "batch samples steps"],
    log_pb: Float[Tensor, "batch samples steps"],
    log_reward: Float[Tensor, "batch samples"],
    log_z: Float[Tensor, " batch"],
) -> Float[Tensor, " batch"]:
    """Trajectory balance whose policy need not wait for `log_z` `(batch,)`: see `vargrad`.

    The squared residual is a variance and a squared mean. The policy is trained on the variance,
    and `log_z` on `sqrt(1 + m^2) - 1` of the mean `m`, with a weight so small that a level that is
    far off does not drown the rest where both share parameters.
    """
    ratio = log_ratio(log_pf, log_pb, log_reward)
    level = log_z + ratio.detach().mean(1)
    return _variance(ratio) + LEVEL * huber(level.square())


def _complete_flow(
    mask: Bool[Tensor, "batch samples steps"],
    log_flow: Float[Tensor, "batch samples steps+1"],
    log_reward: Float[Tensor, "batch samples"],
    log_partial: Float[Tensor, "batch samples steps+1"] | None,
    ends: Bool[Tensor, "batch samples steps+1"] | None = None,
) -> Float[Tensor, "batch samples steps+1"]:
    """Adds forward-looking credit and puts the reward at every trajectory's end."""
    if log_partial is not None:
        log_flow = log_flow + log_partial
    if ends is None:
        no = mask.new_zeros(*mask.shape[:2], 1)
        ends = torch.cat([no, mask], 2) & ~torch.cat([mask, no], 2)
    return torch.where(ends, log_reward[:, :, None], log_flow)


def detailed_balance(
    log_pf: Float[Tensor, "batch samples steps"],
    log_pb: Float[Tensor, "batch samples steps"],
    log_reward: Float[Tensor, "batch samples"],
    log_flow: Float[Tensor, "batch samples steps+1"],
    mask: Bool[Tensor, "batch samples steps"],
    log_partial: Float[Tensor, "batch samples steps+1"] | None = None,
    ends: Bool[Tensor, "batch samples steps+1"] | None = None,
    pseudo_huber: bool = False,
) -> Float[Tensor, " batch"]:
    """Detailed balance (Bengio et al. 2023, eq. 18), mean over a trajectory's steps.

    Of trajectories that are not whole, `ends` `(batch, samples, steps + 1)` says which states are
    final; without it those after a last step are. With `log_partial` (of the same shape, a target's
    partial log joint) it is the forward-looking form (Pan et al. 2023): `log_flow` then only models
    what is still to come. With `pseudo_huber` a residual `r` counts `sqrt(1 + r^2) - 1`.
    """
    flow = _complete_flow(mask, log_flow, log_reward, log_partial, ends)
    residual = (flow[:, :, :-1] + log_pf - log_pb - flow[:, :, 1:]).masked_fill(~mask, 0.0)
    each = residual.square()
    each = huber(each) if pseudo_huber else each
    return (each.sum(2) / mask.sum(2).clamp(min=1)).mean(1)


def sub_trajectory_balance(
    log_pf: Float[Tensor, "batch samples steps"],
    log_pb: Float[Tensor, "batch samples steps"],
    log_reward: Float[Tensor, "batch samples"],
    log_flow: Float[Tensor, "batch samples steps+1"],
    mask: Bool[Tensor, "batch samples steps"],
    decay: float = 0.9,
    log_partial: Float[Tensor, "batch samples steps+1"] | None = None,
) -> Float[Tensor, " batch"]:
    """SubTB(lambda) over all pairs of states (Madan et al. 2023, eq. 12), `decay` its lambda.

    All pairs at once: a `(batch, samples, steps + 1, steps + 1)` table of residuals.
    """
    flow = _complete_flow(mask, log_flow, log_reward, log_partial)
    done = torch.nn.functional.pad((log_pf - log_pb).cumsum(2), (1, 0))
    level = flow - done  # a sub-trajectory i..j is balanced iff level[i] == level[j]
    residual = level.unsqueeze(3) - level.unsqueeze(2)
    no = mask.new_zeros(*mask.shape[:2], 1)
    begins, ends = torch.cat([mask, no], 2), torch.cat([no, mask], 2)
    time = torch.arange(flow.shape[2], device=flow.device)
    length = time - time[:, None]
    pairs = (length > 0) & begins.unsqueeze(3) & ends.unsqueeze(2)
    # over the largest weight of each trajectory, since powers of a decay above 1 overflow
    power = length - mask.sum(2)[..., None, None] if decay > 1 else length
    weight = torch.where(pairs, decay ** power.to(flow), 0.0)
    total = weight.sum((2, 3)).clamp(min=torch.finfo(flow.dtype).tiny)
    return ((weight * residual.square()).sum((2, 3)) / total).mean(1)


def reverse_kl(
    log_pf: Float[Tensor, "batch samples steps"],
    log_pb: Float[Tensor, "batch samples steps"],
    log_reward: Float[Tensor, "batch samples"],
) -> Float[Tensor, " batch"]:
    """A surrogate whose gradient is that of `KL(P_F || P_B R / Z)`, up to noise.

    Score-function estimator with a leave-one-out baseline over the samples of each `x` (Kool et al.
    2019). It is an on-policy estimator: explored samples bias it. The value returned is the
    negative ELBO estimate.
    """
    ratio = log_ratio(log_pf, log_pb, log_reward)
    samples = ratio.shape[1]
    if samples < 2:
        raise ValueError("the leave-one-out baseline needs at least 2 samples of each x")
    advantage = (ratio - ratio.mean(1, keepdim=True)).detach() * samples / (samples - 1)
    surrogate = advantage * log_pf.sum(2) + ratio - log_pf.sum(2)  # the latter trains log_pb
    return (surrogate - surrogate.detach() + ratio.detach()).mean(1)


def forward_kl(
    log_pf: Float[Tensor, "batch samples steps"], log_weight: Float[Tensor, "batch samples"]
) -> Float[Tensor, " batch"]:
    """Maximum likelihood of weighted trajectories (reweighted wake-sleep, Bornschein et al. 2015).

    `log_weight` `(batch, samples)`, unnormalised and held constant: importance weights for samples
    of the policy, equal ones for samples of the model itself (the sleep phase).
    """
    return -(log_weight.detach().softmax(1) * log_pf.sum(2)).sum(1)


class Objective(Component, nn.Module, ABC):
    """A named choice of loss for the E-step."""

    #: whether `Scores.log_flow` is needed
    needs_flow: bool = False
    #: whether it is used where the policy offers it
    uses_flow: bool = False
    #: whether samples must be the policy's own: others bias it
    on_policy: bool = False
    #: whether the reward is looked at
    uses_reward: bool = True
    #: how many samples of one `x` it takes
    least_samples: int = 1
    #: whether `Scores.log_z` is needed
    needs_log_z: bool = False
    #: whether the target's partial log joint is used
    forward_looking: bool = False
    #: how many steps of a trajectory are looked at, drawn at random; all if None
    steps: int | None = None
    recordable = True  # a function of what it is given

    @abstractmethod
    def forward(
        self,
        scores: Scores,
        log_reward: Float[Tensor, "batch samples"],
        log_partial: Float[Tensor, "batch samples visited"] | None = None,
    ) -> Float[Tensor, " batch"]:
        """`(batch,)` losses from scores, rewards `(batch, samples)` and optional credit."""


class TrajectoryBalance(Objective):
    """Trajectory balance with the policy's learned conditional `log Z(x)`.

    Args:
        centred: see `centred_balance`: for a target that moves while the policy learns.
    """

    needs_log_z = True

    def __init__(self, centred: bool = False):
        super().__init__()
        self.centred = centred
        self.least_samples = 2 if centred else 1

    def forward(self, scores, log_reward, log_partial=None):
        """See `trajectory_balance` and `centred_balance`."""
        assert scores.log_z is not None
        balance = centred_balance if self.centred else trajectory_balance
        return balance(scores.log_pf, scores.log_pb, log_reward, scores.log_z)


class VarGrad(Objective):
    """Log-variance over the samples of each `x`.

    Args:
        pseudo_huber: takes `sqrt(1 + variance) - 1` of each `x` instead, which has the same
            minimum. Far from it this grows like the standard deviation, so that the few `x` that
            the sampler understands least do not drown all others (nor the sleep phase).
    """

    least_samples = 2

    def __init__(self, pseudo_huber: bool = False):
        super().__init__()
        self.pseudo_huber = pseudo_huber

    def forward(self, scores, log_reward, log_partial=None):
        """See `vargrad`."""
        variance = vargrad(scores.log_pf, scores.log_pb, log_reward)
        return huber(variance) if self.pseudo_huber else variance


class BalancedVarGrad(VarGrad):
    """VarGrad of whole trajectories and detailed balance of their steps, added up.

    Both are zero where the policy samples exactly in proportion to the reward. The variance is an
    unbiased but noisy signal; detailed balance tells every step what the flow behind it is worth,
    with no noise from the choices made later. Where the policy offers no flows it is plain VarGrad.
    So it is where the flows know nothing of the target at first (`Scores.guided`): their error,
    a hundred nats for a sentence, would drown what the samples tell.

    Args:
        local: weight of detailed balance.
        evidence: weight of the squared distance of `log_z` from its importance-weighted estimate by
            the samples of each `x`. Balance alone makes it a lower bound where the policy is not
            exact, off by as much as the ELBO gap.
        pseudo_huber: of the variance and of detailed balance, see `VarGrad` and `detailed_balance`:
            where a policy starts hundreds of nats off, the worst steps do not drown all others.
    """

    uses_flow = True

    def __init__(
        self, local: NotNegative = 3.0, pseudo_huber: bool = False, evidence: NotNegative = 0.0
    ):
        super().__init__(pseudo_huber)
        self.local, self.evidence = local, evidence
        self.needs_log_z = evidence > 0

    def forward(self, scores, log_reward, log_partial=None):
        """See `vargrad` and `detailed_balance`."""
        loss = super().forward(scores, log_reward)
        if self.evidence:
            log_q = scores.log_pf.sum(2) if scores.log_behaviour is None else scores.log_behaviour
            log_weight = (log_reward + scores.log_pb.sum(2) - log_q).detach()
            away = scores.log_z - importance_weighted(log_weight)
            loss = loss + self.evidence * away.square()
        if scores.log_flow is None or not scores.guided:
            return loss
        return loss + self.local * detailed_balance(
            scores.log_pf,
            scores.log_pb,
            log_reward,
            scores.log_flow,
            scores.mask,
            pseudo_huber=self.pseudo_huber,
        )


class DetailedBalance(Objective):
    """Detailed balance: every step balances the flows of its two states.

    Args:
        forward_looking: whether the target's partial log joint is added to the flow.
        steps: how many steps of each trajectory are looked at, drawn uniformly anew each time: an
            unbiased estimate of the loss by fewer states. All if None.

    Raises:
        ValueError: if some steps are to look forward, which takes all of them.
    """

    needs_flow = True

    def __init__(self, forward_looking: bool = False, steps: Count | None = None):
        super().__init__()
        if forward_looking and steps is not None:
            raise ValueError("forward_looking needs all steps: leave steps out")
        self.forward_looking, self.steps = forward_looking, steps

    def forward(self, scores, log_reward, log_partial=None):
        """See `detailed_balance`."""
        assert scores.log_flow is not None
        return detailed_balance(
            scores.log_pf,
            scores.log_pb,
            log_reward,
            scores.log_flow,
            scores.mask,
            log_partial,
            scores.ends,
        )


class SubTrajectoryBalance(Objective):
    """SubTB(lambda), all sub-trajectories weighted by `decay ** length`.

    Args:
        decay: lambda; near 0 is detailed balance, large values are trajectory balance.
        forward_looking: whether the target's partial log joint is added to the flow.
    """

    needs_flow = True

    def __init__(self, decay: Positive = 0.9, forward_looking: bool = False):
        super().__init__()
        self.decay = decay
        self.forward_looking = forward_looking

    def forward(self, scores, log_reward, log_partial=None):
        """See `sub_trajectory_balance`."""
        assert scores.log_flow is not None
        return sub_trajectory_balance(
            scores.log_pf,
            scores.log_pb,
            log_reward,
            scores.log_flow,
            scores.mask,
            self.decay,
            log_partial,
        )


class ReverseKL(Objective):
    """Score-function gradient of the ELBO: hierarchical variational inference, no GFlowNet loss."""

    on_policy = True
    least_samples = 2

    def forward(self, scores, log_reward, log_partial=None):
        """See `reverse_kl`."""
        return reverse_kl(scores.log_pf, scores.log_pb, log_reward)


class ForwardKL(Objective):
    """The wake phase of reweighted wake-sleep (Bornschein et al. 2015, arXiv 1406.2751).

    The policy's likelihood of its own samples, weighted by self-normalised `R P_B / P_F`.
    """

    on_policy = True

    def forward(self, scores, log_reward, log_partial=None):
        """See `forward_kl`; `log_pf` here and in the weights is on-policy."""
        log_weight = -log_ratio(scores.log_pf, scores.log_pb, log_reward)
        return forward_kl(scores.log_pf, log_weight)


class MaximumLikelihood(Objective):
    """The policy's surprise at trajectories that are given: the sleep phase, or imitation."""

    uses_reward = False

    def forward(self, scores, log_reward, log_partial=None):
        """See `forward_kl`, all weights equal."""
        return forward_kl(scores.log_pf, log_reward * 0)


class BackwardLikelihood(Objective):
    """The backward policy's surprise at the sampler's own trajectories, given their ends.

    It makes `P_B(tau|z)` the forward policy's own posterior over trajectories (Jang et al. 2024,
    "Pessimistic Backward Policy for GFlowNets"); the forward policy is left alone.
    """

    on_policy = True
    uses_reward = False

    def forward(self, scores, log_reward, log_partial=None):
        """`(batch,)` minus the mean `log P_B` of whole trajectories."""
        return -scores.log_pb.sum(2).mean(1)

"""Entropy-regularised reinforcement learning, and what of it is a GFlowNet objective.

At temperature 1 the optimal policy follows a trajectory in proportion to the exponential of what it
earns. Where `log R` is earned at the end and nothing before, it ends in `x` in proportion to
`n(x) R(x)`, with `n` the number of trajectories to `x`. Where each step earns `log P_B` besides, it
ends in `x` in proportion to `R(x)`, and the losses below are GFlowNet objectives (Tiapkin et al.
2024, arXiv 2310.12934; Deleu et al. 2024, arXiv 2402.10309).
"""

from __future__ import annotations

from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from gfnem.objectives import Objective


def path_consistency(
    log_policy: Float[Tensor, "batch samples steps"],
    earned: Float[Tensor, "batch samples steps"],
    value: Float[Tensor, " batch"],
) -> Float[Tensor, " batch"]:
    """Path consistency of whole trajectories (Nachum et al. 2017, arXiv 1702.08892).

    With `earned` the steps' `log P_B`, and `log R` in the last besides, it is trajectory balance,
    `value` being `log Z`.

    Args:
        log_policy: `(batch, samples, steps)` log probabilities of the actions taken.
        earned: `(batch, samples, steps)` rewards in nats.
        value: `(batch,)` soft value of the initial state.
    """
    return (value[:, None] - (earned - log_policy).sum(2)).square().mean(1)


def soft_q(
    q: Float[Tensor, "batch samples steps"],
    earned: Float[Tensor, "batch samples steps"],
    next_q: Float[Tensor, "batch samples steps actions"],
    last: Float[Tensor, "batch samples steps"],
) -> Float[Tensor, " batch"]:
    """The soft Bellman error of Q-learning (Haarnoja et al. 2017, arXiv 1702.08165).

    With `earned` the steps' `log P_B` it is detailed balance, where `Q(s, a)` is
    `log F(s) + log P_F(a|s)`: then `log F` is the soft value and `P_F` the soft policy.

    Args:
        q: `(batch, samples, steps)` of the actions taken.
        earned: `(batch, samples, steps)` rewards in nats, that of the end included.
        next_q: `(batch, samples, steps, actions)` of the states reached, -inf where an action is
            not permitted.
        last: `(batch, samples, steps)` 1 for steps that end a trajectory: nothing follows.
    """
    follows = torch.where(last > 0, 0.0, next_q.logsumexp(3))
    return (q - earned - follows).square().mean(2).mean(1)


class SoftRL(Objective):
    """A GFlowNet objective without its backward policy: soft RL, which earns `log R` at the end.

    It samples in proportion to `n(x) R(x)`. That is the same where every structure has equally many
    trajectories, as in a tree or where all variables are assigned in any order; elsewhere it is
    biased.

    Args:
        objective: the loss whose `P_B` is left out.
    """

    def __init__(self, objective: Objective):
        super().__init__()
        self.objective = objective
        for name in (
            "needs_flow", "uses_flow", "on_policy", "uses_reward", "least_samples", "needs_log_z",
            "forward_looking", "steps",
        ):  # fmt: skip
            setattr(self, name, getattr(objective, name))

    def forward(self, scores, log_reward, log_partial=None):
        """The objective's loss with `log P_B` 0."""
        nothing = torch.zeros_like(scores.log_pb)
        return self.objective(replace(scores, log_pb=nothing), log_reward, log_partial)

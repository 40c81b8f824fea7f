"""What the figures of `claims.py` compute: copies trained in one batch, measured exactly."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from gfnem.objectives import Objective
from gfnem.policy import Scores
from gfnem.sampling import Exploration
from gfnem.space import LatentSpace, Trajectories
from gfnem.toys.figures import compared, terminal
from gfnem.toys.policy import ToyPolicy
from gfnem.toys.reward import ToyReward


@dataclass
class Method:
    """One way to train some copies of a policy.

    Attributes:
        name: what a figure calls it.
        objective: its loss.
        share: of trajectories that are drawn backwards with P_B from structures drawn uniformly.
        epsilon: probability that a step of the others is drawn uniformly.
        rate: Adam's learning rate at the start.
        corrected: whether `P_B` counts; without it the loss is that of soft RL.
    """

    name: str
    objective: Objective
    share: float = 0.0
    epsilon: float = 0.0
    rate: float = 0.05
    corrected: bool = True


@torch.no_grad()
def drawn(
    policy: ToyPolicy,
    space: LatentSpace,
    reward: ToyReward,
    x: Tensor,
    samples: int,
    method: Method,
) -> Trajectories:
    """`samples` trajectories for each copy; they know how probable they were."""
    context, back = policy.encode(x), round(method.share * samples)
    forth = policy.sample(context, x, space, samples - back, Exploration(epsilon=method.epsilon))
    if not back:
        return forth
    every = reward.every(x.device)
    z = every[torch.randint(len(every), (len(x), back), device=x.device)]
    retraced = policy.retrace(context, x, space, z)
    both = joined(forth, retraced)
    # the mixture's probability of each trajectory, whichever part it came from
    scores = policy.score(context, space, both)
    uniform = scores.log_pb.sum(2) - torch.log(torch.tensor(float(len(every))))
    own = scores.log_pf.sum(2) if method.epsilon == 0 else both.log_behaviour
    parts = torch.stack([own + _log(1 - method.share), uniform + _log(method.share)])
    both.log_behaviour = parts.logsumexp(0)
    return both


def _log(value: float) -> Tensor:
    return torch.log(torch.tensor(value))


def joined(one: Trajectories, other: Trajectories) -> Trajectories:
    """Both sets of samples of each `x`, the shorter trajectories padded at their start."""
    steps = max(part.mask.shape[2] for part in (one, other))
    padded = []
    for part in (one, other):
        more = steps - part.mask.shape[2]
        pad = torch.nn.functional.pad
        padded.append(
            Trajectories(
                part.latent,
                [part.states[0]] * more + part.states,
                pad(part.actions, (more, 0)),
                pad(part.backward_actions, (more, 0)),
                pad(part.mask, (more, 0)),
                part.log_behaviour,
            )
        )
    return Trajectories.cat(padded)


def train(
    policy: ToyPolicy,
    space: LatentSpace,
    reward: ToyReward,
    methods: Sequence[Method],
    seeds: int,
    updates: int,
    samples: int = 64,
    last_rate: float = 0.1,
    every: int | None = None,
    tell: Callable[[int, dict[str, Tensor]], None] | None = None,
) -> None:
    """Trains copy `m * seeds + s` by method `m`; all copies at once.

    Losses are added up, no parameter is shared, and Adam goes by entries, so that this is what
    separate runs would do. Gradients are scaled to give each method its learning rate: Adam's steps
    do not depend on the scale of a gradient, so rates are put on the steps instead.

    Args:
        policy: with as many copies as there are methods times seeds.
        space, reward: of all of them.
        methods: see `Method`.
        seeds: copies of each.
        updates: of each.
        samples: trajectories in an update of a copy.
        last_rate: what share of its learning rate a method ends with; it falls exponentially.
        every: updates between two calls of `tell`.
        tell: is given the number of updates and the figures of `gfnem.toys.figures.compared`.
    """
    x = torch.arange(policy.copies)
    parameters = list(policy.parameters())
    optimizer = torch.optim.Adam(parameters, lr=1.0)
    rates = torch.tensor([method.rate for method in methods]).repeat_interleave(seeds)
    for update in range(updates + 1):
        if tell is not None and (update % (every or updates) == 0):
            tell(update, compared(reward, policy.graph, terminal(policy.graph, policy, x)))
        loss = torch.zeros(())
        for number, method in enumerate(methods):
            own = x[number * seeds : (number + 1) * seeds]
            found = drawn(policy, space, reward, own, samples, method)
            loss = loss + _loss(policy, space, reward, own, found, method).sum()
        optimizer.zero_grad()
        loss.backward()
        before = [parameter.detach().clone() for parameter in parameters]
        optimizer.step()
        fall = last_rate ** (update / updates)
        with torch.no_grad():
            for old, parameter in zip(before, parameters, strict=True):
                rate = fall * rates.reshape(-1, *[1] * (parameter.dim() - 1))
                rate = rate if parameter.dim() > 1 else 10 * rate  # log Z has a long way to go
                parameter.copy_(old + rate * (parameter - old))


def _loss(policy, space, reward, x, found: Trajectories, method: Method) -> Tensor:
    objective = method.objective
    flows = objective.needs_flow
    scores: Scores = policy.score(policy.encode(x), space, found, flows=flows)
    scores.log_behaviour = found.log_behaviour if method.share or method.epsilon else None
    if not method.corrected:
        scores.log_pb = torch.zeros_like(scores.log_pb)
    partial = None
    if objective.forward_looking:
        cells = torch.stack([state.cell for state in found.states], 2)
        partial = reward.log_reward(cells)
    return objective(scores, reward.log_joint(x, found.latent), partial)


def table(
    methods: Sequence[Method], seeds: int, figures: dict[str, Tensor]
) -> list[dict[str, Any]]:
    """A row for each copy."""
    return [
        {"method": method.name, "seed": seed}
        | {name: value[number * seeds + seed].item() for name, value in figures.items()}
        for number, method in enumerate(methods)
        for seed in range(seeds)
    ]

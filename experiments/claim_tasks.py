"""What the figures of `claims.py` compute: copies trained in one batch, measured exactly."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from gfnem.objectives import Objective
from gfnem.policy import Scores
from gfnem.sampling import Exploration
from gfnem.space import Trajectories
from gfnem.toys.figures import compared, terminal
from gfnem.toys.reward import ToyReward
from gfnem.toys.table import ListedPolicy, Tables


@dataclass
class Method:
    """One way to train some copies of a policy.

    Attributes:
        name: what a figure calls it.
        objective: its loss.
        share: of trajectories that are drawn backwards with P_B from structures drawn uniformly.
        epsilon: probability that a step of the others is drawn uniformly.
        rate: Adam's learning rate at the start.
    """

    name: str
    objective: Objective
    share: float = 0.0
    epsilon: float = 0.0
    rate: float = 0.05


@torch.no_grad()
def drawn(
    policy: ListedPolicy, context: Tables, reward: ToyReward, samples: int, method: Method
) -> Trajectories:
    """`samples` trajectories for each copy, some of them drawn backwards."""
    x, back = context.copy, round(method.share * samples)
    space, exploration = policy.space, Exploration(epsilon=method.epsilon)
    found = [policy.sample(context, x, space, samples - back, exploration)]
    if back:
        every = reward.every(x.device)
        z = every[torch.randint(len(every), (len(x), back), device=x.device)]
        found.append(policy.retrace(context, x, space, z))
    if not method.objective.forward_looking:  # nothing else looks at the states
        found = [dataclasses.replace(part, states=None) for part in found]
    return joined(*found) if back else found[0]


def behaviour(scores: Scores, found: Trajectories, objects: int, method: Method) -> Tensor | None:
    """`(batch, samples)` log probability of each trajectory under the mixture drawn from."""
    if not method.share:
        return found.log_behaviour if method.epsilon else None
    assert not method.epsilon, "of retraced trajectories the explored probability is not known"
    own, back = scores.log_pf.detach().sum(2), scores.log_pb.detach().sum(2) - math.log(objects)
    return torch.logaddexp(own + math.log(1 - method.share), back + math.log(method.share))


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
                part.states and [part.states[0]] * more + part.states,
                pad(part.actions, (more, 0)),
                pad(part.backward_actions, (more, 0)),
                pad(part.mask, (more, 0)),
                part.log_behaviour,
            )
        )
    return Trajectories.cat(padded)


def train(
    policy: ListedPolicy,
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
        reward: of all of them.
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
    groups = [
        [number for number, other in enumerate(methods) if drawing(other) == way]
        for way in dict.fromkeys(drawing(method) for method in methods)
    ]
    for update in range(updates + 1):
        if tell is not None and (update % (every or updates) == 0):
            tell(update, compared(reward, policy.graph, terminal(policy.graph, policy, x)))
        context, loss = policy.encode(x), torch.zeros(())
        for alike in groups:  # those that draw alike do so together
            rows = (torch.tensor(alike)[:, None] * seeds + torch.arange(seeds)).flatten()
            own = context.take(rows)
            found = drawn(policy, own, reward, samples, methods[alike[0]])
            flows = any(methods[number].objective.needs_flow for number in alike)
            scores = policy.score(own, policy.space, found, flows=flows)
            for place, number in enumerate(alike):
                part = slice(place * seeds, (place + 1) * seeds)
                loss = loss + _loss(policy, reward, methods[number], found, scores, part).sum()
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


def drawing(method: Method) -> tuple[float, float, bool]:
    """How a method draws, and whether states are looked at."""
    return method.share, method.epsilon, method.objective.forward_looking


def _loss(
    policy: ListedPolicy,
    reward: ToyReward,
    method: Method,
    found: Trajectories,
    scores: Scores,
    part: slice,
) -> Tensor:
    """The losses of some of the copies in what a group of methods drew."""
    objective, own, partial = method.objective, scores_of(scores, part), None
    found = dataclasses.replace(
        found,
        latent=found.latent[part],
        states=found.states and [state[part] for state in found.states],
        log_behaviour=found.log_behaviour[part],
    )
    own.log_behaviour = behaviour(own, found, len(policy.graph.ends), method)
    if objective.forward_looking:
        partial = [reward.partial_log_joint(found.mask, state) for state in found.states]
        partial = torch.stack(partial, 2)
    return objective(own, reward.log_reward(found.latent), partial)


def scores_of(scores: Scores, part: slice) -> Scores:
    """Scores of some of the rows."""
    parts = (scores.log_pf, scores.log_pb, scores.mask, scores.log_z, scores.log_flow)
    return Scores(*(None if tensor is None else tensor[part] for tensor in parts))


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

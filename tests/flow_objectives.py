"""Objectives that use flows."""

import torch

from gfnem.batched import Batched
from gfnem.objectives import DetailedBalance, SubTrajectoryBalance

OBJECTIVES = {
    "db": DetailedBalance(),
    "fl-db": DetailedBalance(forward_looking=True),
    "subtb": SubTrajectoryBalance(0.9),
    "fl-subtb": SubTrajectoryBalance(0.9, forward_looking=True),
}


def objective_loss(objective, policy, context, space, grammar, x, drawn):
    scores = policy.score(context, space, drawn, True, objective.forward_looking)
    log_joint = grammar.log_joint(x, drawn.latent).detach()
    partial = None
    if objective.forward_looking:
        states = drawn.states or space.states(x, drawn.latent)
        with torch.no_grad():
            partial = grammar.partial_log_joint(x, Batched.cat(states))
        partial = partial.unflatten(1, (len(states), log_joint.shape[1])).transpose(1, 2)
    return objective(scores, log_joint, partial)

"""A grammar with something to tell, and a sampler held against all its trees."""

import torch
from brute import all_trees, keys

from gfnem.enumeration import enumerate_trajectories
from gfnem.objectives import TrajectoryBalance
from gfnem.parsing import (
    NeuralPCFG,
    Sentences,
)
from gfnem.sampling import Exploration

LABELS, WORDS = 2, 8


SENTENCES = ((1, 2, 3), (7, 3, 2, 6), (5, 1), (4, 5, 6, 7, 1))


class SharpPCFG(NeuralPCFG):
    """Rule probabilities far from uniform, so that the posterior has something to tell."""

    def tables(self):
        root, rules, emissions = super().tables()
        return (
            (root * 4).log_softmax(0),
            (rules * 4).flatten(1).log_softmax(1).view_as(rules),
            (emissions * 6).log_softmax(1),
        )


def e_train(policy, space, model, x, objective, updates) -> None:
    """The E-step alone; what only log Z uses goes first, then everything, ever more slowly."""
    total, rest = [], []
    for name, parameter in policy.named_parameters():
        (total if name.split(".")[0] in ("total", "word_score") else rest).append(parameter)
    first = torch.optim.Adam(total, lr=0.2)
    second = torch.optim.Adam([{"params": rest}, {"params": total}], betas=(0.9, 0.99))
    schedule = torch.optim.lr_scheduler.OneCycleLR(second, [1e-2, 5e-2], updates, pct_start=0.1)
    alone = 80 if isinstance(objective, TrajectoryBalance) else 0
    for update in range(alone + updates):
        context = policy.encode(x, model.given(x))
        explore = Exploration(epsilon=0.05 if space.unique_trajectory else 0.5)
        drawn = policy.sample(context, x, space, 32, explore)
        scores = policy.score(context, space, drawn, flows=objective.uses_flow)
        loss = objective(scores, model.log_joint(x, drawn.latent).detach()).mean()
        policy.zero_grad()
        loss.backward()
        if update < alone:
            first.step()
        else:
            second.step()
            schedule.step()


@torch.no_grad()
def compare(policy, space, model, x: Sentences, row: int) -> dict[str, float]:
    """Everything about one sentence by adding up all trajectories of all its trees."""
    one = x[torch.tensor([row])]
    trees = all_trees(int(one.lengths[0]), LABELS)
    log_joint = model.log_joint(one, trees)[0]
    context = policy.encode(one, model.given(one))
    found = enumerate_trajectories(space, one).trajectories
    scores = policy.score(context, space, found)
    log_pf, log_pb = scores.log_pf.sum(2)[0], scores.log_pb.sum(2)[0]
    mass = dict.fromkeys(keys(trees), 0.0)
    for name, probability in zip(keys(found.latent), log_pf.exp().tolist(), strict=True):
        mass[name] += probability
    q = torch.tensor([mass[name] for name in keys(trees)])
    log_weight = model.log_joint(one, found.latent)[0] + log_pb - log_pf
    log_z = log_joint.logsumexp(0)
    exact = model.log_marginal(one) if model.offers("log_marginal") else None
    return {
        "distance": float((q - log_joint.softmax(0)).abs().sum() / 2),
        "exact": 0.0 if exact is None else float(log_z - exact[0]),
        "vargrad_log_z": float((log_pf.exp() * log_weight).sum() - log_z),
        "learned_log_z": float(policy.log_z(context)[0] - log_z),
    }

"""A discrete VAE small enough to enumerate."""

import torch

from gfnem.images.model import DiscreteVAE

GRID = {"rows": 2, "columns": 2, "codes": 4}


SHAPE = {"height": 8, "width": 8, **GRID}


SMALL = {"channels": 4, "hidden": 8, "units": 5}


def images(count=3, height=8, width=8, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return (torch.rand(count, height, width, generator=generator) > 0.5).float()


def make_model(prior="autoregressive", **changes):
    torch.manual_seed(3)
    model = DiscreteVAE(**{**SHAPE, **changes}, channels=4, prior=prior, prior_width=4)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
        model.dictionary.mul_(0.6)  # codes that matter, but none that rules out all others
        if model.prior is not None:
            model.prior.head.mul_(5)
    return model


def exact_kl(model, policy, space, x, reverse=True):
    every = model.all_codes().expand(len(x), -1, -1)
    context = policy.encode(x, model.given(x))
    log_q = policy.score(context, space, policy.retrace(context, x, space, every)).log_pf.sum(2)
    log_p = model.log_joint_of_all(x).log_softmax(1)
    if not reverse:
        log_p, log_q = log_q, log_p
    return (log_q.exp() * (log_q - log_p)).sum(1).mean()

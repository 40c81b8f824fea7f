"""Trying a world on a few observations: what does not fit is named before training, not after."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from gfnem.batched import what_no_state_is
from gfnem.errors import UserError
from gfnem.policy import Policy
from gfnem.space import LatentSpace
from gfnem.target import Target


@torch.no_grad()
def what_is_wrong(
    model: Target, space: LatentSpace, policy: Policy | None, x: Any, samples: int = 2
) -> str | None:
    """Finds what is NaN, infinite or of the wrong shape for a batch; None if nothing is.

    Draws from torch's global generator.

    Args:
        model: the target.
        space: where its latents live.
        policy: the sampler that proposes them; without one only exact inference is tried.
        x: a batch of observations.
        samples: latents to try for each.
    """
    batch, name = len(x), type(model).__name__
    if isinstance(x, Tensor) and (wrong := _rows(x)):
        return f"observation {wrong} is not finite in the data"
    for owner, module in ((name, model), (type(policy).__name__, policy)):
        for parameter, value in module.named_parameters() if module is not None else ():
            if not torch.isfinite(value).all():
                return f"{owner}: the parameter {parameter} is not finite"
    if policy is None:
        marginal = model.log_marginal(x) if model.offers("log_marginal") else None
        return _faults(f"{name}.log_marginal", marginal, (batch,))
    if wrong := what_no_state_is(space.initial_state(x, samples), batch, samples):
        return f"{type(space).__name__}: {wrong}"
    context = policy.encode(x, model.given(x))
    trajectories = policy.sample(context, x, space, samples)
    scores = policy.score(context, space, trajectories)
    return (
        _faults(f"{type(policy).__name__}'s log P_F", scores.log_pf.sum(2), (batch, samples))
        or _faults(f"{type(policy).__name__}.log_z", scores.log_z, (batch,))
        or _faults(f"{name}.log_joint", model.log_joint(x, trajectories.latent), (batch, samples))
    )


def try_out(model: Target, space: LatentSpace, policy: Policy | None, x: Any) -> None:
    """Refuses a world whose parts do not give finite numbers of the right shape for a batch.

    The state of the random generator is left as it was.

    Raises:
        UserError: naming the part and the observation.
    """
    try:
        with torch.random.fork_rng(devices=[]):
            wrong = what_is_wrong(model, space, policy, x)
    except ValueError as error:  # how a part says that another does not suit it
        raise UserError(str(error)) from error
    if wrong is not None:
        raise UserError(wrong)


def _faults(what: str, value: Tensor | None, shape: tuple[int, ...]) -> str | None:
    if value is None:
        return None
    if value.shape != shape:
        return f"{what} has the shape {tuple(value.shape)}, not {shape}"
    # minus infinity is what a model may say of the impossible
    if wrong := _rows(value.masked_fill(value == -torch.inf, 0.0)):
        return f"{what} is not a finite number for observation {wrong} of the batch"
    return None


def _rows(value: Tensor) -> str:
    """The rows of a tensor in which something is not finite, counted from 0."""
    rows = (~torch.isfinite(value)).flatten(1).any(1) if value.dim() > 1 else ~torch.isfinite(value)
    return ", ".join(str(row) for row in rows.nonzero().flatten().tolist()[:5])

"""Back-and-forth Metropolis-Hastings: partly undo a structure, build it up again, accept or not."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Generic

import torch
from jaxtyping import Float
from torch import Tensor

from gfnem.batched import Context, State, X, Z
from gfnem.mcmc import LocalMoves, metropolis
from gfnem.ranges import Range
from gfnem.sampling import draw, log_probability
from gfnem.space import LatentSpace
from gfnem.target import Conditioned

if TYPE_CHECKING:
    from gfnem.policy import Policy, Step


#: how far to go back: a number of steps, or a share of all of them
Back = Annotated[int | float, Range(above=0)]


class BackAndForth(LocalMoves[X, Z], Generic[X, Z, State, Context]):
    """`policy.regrow` as a proposal, for one batch of observations.

    Args:
        policy, context: a sampler and its encoding of `x`.
        x: a batch of observations.
        space: the latent space.
        back: how far to go back, a number of steps (int) or a share of all of them (float). Of
            several, one is drawn for each proposal: a mixture of kernels.
    """

    def __init__(
        self,
        policy: Policy[X, Z, State, Context],
        context: Context,
        x: X,
        space: LatentSpace[X, Z, State],
        back: Back | Sequence[Back] = 0.5,
    ):
        self.policy, self.context, self.x, self.space = policy, context, x, space
        self.back = back

    def initial(self, x: X, samples: int) -> Z:
        """Samples of the policy."""
        return self.policy.sample(self.context, x, self.space, samples).latent

    def propose(self, x: X, z: Z) -> tuple[Z, Float[Tensor, "batch samples"]]:
        """See `Policy.regrow`."""
        back = self.back
        if isinstance(back, Sequence):
            back = back[int(torch.randint(len(back), ()))]
        return self.policy.regrow(self.context, x, self.space, z, back)


def refine(
    policy: Policy[X, Z, State, Context],
    context: Context,
    given: Conditioned[X, Z],
    space: LatentSpace[X, Z, State],
    z: Z,
    proposals: int = 10,
    back: Back | Sequence[Back] = 0.5,
    acceptance: str = "metropolis",
) -> tuple[Z, Float[Tensor, "batch samples"], Float[Tensor, "batch samples"]]:
    """Moves samples nearer to `P(z|x)` by Metropolis-Hastings, without autograd.

    Every `(batch, sample)` is a chain of its own, which leaves the target's exact posterior as it
    is, however good or bad the policy (Zhang et al. 2022, arXiv 2202.01361, their K-step back and
    forth proposals).

    Args:
        policy, context, space, back: as in `BackAndForth`.
        given: the target, given `x`; the chains follow its `log_joint`.
        z: latents to start from, leading axes `(batch, samples)`.
        proposals: how many moves each chain tries.
        acceptance: as in `gfnem.mcmc.metropolis`.

    Returns:
        The latents, their `(batch, samples)` log joint in nats, and the `(batch, samples)` share
        of proposals accepted.
    """
    moves = BackAndForth(policy, context, given.x, space, back)
    return metropolis(moves, given.log_joint, given.x, z, proposals, acceptance)


@torch.no_grad()
def back_and_forth(
    policy: Policy[X, Z, State, Context],
    context: Context,
    x: X,
    space: LatentSpace[X, Z, State],
    z: Z,
    back: int | float,
) -> tuple[Z, Float[Tensor, "batch samples"]]:
    """Undoes some steps of each structure with `P_B`, then goes forth with `P_F` to a new one.

    With `tau` the steps undone from `z` down to the state turned at, and `tau'` those from there up
    to `z'`, the correction is `log P_F(tau) P_B(tau'|z') - log P_B(tau|z) P_F(tau')`. How far to go
    back is a function of the structure alone. Where the way back from `z'` would turn at another
    state, the correction is minus infinity: in a space whose trajectories differ in length only
    going back all the way (1.0) leads from one length to another.

    Args:
        policy, context, x, space: as in `BackAndForth`.
        z: latents, leading axes `(batch, samples)`.
        back: as in `BackAndForth`; a share is of the structure's steps, rounded up.

    Returns:
        The proposals, and `(batch, samples)` `log Q(z|z') - log Q(z'|z)` in nats.
    """
    state = space.final_state(x, z)
    steps = _steps_back(space, state, back)
    correction = torch.zeros(steps.shape, device=steps.device)
    undone = torch.zeros_like(steps)
    output = policy(context, state)
    while (moving := (undone < steps) & ~space.is_initial(state)).any():
        allowed = space.backward_mask(state)
        undo, log_pb = draw(_backward(output, allowed), allowed)
        redo = space.forward_action(state, undo)
        state = space.unstep(state, undo).where(moving, state)
        output = policy(context, state)
        log_pf = _log_probability_of(redo, output.forward, space.forward_mask(state))
        correction = correction + (log_pf - log_pb).masked_fill(~moving, 0.0)
        undone = undone + moving
    turned_at_start = space.is_initial(state)
    redone = torch.zeros_like(steps)
    while (moving := ~space.is_final(state)).any():
        action, log_pf = draw(output.forward, space.forward_mask(state))
        undo = space.backward_action(state, action)
        state = space.step(state, action).where(moving, state)
        output = policy(context, state)
        allowed = space.backward_mask(state)
        log_pb = _log_probability_of(undo, _backward(output, allowed), allowed)
        correction = correction + (log_pb - log_pf).masked_fill(~moving, 0.0)
        redone = redone + moving
    wanted = _steps_back(space, state, back)
    returns = (redone == wanted) | (turned_at_start & (redone < wanted))
    return space.to_latent(x, state), correction.masked_fill(~returns, -math.inf)


def _steps_back(space: LatentSpace[X, Z, State], state: State, back: int | float) -> Tensor:
    """`(batch, samples)` how many steps to undo from final states.

    A share is of the steps of one particular trajectory: the one that always undoes the first
    thing it may.
    """
    initial = space.is_initial(state)
    steps = torch.zeros_like(initial, dtype=torch.long)
    if isinstance(back, int):
        return steps_back(steps, back)
    while not initial.all():
        steps = steps + ~initial
        first = space.backward_mask(state).int().argmax(-1)
        state = state.where(initial, space.unstep(state, first))
        initial = space.is_initial(state)
    return steps_back(steps, back)


def steps_back(steps: Tensor, back: int | float) -> Tensor:
    """`(batch, samples)` how many of a trajectory's `steps` to undo, those that `back` asks for.

    Raises:
        ValueError: if `back` is neither a number of steps nor a share.
    """
    if not back > 0 or (isinstance(back, float) and back > 1):
        raise ValueError(f"back is a number of steps >= 1 or a share in (0, 1], not {back}")
    if isinstance(back, int):
        return torch.full_like(steps, back)
    return (steps * back).ceil().long()


def _backward(output: Step, allowed: Tensor) -> Tensor:
    """The backward log weights; all equal where the policy has none."""
    return (
        torch.zeros_like(allowed, dtype=torch.float) if output.backward is None else output.backward
    )


def _log_probability_of(action: Tensor, log_weights: Tensor, allowed: Tensor) -> Tensor:
    chosen = log_probability(log_weights, allowed).gather(-1, action.unsqueeze(-1))
    return chosen.squeeze(-1)

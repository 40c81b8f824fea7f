"""Drawing trajectories, forwards and backwards, without autograd."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor

from gfnem.batched import Context, State, X, Z, each
from gfnem.space import LatentSpace, Trajectories

if TYPE_CHECKING:
    from gfnem.policy import Policy


@dataclass(frozen=True)
class Exploration:
    """How training samples stray from the policy.

    Attributes:
        temperature: log weights are divided by it before normalising; above 1 is flatter.
        epsilon: probability that a step is drawn uniformly from the permitted actions instead.

    Either may be a tensor `()` in an update that is recorded; see `moves_from`.
    """

    temperature: float | Tensor = 1.0
    epsilon: float | Tensor = 0.0

    def __post_init__(self) -> None:
        temperature, epsilon = (
            default if isinstance(value, Tensor) else value
            for value, default in ((self.temperature, 1), (self.epsilon, 0))
        )
        if temperature <= 0 or not 0 <= epsilon <= 1:
            raise ValueError(f"needs temperature > 0 and 0 <= epsilon <= 1, got {self}")


ON_POLICY = Exploration()


def moves_from(value: float | Tensor, other: float | Tensor) -> bool:
    """Whether a setting is not another; of a tensor `()` nobody knows, but that it is itself."""
    if isinstance(value, Tensor) or isinstance(other, Tensor):
        return value is not other
    return value != other


def log_probability(
    log_weights: Float[Tensor, "*rows actions"],
    allowed: Bool[Tensor, "*rows actions"],
    axis: int = -1,
) -> Float[Tensor, "*rows actions"]:
    """Normalises log weights `(..., actions)` over the last axis, or `axis`, where permitted.

    Rows without any permitted entry come out uniform rather than as NaN, so that their (ignored)
    entries do no harm to gradients.
    """
    return permitted(log_weights, allowed).log_softmax(axis)


def permitted(
    log_weights: Float[Tensor, "*rows actions"], allowed: Bool[Tensor, "*rows actions"]
) -> Float[Tensor, "*rows actions"]:
    """Log weights `(..., actions)`, and a number whose `exp` is 0 for what is not permitted.

    A sum takes a third of the time of `torch.where`, whose choices a CPU cannot foresee.
    """
    barred = allowed.to(log_weights.dtype).sub_(1).mul_(torch.finfo(log_weights.dtype).max)
    return log_weights + barred


def explored(
    log_weights: Float[Tensor, "*rows actions"],
    allowed: Bool[Tensor, "*rows actions"],
    exploration: Exploration = ON_POLICY,
) -> Float[Tensor, "*rows actions"]:
    """`(..., actions)` probabilities that training samples are drawn with.

    Args:
        log_weights: `(..., actions)` unnormalised.
        allowed: `(..., actions)` bool.
        exploration: tempering and uniform mixing.
    """
    if exploration.temperature != 1:
        log_weights = log_weights / exploration.temperature
    probability = permitted(log_weights, allowed).softmax(-1)
    if exploration.epsilon > 0:
        uniform = allowed / allowed.sum(-1, keepdim=True).clamp(min=1)
        probability = torch.lerp(probability, uniform.to(probability), exploration.epsilon)
    return probability


def draw(
    log_weights: Float[Tensor, "batch samples actions"],
    allowed: Bool[Tensor, "batch samples actions"],
    exploration: Exploration = ON_POLICY,
) -> tuple[Int[Tensor, "batch samples"], Float[Tensor, "batch samples"]]:
    """Draws an action a row.

    Args:
        log_weights: `(batch, samples, actions)` unnormalised.
        allowed: `(batch, samples, actions)` bool.
        exploration: tempering and uniform mixing.

    Returns:
        Actions `(batch, samples)` and the log probability, in nats, with which each was drawn.
    """
    probability = explored(log_weights, allowed, exploration)
    weights = probability.clamp(min=0)
    # a row that has ended is uniform over nothing: give it any action, it is masked out
    some = weights.sum(-1, keepdim=True) > 0
    action = by_weight(torch.where(some, weights, torch.ones_like(weights)))
    drawn = probability.gather(-1, action.unsqueeze(-1)).squeeze(-1)
    return action, drawn.log()


def lots(
    shape: Sequence[int],
    entries: int,
    like: Shaped[Tensor, ...],
    generator: torch.Generator | None = None,
) -> Float[Tensor, "*rows numbers"]:
    """Random numbers for draws of `by_weight` that are made before the weights are known.

    Args:
        shape: how many rows.
        entries: the most entries that a row of weights has.
        like: a tensor of any shape, whose type and device they have.
        generator: the source of randomness, on that device.

    Returns:
        `(*shape, 1)` uniform between 0 and 1; on a GPU `(*shape, entries)`, one over exponential
        times: the greatest product with a weight is drawn.
    """
    if like.is_cuda:  # sums of a parallel scan need not rise: exponential races
        return like.new_empty(*shape, entries).exponential_(generator=generator).reciprocal_()
    return like.new_empty(*shape, 1).uniform_(generator=generator)


def by_weight(
    weights: Float[Tensor, "*rows entries"],
    generator: torch.Generator | None = None,
    lot: Float[Tensor, "*rows numbers"] | None = None,
) -> Int[Tensor, "*rows"]:
    """Draws an entry a row in proportion to its weight; never one whose weight is 0.

    Args:
        weights: `(..., entries)`, a positive one in each row.
        generator: the source of randomness, on the weights' device.
        lot: `(..., any number)` numbers of `lots` to draw by, for as many entries or more.

    Returns:
        `(...)` the entries' numbers.
    """
    if lot is None:
        lot = lots(weights.shape[:-1], weights.shape[-1], weights, generator)
    if weights.is_cuda:
        return (weights * lot[..., : weights.shape[-1]]).argmax(-1)
    return inverted(weights, lot).squeeze(-1)


def inverted(
    probability: Float[Tensor, "*rows entries"], chance: Float[Tensor, "*rows 1"]
) -> Int[Tensor, "*rows 1"]:
    """Draws an entry a row by inverting its distribution function.

    One uniform number a row is much cheaper than one for each entry, as `torch.multinomial` takes.
    Where sums are taken in order, as on a CPU, no entry of probability 0 is drawn.

    Args:
        probability: `(..., entries)`, up to rounding of a sum that need not be 1.
        chance: `(..., 1)` uniform between 0 and 1.

    Returns:
        `(..., 1)` the entries' numbers.
    """
    heights = probability.cumsum(-1)
    below = 1 - torch.finfo(heights.dtype).eps  # a product that rounds up to the sum finds nothing
    found = torch.searchsorted(heights, chance * (heights[..., -1:] * below), right=True)
    return found.clamp(max=probability.shape[-1] - 1)


def within(
    probability: Float[Tensor, "*rows entries"],
    chance: Float[Tensor, "*rows 1"],
    entry: Int[Tensor, "*rows 1"],
) -> Float[Tensor, "*rows 1"]:
    """`(..., 1)` where `chance` stands within the share of the entry that `inverted` drew by it.

    It is uniform between 0 and 1 again, given the entry, and serves for the next draw: arithmetic
    coding. Each draw takes as many bits of it as the entry is worth.
    """
    heights = probability.cumsum(-1)
    share = probability.gather(-1, entry)
    below = chance * heights[..., -1:] - (heights.gather(-1, entry) - share)
    limits = torch.finfo(share.dtype)  # never 1: an entry of no probability may be the last
    return (below / share.clamp(min=limits.tiny)).clamp(0, 1 - limits.eps)


def rollout(
    policy: Policy[X, Z, State, Context],
    context: Context,
    x: X,
    space: LatentSpace[X, Z, State],
    samples: int,
    exploration: Exploration | None = None,
) -> Trajectories[Z, State]:
    """Runs the forward policy from the initial state until every row is final."""
    exploration = exploration or ON_POLICY
    state = space.initial_state(x, samples)
    states, actions, undos, masks, drawn = [state], [], [], [], []
    while (ended := int((final := space.is_final(state)).sum())) < final.numel():
        action, log_drawn = policy.choose(context, space, state, exploration)
        drawn.append(log_drawn)
        undos.append(space.backward_action(state, action))
        child = space.step(state, action)
        state = state.where(final, child) if ended else child
        states.append(state)
        actions.append(action)
        masks.append(~final)
    log_behaviour = torch.where(torch.stack(masks), torch.stack(drawn), 0.0).sum(0) if drawn else 0
    return _bundle(x, space, states, actions, undos, masks, log_behaviour)


def some_steps(trajectories: Trajectories, steps: int) -> Trajectories:
    """`steps` steps of each trajectory, drawn uniformly without replacement, in their order.

    Between one of them and the next the result has a step that is masked out: its states are the
    two of each step drawn, `2 * steps` in all.
    """
    states, mask = trajectories.states, trajectories.mask
    assert states is not None and mask is not None
    steps = min(steps, mask.shape[2])
    chance = torch.rand(mask.shape, device=mask.device).masked_fill(~mask, 2.0)
    chosen = chance.argsort(2)[:, :, :steps].sort(2).values  # all of a trajectory that is shorter
    pairs = torch.stack([chosen, chosen + 1], 3).flatten(2)

    def picked(tensor: Tensor, index: Tensor) -> Tensor:  # (batch, samples, time, ...)
        index = index.reshape(index.shape + (1,) * (tensor.dim() - 3))
        return tensor.gather(2, index.expand(*index.shape[:3], *tensor.shape[3:]))

    found = each(lambda *tensors: picked(torch.stack(tensors, 2), pairs), *states)
    between = pairs[:, :, :-1].clamp(max=mask.shape[2] - 1)
    actions, backward_actions, kept = each(
        lambda tensor: picked(tensor, between),
        [trajectories.actions, trajectories.backward_actions, mask],
    )
    taken = torch.arange(max(2 * steps - 1, 0), device=mask.device) % 2 == 0
    return replace(
        trajectories,
        states=[found[:, :, time] for time in range(2 * steps)],
        actions=actions,
        backward_actions=backward_actions,
        mask=kept & taken,
    )


def backward_rollout(
    policy: Policy[X, Z, State, Context],
    context: Context,
    x: X,
    space: LatentSpace[X, Z, State],
    latent: Z,
) -> Trajectories[Z, State]:
    """Runs the backward policy from the final states of `latent` to the initial state.

    `log_behaviour` of the result is the log probability of the backward trajectory given its end.
    """
    state = space.final_state(x, latent)
    states, actions, undos, masks = [state], [], [], []
    log_behaviour = 0.0
    while not (initial := space.is_initial(state)).all():
        allowed = space.backward_mask(state)
        backward = None if space.unique_trajectory else policy(context, state).backward
        backward = torch.zeros_like(allowed, dtype=torch.float) if backward is None else backward
        undo, log_drawn = draw(backward, allowed)
        log_behaviour = log_behaviour + log_drawn.masked_fill(initial, 0.0)
        actions.append(space.forward_action(state, undo))
        state = state.where(initial, space.unstep(state, undo))
        states.append(state)
        undos.append(undo)
        masks.append(~initial)
    for stack in (states, actions, undos, masks):
        stack.reverse()
    # a row that was short stands at the end of the time axis: its leading steps are masked
    return _bundle(x, space, states, actions, undos, masks, log_behaviour, latent)


def _bundle(x, space, states, actions, undos, masks, log_behaviour, latent=None) -> Trajectories:
    final = space.is_final(states[-1])

    def stack(tensors: list[Tensor], dtype: torch.dtype) -> Tensor:
        if tensors:
            return torch.stack(tensors, 2)
        return torch.zeros(*final.shape, 0, dtype=dtype, device=final.device)

    if not isinstance(log_behaviour, Tensor):
        log_behaviour = torch.zeros(final.shape, device=final.device)
    return Trajectories(
        space.to_latent(x, states[-1]) if latent is None else latent,
        states,
        stack(actions, torch.long),
        stack(undos, torch.long),
        stack(masks, torch.bool),
        log_behaviour,
    )

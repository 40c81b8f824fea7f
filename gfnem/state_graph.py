"""All states of a space and the steps between them; exact sums over trajectories, by levels."""

from __future__ import annotations

from functools import cached_property
from typing import Any, Generic

import torch
from jaxtyping import Float, Int
from torch import Tensor

from gfnem.batched import Batched, State, tensors_of
from gfnem.policy import Policy
from gfnem.sampling import log_probability
from gfnem.space import LatentSpace

#: states that a policy scores at a time
_CHUNK = 2**14


class StateGraph(Generic[State]):
    """The states that one observation leads to, and every step between them.

    Whatever is a sum over trajectories is a sum over edges here, level by level: the cost is that
    of the edges. Arguments and results are in nats; their leading axes `...` are kept, so that
    several policies or rewards are summed at once. All sums are differentiable.

    Args:
        space: the latent space.
        x: the observation, of leading axis `(1,)`.
        states: leading axes `(1, states)`, each once, the initial state first.
        parent, child: `(edges,)` numbers of states, parents in increasing order.
        action, backward_action: `(edges,)` what leads from parent to child, and back.

    Attributes:
        level: `(states,)` length of the longest trajectory to each.
        ends: `(objects,)` numbers of the final states.

    Raises:
        ValueError: if a state can be reached from itself.
    """

    def __init__(
        self,
        space: LatentSpace[Any, Any, State],
        x: Any,
        states: State,
        parent: Int[Tensor, " edges"],
        child: Int[Tensor, " edges"],
        action: Int[Tensor, " edges"],
        backward_action: Int[Tensor, " edges"],
    ):
        self.space, self.x, self.states = space, x, states
        self.parent, self.child = parent, child
        self.action, self.backward_action = action, backward_action
        self.level = self._levels()
        self.ends = space.is_final(states)[0].nonzero()[:, 0]

    def __len__(self) -> int:
        """How many states."""
        return len(tensors_of(self.states)[0][0])

    def to(self, device: torch.device | str) -> StateGraph[State]:
        """The same on another device."""
        edges = (self.parent, self.child, self.action, self.backward_action)
        moved = (edge.to(device) for edge in edges)
        return StateGraph(self.space, self.x.to(device), self.states.to(device), *moved)

    def _levels(self) -> Int[Tensor, " states"]:
        level = torch.zeros(len(self), dtype=torch.long, device=self.parent.device)
        for _ in range(len(self) + 1):
            later = level.scatter_reduce(0, self.child, level[self.parent] + 1, "amax")
            if torch.equal(level, later):
                return level
            level = later
        raise ValueError("a state can be reached from itself: the space has a cycle")

    def latents(self) -> Any:
        """The structures of `ends`, leading axes `(1, objects)`."""
        return self.space.to_latent(self.x, self.states.take(self.ends[None]))

    # ---------------------------------------------------------------- finding states

    @cached_property
    def _sorted(self) -> tuple[Tensor, Tensor]:
        return fingerprints(state_keys(self.states)[0]).sort()

    def find(self, state: State) -> Int[Tensor, "batch samples"]:
        """`(batch, samples)` the numbers of states, each of which must be one of these."""
        prints, order = self._sorted
        wanted = fingerprints(state_keys(state))
        place = torch.searchsorted(prints, wanted).clamp(max=len(prints) - 1)
        assert (prints[place] == wanted).all(), "a state that the initial one does not lead to"
        return order[place]

    # ---------------------------------------------------------------- what a policy says

    def scores(
        self, policy: Policy, context: Any, rows: int = 1
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """What a policy says of all edges and states.

        Args:
            policy: on the space.
            context: of observations that all have these states, such as the one listed.
            rows: how many observations these are.

        Returns:
            `(batch, edges)` log P_F, `(batch, edges)` log P_B and `(batch, states)` log flow or
            None.
        """

        def states(numbers: Tensor) -> State:
            part = self.states.take(numbers[None])
            return part.map(lambda tensor: tensor.expand(rows, *tensor.shape[1:]))

        forward, backward, flows = [], [], []
        for numbers in torch.arange(len(self), device=self.parent.device).split(_CHUNK):
            state = states(numbers)
            step = policy(context, state)
            forward.append(log_probability(step.forward, self.space.forward_mask(state)))
            allowed = self.space.backward_mask(state)
            undoing = allowed.to(step.forward) * 0 if step.backward is None else step.backward
            backward.append(log_probability(undoing, allowed))
            flows.append(step.log_flow)
        log_pf = torch.cat(forward, 1)[:, self.parent, self.action]
        log_pb = torch.cat(backward, 1)[:, self.child, self.backward_action]
        return log_pf, log_pb, None if flows[0] is None else torch.cat(flows, 1)

    def uniform_backward(self) -> Float[Tensor, " edges"]:
        """`(edges,)` log P_B that prefers no parent."""
        parents = torch.bincount(self.child, minlength=len(self))
        return -parents[self.child].double().log()

    # ---------------------------------------------------------------- sums over trajectories

    def sums_to(self, log_weight: Float[Tensor, "... edges"]) -> Float[Tensor, "... states"]:
        """`(..., states)` log of the sum, over trajectories to each state, of products of weights.

        Args:
            log_weight: `(..., edges)`.
        """
        value = log_weight.new_zeros(*log_weight.shape[:-1], len(self))
        for edges, numbers, group in self._into:
            terms = value[..., self.parent[edges]] + log_weight[..., edges]
            value = value.index_copy(-1, numbers, _log_sums(terms, group, len(numbers)))
        return value

    def sums_from(
        self, log_end: Float[Tensor, "... objects"], log_weight: Float[Tensor, "... edges"]
    ) -> Float[Tensor, "... states"]:
        """`(..., states)` log of the sum, over ways from each state to an end, of products.

        Args:
            log_end: `(..., objects)` the weight of each end.
            log_weight: `(..., edges)`.
        """
        shape = torch.broadcast_shapes(log_end.shape[:-1], log_weight.shape[:-1])
        log_end = log_end.expand(*shape, -1)
        log_weight = log_weight.to(log_end)
        value = log_end.new_full((*shape, len(self)), -torch.inf)
        value = value.index_copy(-1, self.ends, log_end)
        for edges, numbers, group in self._out:
            terms = value[..., self.child[edges]] + log_weight[..., edges]
            value = value.index_copy(-1, numbers, _log_sums(terms, group, len(numbers)))
        return value

    @cached_property
    def _into(self) -> list[tuple[Tensor, Tensor, Tensor]]:
        return self._grouped(self.child, range(1, int(self.level.max()) + 1))

    @cached_property
    def _out(self) -> list[tuple[Tensor, Tensor, Tensor]]:
        return self._grouped(self.parent, range(int(self.level.max()), -1, -1))

    def _grouped(self, state: Tensor, levels: range) -> list[tuple[Tensor, Tensor, Tensor]]:
        """For each level its edges, its states, and which of these each edge belongs to."""
        level = self.level[state]
        order = level.argsort(stable=True)
        counts = torch.bincount(level, minlength=int(self.level.max()) + 1).tolist()
        parts = order.split(counts)
        grouped = []
        for number in levels:
            if len(edges := parts[number]):
                grouped.append((edges, *state[edges].unique(return_inverse=True)))
        return grouped

    # ---------------------------------------------------------------- what they are called

    def log_terminal(self, log_pf: Float[Tensor, "... edges"]) -> Float[Tensor, "... objects"]:
        """`(..., objects)` log P_T: how probable it is to end in each structure.

        Args:
            log_pf: `(..., edges)` as of `scores`.
        """
        return self.sums_to(log_pf)[..., self.ends]

    def log_counts(self) -> Float[Tensor, " states"]:
        """`(states,)` log of the number of trajectories to each state; n(x) is that of `ends`."""
        return self.sums_to(self._nothing())

    def _nothing(self) -> Tensor:
        return torch.zeros(len(self.parent), dtype=torch.double, device=self.parent.device)

    def log_flow(
        self,
        log_reward: Float[Tensor, "... objects"],
        log_pb: Float[Tensor, "... edges"] | None = None,
    ) -> Float[Tensor, "... states"]:
        """`(..., states)` log F(s): the reward that `P_B` carries back through each state.

        Args:
            log_reward: `(..., objects)` log R of `ends`.
            log_pb: `(..., edges)`; uniform over parents if None.
        """
        return self.sums_from(log_reward, self.uniform_backward() if log_pb is None else log_pb)

    def soft_values(
        self,
        log_reward: Float[Tensor, "... objects"],
        bonus: Float[Tensor, "... edges"] | None = None,
    ) -> Float[Tensor, "... states"]:
        """`(..., states)` V(s) of entropy-regularised reinforcement learning at temperature 1.

        Without a bonus the optimal policy ends in `x` in proportion to `n(x) R(x)`, with
        `n` the number of trajectories; with `log P_B` as the bonus V is the log flow (Tiapkin et
        al. 2024, arXiv 2310.12934; Deleu et al. 2024, arXiv 2402.10309).

        Args:
            log_reward: `(..., objects)` what the last step earns.
            bonus: `(..., edges)` what each step earns besides; nothing if None.
        """
        return self.sums_from(log_reward, self._nothing() if bonus is None else bonus)

    def choices(
        self,
        value: Float[Tensor, "... states"],
        bonus: Float[Tensor, "... edges"] | None = None,
    ) -> Float[Tensor, "... edges"]:
        """`(..., edges)` log P_F that chooses a child in proportion to its value and the bonus.

        Of flows with `log P_B` as the bonus, the forward policy that samples in proportion to R; of
        soft values with theirs, the optimal policy.

        Args:
            value: `(..., states)` as of `log_flow` or `soft_values`.
            bonus: `(..., edges)` as it was there.
        """
        gained = value[..., self.child] - value[..., self.parent]
        return gained if bonus is None else gained + bonus.to(gained)


def _log_sums(terms: Tensor, group: Tensor, size: int) -> Tensor:
    """Log of the sum of `(..., edges)` terms of each group, `(..., size)`; no group is empty."""
    index = group.expand(terms.shape)
    most = terms.new_full((*terms.shape[:-1], size), -torch.inf)
    most = most.scatter_reduce(-1, index, terms.detach(), "amax")
    most = torch.where(torch.isfinite(most), most, 0.0)
    scaled = (terms - most[..., group]).exp()
    return most.new_zeros(most.shape).index_add(-1, group, scaled).log() + most


def state_keys(state: Batched) -> Int[Tensor, "batch samples width"]:
    """`(batch, samples, width)` int64: all that the tensors of a state hold, side by side."""
    parts = []
    for tensor in tensors_of(state):
        if tensor.is_floating_point():
            tensor = tensor.double().view(torch.long)
        parts.append(tensor.long().flatten(2) if tensor.dim() > 2 else tensor.long()[..., None])
    return torch.cat(parts, 2)


def fingerprints(keys: Int[Tensor, "*rows width"]) -> Int[Tensor, "*rows"]:
    """`(...,)` int64 hashes of rows `(..., width)`, the same in every process.

    A random linear map modulo 2^64, and twice a bijection that mixes the bits: two rows in 10^6
    share a fingerprint with a probability of about 10^-7.
    """
    generator = torch.Generator().manual_seed(20_000_003)
    low, high = torch.iinfo(torch.long).min, torch.iinfo(torch.long).max
    factors = torch.randint(low, high, (2, keys.shape[-1]), generator=generator).to(keys.device)
    mixed = (_mixed(keys + factors[0]) * (factors[1] | 1)).sum(-1)
    return _mixed(mixed)


def _mixed(value: Tensor) -> Tensor:
    """A bijection of int64 (the finaliser of splitmix64; shifts here are arithmetic)."""
    value = (value ^ (value >> 30)) * -0x40A7B892E31B1A47
    value = (value ^ (value >> 27)) * -0x6B2FB644ECCEEE15
    return value ^ (value >> 31)

"""A sampler for assignments that looks at whatever is assigned so far."""

from __future__ import annotations

import itertools
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from gfnem.energies.space import Assignment, AssignmentSpace, as_numbers, numbers_of
from gfnem.policy import Policy, Scores, Step
from gfnem.ranges import Amount, Count, Fact
from gfnem.sampling import Exploration, draw
from gfnem.space import LatentSpace, Trajectories
from gfnem.target import Conditioned


class AssignmentNetwork(Policy[Tensor, Tensor, Assignment, Tensor]):
    """What the samplers of assignments have in common: how an assignment becomes numbers.

    Args:
        variables: how many there are, latent ones included.
        values: values of each.
        block: variables written by one action.
        order: "any" or "fixed", as of the space.
        summed: so many variables are never written, as of the space.
        counts: as of the space.
    """

    level: nn.Parameter  # of what log Z follows from; numbers are of its type

    def __init__(
        self,
        variables: Fact,
        values: Fact,
        block: Count | None,
        order: str | None,
        summed: Amount | None = None,
        counts: list[Count] | None = None,
    ):
        super().__init__()
        # the space says which blocks there are; a policy asks it wherever it stands
        self.space = AssignmentSpace(variables, values, block, order, summed, counts)
        self.variables, self.values = variables, values
        self.block, self.order = self.space.block, self.space.order
        self.blocks, self.options = self.space.blocks, self.space.options

    @property
    def per_variable(self) -> int:
        """Numbers that `features` has for a variable."""
        return numbers_of(self.values)

    def features(self, value: Tensor) -> Tensor:
        """`(..., variables * per_variable)` of values `(..., variables)`; 0 where they are open."""
        return as_numbers(value, self.values).to(self.level)

    def encode(self, x: Tensor, given: Conditioned | None = None) -> Tensor:
        """`(batch, variables)` what is observed, -1 for the rest."""
        return pad(x, (0, self.variables - x.shape[1]), value=-1)

    def limited(self, value: Tensor) -> bool:
        """Whether open blocks of `(..., variables)` may have codes that are ruled out."""
        return self.space.counts is not None or (self.block > 1 and bool((value >= 0).any()))

    def codes(self, logits: Tensor, value: Tensor) -> Tensor:
        """Log probabilities `(..., blocks, options)` of the codes that agree with `value`."""
        if self.limited(value):
            logits = logits.masked_fill(~self.space.agrees(value), -torch.inf)
        return logits.log_softmax(-1)


class AssignmentPolicy(AssignmentNetwork):
    """A perceptron of a partial assignment, with a linear path: which block next, which values.

    With a uniform backward policy the right choice of the next block is uniform as well, and the
    flow of a state is the sum of `p~` over its completions divided by the number of ways in which
    as many blocks can be chosen. The network learns the log of this sum: `log_z` of a row with
    missing entries is the log marginal of what is known.

    Args:
        variables: how many there are, latent ones included.
        values: values of each.
        block: variables written by one action.
        order: as of the space.
        backward: "uniform", or "learned": then the forward policy chooses its order too.
        hidden: width of the hidden layers.
        layers: number of hidden layers.
        summed: as of the space.
        counts: as of the space.
    """

    log_z_parts = ("level",)

    def __init__(
        self,
        variables: Fact = None,
        values: Fact = None,
        block: Count | None = None,
        order: str | None = None,
        backward: str = "uniform",
        hidden: Count = 256,
        layers: Count = 3,
        summed: Amount | None = None,
        counts: list[Count] | None = None,
    ):
        super().__init__(variables, values, block, order, summed, counts)
        if backward not in ("uniform", "learned"):
            raise ValueError(f"backward is uniform or learned, not {backward!r}")
        self.learned = backward == "learned" and self.order == "any"
        widths = [variables * (self.per_variable + 1), *[hidden] * layers]
        stages: list[nn.Module] = []
        for inputs, outputs in itertools.pairwise(widths):
            stages += [nn.Linear(inputs, outputs), nn.SiLU()]
        self.trunk = nn.Sequential(*stages)
        self.sizes = (
            self.blocks * self.options,
            *((self.blocks, self.blocks) if self.learned else ()),
            1,
        )
        self.head = nn.Linear(hidden, sum(self.sizes))
        self.direct = nn.Linear(widths[0], sum(self.sizes), bias=False)
        nn.init.zeros_(self.direct.weight)
        self.level = nn.Parameter(torch.zeros(()))
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def network(self, value: Tensor) -> tuple[Tensor, ...]:
        """The heads, `(..., size)` each, of partial assignments `(..., variables)`."""
        features = torch.cat([self.features(value), (value < 0).to(self.level)], -1)
        return (self.head(self.trunk(features)) + self.direct(features)).split(self.sizes, -1)

    def forward(self, context: Any, state: Assignment) -> Step:
        """Scores states; what is open and what was observed is in them."""
        logits, *order, sums = self.network(state.value)
        forward = self.codes(logits.unflatten(-1, (self.blocks, self.options)), state.value)
        if self.learned:
            forward = forward + order[0].unsqueeze(-1)
        log_flow = self._log_sum(state.value, sums) - self._ways(state)
        return Step(forward.flatten(-2), order[1] if self.learned else None, log_flow)

    @torch.no_grad()
    def sample(
        self,
        context: Tensor,
        x: Any,
        space: LatentSpace,
        samples: int,
        exploration: Exploration | None = None,
    ) -> Trajectories:
        """With a uniform backward policy the order is drawn first, and then values alone."""
        if self.learned:
            return super().sample(context, x, space, samples, exploration)
        known = context[:, None].expand(-1, samples, -1)
        order, mask = self.orders(known)
        value, digits = self.space.grouped(known).clone(), self.space.digits(known.device)
        possible = None if self.space.counts is None else self.space.possible(known.device)
        log_behaviour = self.level.new_zeros(known.shape[:2])
        for block, writes in zip(order.unbind(2), mask.unbind(2), strict=True):
            place = block[..., None, None]
            heads = self.network(value.flatten(2))[0].unflatten(-1, (self.blocks, self.options))
            logits = heads.gather(2, place.expand(-1, -1, 1, self.options)).squeeze(2)
            place = place.expand(-1, -1, 1, self.block)
            there = value.gather(2, place)
            agrees = ((there < 0) | (there == digits)).all(-1)
            if possible is not None:
                agrees = agrees & possible[block]
            code, log_drawn = draw(logits, agrees, exploration or Exploration())
            written = torch.where(there < 0, digits[code].unsqueeze(2), there)
            value = torch.where(writes[..., None, None], value.scatter(2, place, written), value)
            log_behaviour = log_behaviour + log_drawn.masked_fill(~writes, 0.0)
        log_orders = (mask.sum(2) + 1.0).lgamma()
        found = self._along(known, value.flatten(2), order, mask)
        found.log_behaviour = log_behaviour - (0 if self.order == "fixed" else log_orders)
        return found

    @torch.no_grad()
    def retrace(self, context: Tensor, x: Any, space: LatentSpace, latent: Tensor) -> Trajectories:
        """With a uniform backward policy an order drawn at random."""
        if self.learned:
            return super().retrace(context, x, space, latent)
        known = context[:, None].expand_as(latent)
        order, mask = self.orders(known)
        found = self._along(known, latent, order, mask)
        log_orders = -(mask.sum(2) + 1.0).lgamma()
        found.log_behaviour = torch.zeros_like(log_orders) if self.order == "fixed" else log_orders
        return found

    def score(
        self,
        context: Tensor,
        space: LatentSpace,
        trajectories: Trajectories,
        flows: bool = False,
        forward_looking: bool = False,
        steps: int | None = None,
    ) -> Scores:
        """With a uniform backward policy one network call and no masks of actions."""
        if self.learned or steps is not None:
            return super().score(context, space, trajectories, flows, forward_looking, steps)
        order, mask, states = (
            trajectories.backward_actions, trajectories.mask, trajectories.states,
        )  # fmt: skip
        assert order is not None and mask is not None and states is not None
        value = torch.stack([state.value for state in states], 2)
        logits, sums = self.network(value)
        place = order[..., None, None].expand(*order.shape, 1, self.options)
        logits = logits[:, :, :-1].unflatten(-1, (self.blocks, self.options))
        logits = logits.gather(3, place).squeeze(3)
        if self.limited(context):
            agrees = self.space.agrees(context)[:, None, None].expand(*order.shape, -1, -1)
            logits = logits.masked_fill(~agrees.gather(3, place).squeeze(3), -torch.inf)
        code = self.space.code(trajectories.latent).gather(2, order)
        log_pf = logits.log_softmax(-1).gather(3, code.unsqueeze(3)).squeeze(3)
        log_pb = torch.zeros_like(log_pf)
        written = mask.long().cumsum(2)
        log_flow = self._log_sum(value, sums)
        if self.order == "any":
            open = mask.sum(2, keepdim=True)
            log_pf = log_pf - (open - written + 1).clamp(min=1).log()
            log_pb = -written.clamp(min=1).log()
            log_flow = log_flow - log_choose(open, pad(written, (1, 0)))
        return Scores(
            log_pf.masked_fill(~mask, 0.0),
            log_pb.masked_fill(~mask, 0.0),
            mask,
            self.log_z(context),
            log_flow if flows else None,
        )

    def orders(self, known: Tensor) -> tuple[Tensor, Tensor]:
        """Uniform orders of the open blocks of `(batch, samples, variables)`.

        Returns:
            `(batch, samples, steps)` blocks in their order, and bool: False past the last one.
        """
        open = self.space.open(known)
        steps = int(open.sum(2).max()) if open.numel() else 0
        chance = torch.rand(open.shape, device=open.device)
        if self.order == "fixed":
            chance = torch.arange(self.blocks, device=open.device).expand_as(open) / self.blocks
        order = chance.masked_fill(~open, 2.0).argsort(2)[:, :, :steps]
        return order, open.gather(2, order)

    def _along(self, known: Tensor, z: Tensor, order: Tensor, mask: Tensor) -> Trajectories:
        """The trajectories that write `z` `(batch, samples, variables)` in these orders."""
        steps = torch.arange(order.shape[2], device=z.device).expand_as(order)
        when = torch.full_like(self.space.open(z), order.shape[2], dtype=torch.long)
        when = when.scatter(2, order, torch.where(mask, steps, order.shape[2]))
        when = when.repeat_interleave(self.block, 2).masked_fill(known >= 0, -1)
        states = [
            Assignment(torch.where(when < step, z, -1), known >= 0)
            for step in range(order.shape[2] + 1)
        ]
        actions = order * self.options + self.space.code(z).gather(2, order)
        return Trajectories(z, states, actions, order, mask)

    def log_z(self, context: Tensor) -> Tensor:
        """`(batch,)` learned log of the sum of `p~` over all completions of what is observed."""
        return self._log_sum(context, self.network(context)[-1])

    def _log_sum(self, value: Tensor, sums: Tensor) -> Tensor:
        """Starts from what it is where all assignments are equal."""
        open = (value < 0).sum(-1)
        return (
            sums.squeeze(-1)
            + self.level
            + open * torch.log(torch.tensor(float(self.values), device=value.device))
        )

    def _ways(self, state: Assignment) -> Tensor:
        """`(batch, samples)` log of how many choices of as many blocks there are."""
        if self.order == "fixed" or self.learned:
            return torch.zeros(state.value.shape[:-1], device=state.value.device)
        written = self.space.written(state).sum(-1)
        all = written + self.space.open(state.value).sum(-1)
        return log_choose(all, written)


def log_choose(of: Tensor, chosen: Tensor) -> Tensor:
    """Log binomial coefficients of integers of any shape."""
    of, chosen = of.float(), chosen.float()
    return (of + 1).lgamma() - (chosen + 1).lgamma() - (of - chosen + 1).lgamma()

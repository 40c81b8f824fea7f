"""A sampler for assignments that looks at whatever is assigned so far."""

from __future__ import annotations

import itertools
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import one_hot, pad

from gfnem.energies.space import Assignment, AssignmentSpace
from gfnem.policy import Policy, Step
from gfnem.ranges import Count, Fact
from gfnem.target import Conditioned


class AssignmentNetwork(Policy):
    """What the samplers of assignments have in common: how an assignment becomes numbers.

    Args:
        variables: how many there are, latent ones included.
        values: values of each.
        block: variables written by one action.
        order: "any" or "fixed", as of the space.
    """

    def __init__(self, variables: Fact, values: Fact, block: Fact, order: str):
        super().__init__()
        self.variables, self.values, self.block, self.order = variables, values, block, order
        # the space says which blocks there are; a policy asks it wherever it stands
        self.space = AssignmentSpace(variables, values, block, order)
        self.blocks, self.options = self.space.blocks, self.space.options

    @property
    def per_variable(self) -> int:
        """Numbers that `features` has for a variable."""
        return 1 if self.values == 2 else self.values

    def features(self, value: Tensor) -> Tensor:
        """`(..., variables * per_variable)` of values `(..., variables)`; 0 where they are open."""
        if self.values == 2:
            return torch.where(value < 0, 0, 2 * value - 1).float()
        return one_hot(value + 1, self.values + 1)[..., 1:].flatten(-2).float()

    def encode(self, x: Tensor, given: Conditioned | None = None) -> Tensor:
        """`(batch, variables)` what is observed, -1 for the rest."""
        return pad(x, (0, self.variables - x.shape[1]), value=-1)

    def codes(self, logits: Tensor, value: Tensor) -> Tensor:
        """Log probabilities `(..., blocks, options)` of the codes that agree with `value`."""
        if self.block > 1:
            logits = logits.masked_fill(~self.space.agrees(value), -torch.inf)
        return logits.log_softmax(-1)


class AnyOrderPolicy(AssignmentNetwork):
    """A multilayer perceptron of a partial assignment: which block next, and which values.

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
    """

    log_z_parts = ("level",)

    def __init__(
        self,
        variables: Fact = None,
        values: Fact = None,
        block: Fact = 1,
        order: str = "any",
        backward: str = "uniform",
        hidden: Count = 256,
        layers: Count = 3,
    ):
        super().__init__(variables, values, block, order)
        if backward not in ("uniform", "learned"):
            raise ValueError(f"backward is uniform or learned, not {backward!r}")
        self.learned = backward == "learned" and order == "any"
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
        self.level = nn.Parameter(torch.zeros(()))
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def network(self, value: Tensor) -> tuple[Tensor, ...]:
        """The heads, `(..., size)` each, of partial assignments `(..., variables)`."""
        features = torch.cat([self.features(value), (value < 0).float()], -1)
        return self.head(self.trunk(features)).split(self.sizes, -1)

    def forward(self, context: Any, state: Assignment) -> Step:
        """Scores states; what is open and what was observed is in them."""
        logits, *order, sums = self.network(state.value)
        forward = self.codes(logits.unflatten(-1, (self.blocks, self.options)), state.value)
        if self.learned:
            forward = forward + order[0].unsqueeze(-1)
        log_flow = self._log_sum(state.value, sums) - self._ways(state)
        return Step(forward.flatten(-2), order[1] if self.learned else None, log_flow)

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

"""Energies over variables with few values: their log p~, and exact sums where these are cheap."""

from __future__ import annotations

import math
from abc import abstractmethod
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from gfnem.energies.space import as_numbers, digits, numbers_of, to_write
from gfnem.offers import NotOffered, optional
from gfnem.perceptron import perceptron
from gfnem.ranges import Amount, Count, Fact, Finite
from gfnem.target import EnergyModel

#: most assignments that are listed to sum over them
LISTED = 2**20
#: assignments of which the scores are computed at a time
CHUNK = 2**16
#: log p~ of a value that a variable cannot take, whose probability is then exactly 0
EXCLUDED = -1e4


class AssignmentEnergy(EnergyModel[Tensor, Tensor]):
    """`log p~` of complete assignments `(batch, samples, variables)`; a subclass writes `score`.

    Observations are rows `(batch, visible)` int64 with -1 for what is missing, and an assignment
    repeats them: `log_joint` looks at the assignment alone. Sums over what is not observed are
    exact where at most 2^20 assignments must be listed.

    Args:
        visible: variables of an observation.
        values: values of each.
        latent: variables that are never observed.
        collapsed: whether an assignment leaves open what is not observed of the visible variables,
            and `score` sums it out: a sampler then writes the latent ones alone.
        counts: how many of the values each variable can take, the first ones; all if None. `score`
            adds `excluded`.
    """

    unit = "row"

    def __init__(
        self,
        visible: Fact = None,
        values: Fact = None,
        latent: Amount = 0,
        collapsed: bool = False,
        counts: list[Count] | None = None,
    ):
        super().__init__()
        self.visible, self.values, self.latent = visible, values, latent
        self.counts = counts
        beyond = None
        if counts is not None:
            most = torch.tensor(counts)[:, None]
            beyond = (torch.arange(values) >= most).flatten() * EXCLUDED
        self.register_buffer("beyond", beyond, persistent=False)
        self.variables, self.summed = visible + latent, visible if collapsed else 0

    def facts(self) -> dict[str, Any]:
        """The number of variables, latent ones included, of those summed out, and of values."""
        return {"variables": self.variables, "values": self.values, "summed": self.summed}

    @property
    def width(self) -> int:
        """Length of `features` of an assignment."""
        return self.variables * numbers_of(self.values)

    def features(self, z: Tensor) -> Tensor:
        """`(..., variables)` int64 as `(..., width)` numbers: -1 and 1, or one of `values` is 1."""
        return as_numbers(z, self.values).to(next(self.parameters()).dtype)

    @abstractmethod
    def score(self, features: Tensor) -> Tensor:
        """`(...)` log p~ in nats of `features` `(..., width)`, differentiable."""

    def excluded(self, features: Tensor) -> Tensor | float:
        """`(...)` what rules out values that a variable cannot take; 0 for all others."""
        return 0.0 if self.beyond is None else features @ self.beyond

    def log_joint(self, x: Tensor, z: Tensor) -> Tensor:
        """`(batch, samples)` log p~ of assignments."""
        return self.score(self.features(z))

    @optional
    def resample(self, z: Tensor) -> Tensor:
        """A sweep of block Gibbs sampling of `(..., variables)`. Optional: of layered energies."""
        ...

    @optional
    def couplings(self) -> Tensor:
        """`(rows, columns)` what pairs of variables say to each other. Optional: for pictures."""
        ...

    def filled(self, z: Tensor, likeliest: bool = False) -> Tensor:
        """Assignments `(..., variables)` with draws, or likeliest values, of what is left open."""
        return z

    @optional
    def mean_field(self, x: Tensor, sweeps: int = 10) -> tuple[Tensor, ...]:
        """Means of the latent units given complete rows, layer by layer. Optional."""
        ...

    # ---------------------------------------------------------------- exact sums

    def offers(self, hook: str) -> bool:
        """Whether sums are cheap enough to be exact."""
        if hook == "log_partition":
            return self.values**self.variables <= LISTED
        if hook in ("log_marginal", "sample_posterior"):
            return self.values**self.latent <= LISTED
        return super().offers(hook)

    def _needs(self, hook: str) -> None:
        if not self.offers(hook):
            raise NotOffered(f"{type(self).__name__}: too many assignments for an exact {hook}")

    def sums_over(self, missing: int) -> bool:
        """Whether `log_marginal` is exact and cheap for rows that miss so many entries."""
        listed = self.latent + (0 if self.summed else missing)
        return self.values**listed <= CHUNK

    def log_partition(self) -> Tensor:
        """`()` exact log Z in nats, by listing every assignment."""
        self._needs("log_partition")
        return self.table().logsumexp(0)

    def table(self) -> Tensor:
        """`(values ** variables,)` log p~ of every assignment, the first variable slowest."""
        every = digits(self.values, self.variables, next(self.parameters()).device)
        return torch.cat([self.score(self.features(part)) for part in every.split(CHUNK)])

    def log_marginal(self, x: Tensor) -> Tensor:
        """`(batch,)` the log of the sum of p~ over all assignments that agree with `x`."""
        self._needs("log_marginal")
        return self.completed(x)[1].logsumexp(1)

    def completed(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Every assignment that agrees with rows, with their log p~.

        Rows may miss different entries; those that miss fewer have repeated assignments at -inf.

        Returns:
            `(batch, most, variables)` int64 and `(batch, most)` nats.
        """
        known, missing = pad(x, (0, self.latent), value=-1), to_write(x, self)
        most = int(missing.sum(1).max()) if len(x) else 0
        if self.values**most * max(len(x), 1) > 64 * LISTED:
            raise ValueError(f"{most} entries missing: too many to sum over")
        code = digits(self.values, most, x.device)  # (options, most)
        place = (missing.cumsum(1) - 1).clamp(min=0)
        written = pad(code, (0, 1))[:, place].transpose(0, 1)  # (batch, options, variables)
        z = torch.where(missing[:, None], written, known[:, None])
        value = self.log_joint(x, z)
        # of a row that misses fewer, the codes whose further digits are 0 count once
        beyond = torch.arange(most, device=x.device) >= missing.sum(1, keepdim=True)
        repeated = (code[None] * beyond[:, None] > 0).any(2)
        return z, value.masked_fill(repeated, -torch.inf)

    @torch.no_grad()
    def sample_posterior(self, x: Tensor, samples: int) -> Tensor:
        """`(batch, samples, variables)` exact draws given what is observed."""
        self._needs("sample_posterior")
        z, value = self.completed(x)
        index = torch.multinomial(value.softmax(1), samples, replacement=True)
        return z.gather(1, index.unsqueeze(2).expand(-1, -1, z.shape[2]))


class MLPEnergy(AssignmentEnergy):
    """A multilayer perceptron of all variables, plus a linear path.

    Args:
        visible: variables of an observation.
        values: values of each.
        hidden: width of the hidden layers.
        layers: number of hidden layers.
        counts: how many of the values each variable can take; all if None.
    """

    def __init__(
        self,
        visible: Fact = None,
        values: Fact = None,
        hidden: Count = 256,
        layers: Count = 3,
        counts: list[Count] | None = None,
    ):
        super().__init__(visible, values, counts=counts)
        self.curved = perceptron(self.width, hidden, layers, 1)
        self.direct = nn.Linear(self.width, 1, bias=False)
        nn.init.zeros_(self.direct.weight)

    def score(self, features: Tensor) -> Tensor:
        """`(...)` nats; 0 everywhere before training."""
        value = (self.curved(features) + self.direct(features)).squeeze(-1)
        return value + self.excluded(features)


class Pairwise(AssignmentEnergy):
    """`log p~ = f' W f + b' f` of spins -1 and 1, or of one-hot values (Potts).

    `W` is symmetric and couples no variable with itself, so the coupling of a pair counts twice, as
    in Zhang et al. (2022, section 5.2).

    Args:
        visible: variables of an observation.
        values: values of each; with 2 it is an Ising model.
        biases: whether there are fields `b`.
        counts: how many of the values each variable can take; all if None.
    """

    def __init__(
        self,
        visible: Fact = None,
        values: Fact = None,
        biases: bool = True,
        counts: list[Count] | None = None,
    ):
        super().__init__(visible, values, counts=counts)
        self.upper = nn.Parameter(torch.zeros(self.width, self.width))
        self.bias = nn.Parameter(torch.zeros(self.width), requires_grad=biases)
        variable = torch.arange(self.width) // (self.width // visible)
        self.register_buffer("pairs", (variable[:, None] < variable).float(), persistent=False)

    @property
    def coupling(self) -> Tensor:
        """`(width, width)` the symmetric `W`."""
        upper = self.upper * self.pairs
        return upper + upper.mT

    def couplings(self) -> Tensor:
        """`(width, width)` the symmetric `W`."""
        return self.coupling

    def score(self, features: Tensor) -> Tensor:
        """`(...)` nats."""
        value = ((features @ self.coupling) * features).sum(-1) + features @ self.bias
        return value + self.excluded(features)


class Torus(AssignmentEnergy):
    """An Ising model on a square lattice whose edges are joined.

    `log p~ = coupling f' A f + field sum f` of spins -1 and 1. `A` is the lattice's adjacency
    matrix, so that each edge counts twice, as in `Pairwise`: the critical coupling is 0.2203. Sums
    are exact by transfer matrices, also with spins observed.

    Args:
        visible: spins, the square of the side.
        values: 2.
        coupling: of neighbours.
        field: on each spin.
        learned: whether coupling and field are trained.
    """

    def __init__(
        self,
        visible: Fact = None,
        values: Count | None = None,
        coupling: Finite = 0.1,
        field: Finite = 0.0,
        learned: bool = False,
    ):
        super().__init__(visible, 2)
        self.side = math.isqrt(visible)
        if self.side**2 != visible or self.side < 3 or values not in (None, 2):
            raise ValueError(f"{visible} variables of {values} values are no square of spins")
        self.coupling = nn.Parameter(torch.tensor(float(coupling)), requires_grad=learned)
        self.field = nn.Parameter(torch.tensor(float(field)), requires_grad=learned)

    def score(self, features: Tensor) -> Tensor:
        """`(...)` nats."""
        spins = features.unflatten(-1, (self.side, self.side))
        edges = spins * (spins.roll(1, -1) + spins.roll(1, -2))
        return 2 * self.coupling * edges.sum((-1, -2)) + self.field * features.sum(-1)

    def offers(self, hook: str) -> bool:
        """Sums are exact up to a side of 11."""
        if hook in ("log_partition", "log_marginal"):
            return self.side <= 11
        return hook != "sample_posterior" and super().offers(hook)

    def sums_over(self, missing: int) -> bool:
        """Whatever is missing."""
        return self.offers("log_marginal")

    def log_partition(self) -> Tensor:
        """`()` exact log Z."""
        self._needs("log_partition")
        nothing = torch.full((1, self.visible), -1, device=self.coupling.device)
        return self.log_marginal(nothing)[0].to(self.coupling.dtype)

    def log_marginal(self, x: Tensor) -> Tensor:
        """`(batch,)` the log of the sum over all spins that are not observed.

        The trace of a product of transfer matrices, one for each row of the lattice (Onsager 1944).
        """
        self._needs("log_marginal")
        known = x.unflatten(1, (self.side, self.side))
        edges = self.coupling.double().expand(self.side, self.side)
        field = self.field.double().expand(self.side, self.side)
        return log_sum_on_torus(edges, edges, field, known).to(self.coupling.dtype)


def log_sum_on_torus(right: Tensor, down: Tensor, field: Tensor, known: Tensor) -> Tensor:
    """`(batch,)` log of the sum of an Ising model's p~ over all spins that are not known.

    The trace of a product of transfer matrices, one for each row of the lattice (Onsager 1944).

    Args:
        right: `(side, side)` coupling of each spin with its right neighbour; it counts twice.
        down: `(side, side)` likewise with the one below.
        field: `(side, side)`.
        known: `(batch, side, side)` int64, 0 and 1 for spins -1 and 1, -1 for those summed over.
    """
    side = len(right)
    rows = digits(2, side, known.device)
    spins = (2 * rows - 1).to(right)
    agrees = ((known.unsqueeze(2) < 0) | (known.unsqueeze(2) == rows)).all(-1)
    product, scale = None, right.new_zeros(len(known))
    for row in range(side):
        within = (spins * spins.roll(-1, -1)) @ (2 * right[row]) + spins @ field[row]
        between = (spins * 2 * down[row]) @ spins.T
        step = (within.exp() * agrees[:, row]).unsqueeze(2) * between.exp()
        product = step if product is None else product @ step
        most = product.amax((1, 2)).clamp(min=torch.finfo(product.dtype).tiny)
        product, scale = product / most[:, None, None], scale + most.log()
    assert product is not None
    return product.diagonal(0, 1, 2).sum(1).log() + scale

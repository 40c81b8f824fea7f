"""Energies over variables with few values: their log p~, and exact sums where these are cheap."""

from __future__ import annotations

import itertools
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import one_hot, pad, softplus

from gfnem.energies.space import digits
from gfnem.offers import NotOffered
from gfnem.ranges import Amount, Count, Fact
from gfnem.target import EnergyModel

#: most assignments that are listed to sum over them
LISTED = 2**20
#: assignments of which the scores are computed at a time
_CHUNK = 2**16


class AssignmentEnergy(EnergyModel):
    """`log p~` of complete assignments `(batch, samples, variables)`; a subclass writes `score`.

    Observations are rows `(batch, visible)` int64 with -1 for what is missing, and an assignment
    repeats them: `log_joint` looks at the assignment alone. Sums over what is not observed are
    exact where at most 2^20 assignments must be listed.

    Args:
        visible: variables of an observation.
        values: values of each.
        latent: variables that are never observed.
    """

    unit = "row"

    def __init__(self, visible: Fact = None, values: Fact = None, latent: Amount = 0):
        super().__init__()
        self.visible, self.values, self.latent = visible, values, latent
        self.variables = visible + latent

    def facts(self) -> dict[str, Any]:
        """The number of variables, latent ones included, and of values."""
        return {"variables": self.variables, "values": self.values}

    @property
    def width(self) -> int:
        """Length of `features` of an assignment."""
        return self.variables * (1 if self.values == 2 else self.values)

    def features(self, z: Tensor) -> Tensor:
        """`(..., variables)` int64 as `(..., width)` numbers: -1 and 1, or one of `values` is 1."""
        z = z.to(torch.int64)
        if self.values == 2:
            return (2 * z - 1).float()
        return one_hot(z, self.values).flatten(-2).float()

    def score(self, features: Tensor) -> Tensor:
        """`(...)` log p~ in nats of `features` `(..., width)`, differentiable."""
        raise NotImplementedError

    def log_joint(self, x: Tensor, z: Tensor) -> Tensor:
        """`(batch, samples)` log p~ of assignments."""
        return self.score(self.features(z))

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

    def log_partition(self) -> Tensor:
        """`()` exact log Z in nats, by listing every assignment."""
        self._needs("log_partition")
        return self.table().logsumexp(0)

    def table(self) -> Tensor:
        """`(values ** variables,)` log p~ of every assignment, the first variable slowest."""
        every = digits(self.values, self.variables, next(self.parameters()).device)
        return torch.cat([self.score(self.features(part)) for part in every.split(_CHUNK)])

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
        known = pad(x, (0, self.latent), value=-1)
        missing = known < 0
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
    """

    def __init__(
        self,
        visible: Fact = None,
        values: Fact = None,
        hidden: Count = 256,
        layers: Count = 3,
    ):
        super().__init__(visible, values)
        widths = [self.width, *[hidden] * layers]
        stages: list[nn.Module] = []
        for inputs, outputs in itertools.pairwise(widths):
            stages += [nn.Linear(inputs, outputs), nn.SiLU()]
        self.curved = nn.Sequential(*stages, nn.Linear(hidden, 1))
        self.direct = nn.Linear(self.width, 1, bias=False)
        nn.init.zeros_(self.curved[-1].weight)
        nn.init.zeros_(self.curved[-1].bias)
        nn.init.zeros_(self.direct.weight)

    def score(self, features: Tensor) -> Tensor:
        """`(...)` nats; 0 everywhere before training."""
        return (self.curved(features) + self.direct(features)).squeeze(-1)


class Pairwise(AssignmentEnergy):
    """`log p~ = f' W f + b' f` of spins -1 and 1, or of one-hot values (Potts).

    `W` is symmetric and couples no variable with itself, so the coupling of a pair counts twice, as
    in Zhang et al. (2022, section 5.2).

    Args:
        visible: variables of an observation.
        values: values of each; with 2 it is an Ising model.
        biases: whether there are fields `b`.
    """

    def __init__(self, visible: Fact = None, values: Fact = None, biases: bool = True):
        super().__init__(visible, values)
        self.upper = nn.Parameter(torch.zeros(self.width, self.width))
        self.bias = nn.Parameter(torch.zeros(self.width), requires_grad=biases)
        variable = torch.arange(self.width) // (self.width // visible)
        self.register_buffer("pairs", (variable[:, None] < variable).float(), persistent=False)

    @property
    def coupling(self) -> Tensor:
        """`(width, width)` the symmetric `W`."""
        upper = self.upper * self.pairs
        return upper + upper.mT

    def score(self, features: Tensor) -> Tensor:
        """`(...)` nats."""
        return ((features @ self.coupling) * features).sum(-1) + features @ self.bias


class RBM(AssignmentEnergy):
    """A restricted Boltzmann machine: `log p~(v, h) = b' v + c' h + v' W h` with units 0 and 1.

    Args:
        visible: units of an observation.
        hidden: latent units. With 20 or fewer the partition sum is exact.
    """

    def __init__(self, visible: Fact = None, hidden: Count = 16):
        super().__init__(visible, 2, hidden)
        self.weight = nn.Parameter(0.01 * torch.randn(visible, hidden))
        self.visible_bias = nn.Parameter(torch.zeros(visible))
        self.hidden_bias = nn.Parameter(torch.zeros(hidden))

    def score(self, features: Tensor) -> Tensor:
        """`(...)` nats."""
        seen, hidden = ((features + 1) / 2).split((self.visible, self.latent), -1)
        inner = ((seen @ self.weight) * hidden).sum(-1)
        return inner + seen @ self.visible_bias + hidden @ self.hidden_bias

    def offers(self, hook: str) -> bool:
        """The hidden units are summed out in closed form."""
        if hook == "log_partition":
            return 2 ** min(self.visible, self.latent) <= LISTED
        return hook in ("collapsed_log_joint", "log_marginal") or super().offers(hook)

    def seen_log_joint(self, seen: Tensor) -> Tensor:
        """`(...)` log p~ of visible units `(..., visible)`, the hidden ones summed out."""
        seen = seen.float()
        inner = softplus(seen @ self.weight + self.hidden_bias).sum(-1)
        return inner + seen @ self.visible_bias

    def collapsed_log_joint(self, x: Tensor, z: Tensor) -> Tensor:
        """`(batch, samples)` the hidden units summed out."""
        return self.seen_log_joint(z[..., : self.visible])

    def log_marginal(self, x: Tensor) -> Tensor:
        """`(batch,)` hidden units summed out; with missing entries by listing."""
        if (x < 0).any():
            return super().log_marginal(x)
        return self.seen_log_joint(x)

    def log_partition(self) -> Tensor:
        """`()` exact log Z: a sum over the smaller layer, the other in closed form."""
        self._needs("log_partition")
        if self.visible <= self.latent:
            every = digits(2, self.visible, self.weight.device)
            parts = [self.seen_log_joint(part) for part in every.split(_CHUNK)]
        else:
            every = digits(2, self.latent, self.weight.device)
            parts = [
                softplus(part.float() @ self.weight.T + self.visible_bias).sum(-1)
                + part.float() @ self.hidden_bias
                for part in every.split(_CHUNK)
            ]
        return torch.cat(parts).logsumexp(0)

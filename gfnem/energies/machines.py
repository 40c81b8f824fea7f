"""Boltzmann machines with one or two layers of latent units."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from gfnem.energies.models import CHUNK, LISTED, AssignmentEnergy
from gfnem.energies.space import digits
from gfnem.ranges import Count, Fact


class RBM(AssignmentEnergy):
    """A restricted Boltzmann machine: `log p~(v, h) = b' v + c' h + v' W h` with units 0 and 1.

    Args:
        visible: units of an observation.
        hidden: latent units. Where one of the layers has 20 or fewer the partition sum is exact.
    """

    def __init__(self, visible: Fact = None, hidden: Count = 16):
        super().__init__(visible, 2, hidden)
        self.weight = nn.Parameter(0.01 * torch.randn(visible, hidden))
        self.visible_bias = nn.Parameter(torch.zeros(visible))
        self.hidden_bias = nn.Parameter(torch.zeros(hidden))

    def couplings(self) -> Tensor:
        """`(visible, hidden)` the weights."""
        return self.weight

    def score(self, features: Tensor) -> Tensor:
        """`(...)` nats."""
        seen, hidden = ((features + 1) / 2).split((self.visible, self.latent), -1)
        inner = ((seen @ self.weight) * hidden).sum(-1)
        return inner + seen @ self.visible_bias + hidden @ self.hidden_bias

    def offers(self, hook: str) -> bool:
        """The hidden units are summed out in closed form."""
        if hook == "log_partition":
            return 2 ** min(self.visible, self.latent) <= LISTED
        hooks = ("collapsed_log_joint", "log_marginal", "sample_posterior")
        return hook in hooks or super().offers(hook)

    def sums_over(self, missing: int) -> bool:
        """Complete rows always; else what is listed."""
        return missing == 0 or super().sums_over(missing)

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
        return super().log_marginal(x) if (x < 0).any() else self.seen_log_joint(x)

    def log_partition(self) -> Tensor:
        """`()` exact log Z: a sum over the smaller layer, the other in closed form."""
        self._needs("log_partition")
        if self.visible <= self.latent:
            every = digits(2, self.visible, self.weight.device)
            return torch.cat([self.seen_log_joint(p) for p in every.split(CHUNK)]).logsumexp(0)
        every = digits(2, self.latent, self.weight.device)
        parts = [
            softplus(part @ self.weight.T + self.visible_bias).sum(-1) + part @ self.hidden_bias
            for part in every.float().split(CHUNK)
        ]
        return torch.cat(parts).logsumexp(0)

    @torch.no_grad()
    def sample_posterior(self, x: Tensor, samples: int) -> Tensor:
        """`(batch, samples, variables)` exact draws; with missing entries by listing."""
        if (x < 0).any():
            return super().sample_posterior(x, samples)
        chance = (x.float() @ self.weight + self.hidden_bias).sigmoid()[:, None]
        chance = chance.expand(-1, samples, -1)
        return torch.cat([x[:, None].expand(-1, samples, -1), chance.bernoulli().long()], 2)

    @torch.no_grad()
    def resample(self, z: Tensor) -> Tensor:
        """A sweep of block Gibbs sampling of `(..., variables)`: hidden units, then visible."""
        hidden = (z[..., : self.visible].float() @ self.weight + self.hidden_bias).sigmoid()
        hidden = hidden.bernoulli()
        seen = (hidden @ self.weight.T + self.visible_bias).sigmoid().bernoulli()
        return torch.cat([seen, hidden], -1).long()


class BoltzmannMachine(AssignmentEnergy):
    """A Boltzmann machine of two latent layers (Salakhutdinov and Hinton 2009).

    `log p~(v, h, t) = a' v + b' h + c' t + v' W h + h' U t` with units 0 and 1. Given the middle
    layer, the visible and the top one are independent.

    Args:
        visible: units of an observation.
        hidden: of the middle layer. With 20 or fewer the partition sum is exact.
        top: of the top layer. With 20 or fewer the likelihood of a row is exact too.
    """

    def __init__(self, visible: Fact = None, hidden: Count = 12, top: Count = 8):
        super().__init__(visible, 2, hidden + top)
        self.hidden, self.top = hidden, top
        self.weight = nn.Parameter(0.01 * torch.randn(visible, hidden))
        self.top_weight = nn.Parameter(0.01 * torch.randn(hidden, top))
        self.visible_bias = nn.Parameter(torch.zeros(visible))
        self.hidden_bias = nn.Parameter(torch.zeros(hidden))
        self.top_bias = nn.Parameter(torch.zeros(top))

    def couplings(self) -> Tensor:
        """`(visible, hidden)` the weights of the first layer."""
        return self.weight

    def score(self, features: Tensor) -> Tensor:
        """`(...)` nats."""
        units = ((features + 1) / 2).split((self.visible, self.hidden, self.top), -1)
        seen, hidden, top = units
        inner = seen @ self.weight + top @ self.top_weight.T + self.hidden_bias
        return (inner * hidden).sum(-1) + seen @ self.visible_bias + top @ self.top_bias

    def offers(self, hook: str) -> bool:
        """The middle layer is summed out in closed form, or the two others are."""
        if hook == "log_partition":
            return 2**self.hidden <= LISTED
        if hook in ("log_marginal", "sample_posterior"):
            return 2**self.top <= LISTED
        return hook == "collapsed_log_joint" or super().offers(hook)

    def sums_over(self, missing: int) -> bool:
        """Complete rows by the top layer; else what is listed."""
        return (missing == 0 and self.offers("log_marginal")) or super().sums_over(missing)

    def collapsed_log_joint(self, x: Tensor, z: Tensor) -> Tensor:
        """`(batch, samples)` the middle layer summed out."""
        seen, _, top = z.float().split((self.visible, self.hidden, self.top), -1)
        inner = seen @ self.weight + top @ self.top_weight.T + self.hidden_bias
        return softplus(inner).sum(-1) + seen @ self.visible_bias + top @ self.top_bias

    def by_top(self, x: Tensor) -> Tensor:
        """`(batch, 2 ** top)` log p~ of complete rows and each state of the top layer."""
        seen, top = x.float(), digits(2, self.top, x.device).float()
        inner = (seen @ self.weight + self.hidden_bias)[:, None] + top @ self.top_weight.T
        return softplus(inner).sum(-1) + (seen @ self.visible_bias)[:, None] + top @ self.top_bias

    def log_marginal(self, x: Tensor) -> Tensor:
        """`(batch,)` both latent layers summed out; with missing entries by listing."""
        self._needs("log_marginal")
        return super().log_marginal(x) if (x < 0).any() else self.by_top(x).logsumexp(1)

    def log_partition(self) -> Tensor:
        """`()` exact log Z: a sum over the middle layer, the others in closed form."""
        self._needs("log_partition")
        parts = [
            softplus(part @ self.weight.T + self.visible_bias).sum(-1)
            + softplus(part @ self.top_weight + self.top_bias).sum(-1)
            + part @ self.hidden_bias
            for part in digits(2, self.hidden, self.weight.device).float().split(CHUNK)
        ]
        return torch.cat(parts).logsumexp(0)

    @torch.no_grad()
    def sample_posterior(self, x: Tensor, samples: int) -> Tensor:
        """`(batch, samples, variables)` exact draws; with missing entries by listing."""
        self._needs("sample_posterior")
        if (x < 0).any():
            return super().sample_posterior(x, samples)
        state = self.by_top(x).softmax(1).multinomial(samples, replacement=True)
        top = digits(2, self.top, x.device)[state]
        inner = (x.float() @ self.weight + self.hidden_bias)[:, None]
        hidden = (inner + top.float() @ self.top_weight.T).sigmoid().bernoulli().long()
        return torch.cat([x[:, None].expand(-1, samples, -1), hidden, top], 2)

    @torch.no_grad()
    def resample(self, z: Tensor) -> Tensor:
        """A sweep of block Gibbs sampling of `(..., variables)`: the middle, then the others."""
        seen, _, top = z.float().split((self.visible, self.hidden, self.top), -1)
        inner = seen @ self.weight + top @ self.top_weight.T + self.hidden_bias
        hidden = inner.sigmoid().bernoulli()
        seen = (hidden @ self.weight.T + self.visible_bias).sigmoid().bernoulli()
        top = (hidden @ self.top_weight + self.top_bias).sigmoid().bernoulli()
        return torch.cat([seen, hidden, top], -1).long()

    @torch.no_grad()
    def mean_field(self, x: Tensor, sweeps: int = 10) -> tuple[Tensor, Tensor]:
        """Means of the latent layers given complete rows, `(batch, hidden)` and `(batch, top)`."""
        inner = x.float() @ self.weight + self.hidden_bias
        top = torch.full((len(x), self.top), 0.5, device=x.device)
        hidden = inner.sigmoid()
        for _ in range(sweeps):
            hidden = (inner + top @ self.top_weight.T).sigmoid()
            top = (hidden @ self.top_weight + self.top_bias).sigmoid()
        return hidden, top

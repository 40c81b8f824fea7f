"""Boltzmann machines with one or two layers of latent units."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import pad, softplus

from gfnem.energies.chains import BlockGibbs
from gfnem.energies.models import CHUNK, LISTED, AssignmentEnergy
from gfnem.energies.space import digits
from gfnem.mcmc import LocalMoves
from gfnem.offers import NotOffered
from gfnem.ranges import Count, Fact


def log_layer(features: Tensor, inner: Tensor) -> Tensor:
    """`(...)` nats of a layer of units that are independent given its neighbours.

    Args:
        features: `(..., units)`, -1 and 1 for units 0 and 1; 0 for those that are summed out.
        inner: `(..., units)` what each unit's being 1 is worth.
    """
    own = (features + 1) / 2 * inner
    open = features == 0
    return (torch.where(open, softplus(inner), own) if open.any() else own).sum(-1)


class LayeredMachine(AssignmentEnergy):
    """A Boltzmann machine of layers, of which the visible one has neighbours in one other.

    Attributes:
        weight: `(visible, hidden)` to the layer behind the visible one.
        visible_bias: `(visible,)`.
    """

    weight: nn.Parameter
    visible_bias: nn.Parameter

    def couplings(self) -> Tensor:
        """`(visible, hidden)` the weights of the first layer."""
        return self.weight

    def offers(self, hook: str) -> bool:
        """Sweeps over the layers."""
        return hook == "resample" or super().offers(hook)

    def prepare(self, data: Any) -> None:
        """Starts visible units at their shares of 1 in the data (Hinton 2012, section 8.1)."""
        share = data.rows.float().mean(0).clamp(0.01, 0.99)
        with torch.no_grad():
            self.visible_bias.copy_(share.logit())

    def moves(self) -> LocalMoves:
        """Sweeps over the layers."""
        return BlockGibbs()

    @torch.no_grad()
    def filled(self, z: Tensor, likeliest: bool = False) -> Tensor:
        """`z` with its open visible units drawn, or 1 where that is likelier."""
        hidden = self.weight.shape[1]
        seen, above = z[..., : self.visible], z[..., self.visible : self.visible + hidden]
        chance = (above.to(self.weight) @ self.weight.T + self.visible_bias).sigmoid()
        values = (chance > 0.5).long() if likeliest else chance.bernoulli().long()
        return torch.cat([torch.where(seen < 0, values, seen), z[..., self.visible :]], -1)


class RBM(LayeredMachine):
    """A restricted Boltzmann machine: `log p~(v, h) = b' v + c' h + v' W h` with units 0 and 1.

    Args:
        visible: units of an observation.
        hidden: latent units. Where one of the layers has 20 or fewer the partition sum is exact.
        collapsed: whether a sampler writes the hidden units alone. Visible ones that are not
            observed are then summed out in closed form, here and in both phases' gradients.
    """

    def __init__(self, visible: Fact = None, hidden: Count = 16, collapsed: bool = False):
        super().__init__(visible, 2, hidden, collapsed)
        self.weight = nn.Parameter(0.01 * torch.randn(visible, hidden))
        self.visible_bias = nn.Parameter(torch.zeros(visible))
        self.hidden_bias = nn.Parameter(torch.zeros(hidden))

    def score(self, features: Tensor) -> Tensor:
        """`(...)` nats; visible units that are open are summed out."""
        seen, hidden = features.split((self.visible, self.latent), -1)
        hidden = (hidden + 1) / 2
        layer = log_layer(seen, hidden @ self.weight.T + self.visible_bias)
        return layer + hidden @ self.hidden_bias

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
        """`(batch, samples)` the hidden units summed out, where no visible ones are already."""
        seen = z[..., : self.visible]
        return self.log_joint(x, z) if (seen < 0).any() else self.seen_log_joint(seen)

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
        """A sweep of block Gibbs sampling of `(..., variables)`: hidden units, then visible.

        Visible ones that are summed out are drawn, looked at and left open again.
        """
        seen = self.filled(z)[..., : self.visible].float()
        hidden = (seen @ self.weight + self.hidden_bias).sigmoid().bernoulli()
        if self.summed:
            return torch.cat([z[..., : self.visible], hidden.long()], -1)
        seen = (hidden @ self.weight.T + self.visible_bias).sigmoid().bernoulli()
        return torch.cat([seen, hidden], -1).long()


class BoltzmannMachine(LayeredMachine):
    """A Boltzmann machine of two latent layers (Salakhutdinov and Hinton 2009).

    `log p~(v, h, t) = a' v + b' h + c' t + v' W h + h' U t` with units 0 and 1. Given the middle
    layer, the visible and the top one are independent.

    Args:
        visible: units of an observation.
        hidden: of the middle layer. With 20 or fewer the partition sum is exact.
        top: of the top layer. With 20 or fewer the likelihood of a row is exact too.
        collapsed: whether a sampler writes the middle layer alone. The top layer, and visible units
            that are not observed, are then summed out in closed form, here and in both phases'
            gradients; an assignment has no top layer.
    """

    def __init__(
        self,
        visible: Fact = None,
        hidden: Count = 12,
        top: Count = 8,
        collapsed: bool = False,
    ):
        super().__init__(visible, 2, hidden if collapsed else hidden + top, collapsed)
        self.hidden, self.top = hidden, top
        self.weight = nn.Parameter(0.01 * torch.randn(visible, hidden))
        self.top_weight = nn.Parameter(0.01 * torch.randn(hidden, top))
        self.visible_bias = nn.Parameter(torch.zeros(visible))
        self.hidden_bias = nn.Parameter(torch.zeros(hidden))
        self.top_bias = nn.Parameter(torch.zeros(top))

    def score(self, features: Tensor) -> Tensor:
        """`(...)` nats; what is open of the outer layers, or not there, is summed out."""
        features = pad(features, (0, self.visible + self.hidden + self.top - self.variables))
        seen, hidden, top = features.split((self.visible, self.hidden, self.top), -1)
        hidden = (hidden + 1) / 2
        below = log_layer(seen, hidden @ self.weight.T + self.visible_bias)
        above = log_layer(top, hidden @ self.top_weight + self.top_bias)
        return hidden @ self.hidden_bias + below + above

    def offers(self, hook: str) -> bool:
        """The middle layer is summed out in closed form, or the two others are."""
        if hook == "log_partition":
            return 2**self.hidden <= LISTED
        if hook in ("log_marginal", "sample_posterior"):
            return 2**self.top <= LISTED
        if hook == "mean_field":
            return not self.summed
        return super().offers(hook)

    def sums_over(self, missing: int) -> bool:
        """Complete rows by the top layer; else what is listed."""
        return (missing == 0 and self.offers("log_marginal")) or super().sums_over(missing)

    def collapsed_log_joint(self, x: Tensor, z: Tensor) -> Tensor:
        """`(batch, samples)` the middle layer summed out, where the outer ones are not already."""
        if self.summed:
            return self.log_joint(x, z)
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
        z = torch.cat([x[:, None].expand(-1, samples, -1), hidden, top], 2)
        return z[..., : self.variables]

    @torch.no_grad()
    def resample(self, z: Tensor) -> Tensor:
        """A sweep of block Gibbs sampling of `(..., variables)`: the middle, then the others.

        Of a collapsed machine the others are drawn first, looked at and left open again.
        """
        if self.summed:
            hidden = z[..., self.visible :].float()
            top = (hidden @ self.top_weight + self.top_bias).sigmoid().bernoulli()
            seen = self.filled(z)[..., : self.visible].float()
        else:
            seen, _, top = z.float().split((self.visible, self.hidden, self.top), -1)
        inner = seen @ self.weight + top @ self.top_weight.T + self.hidden_bias
        hidden = inner.sigmoid().bernoulli()
        if self.summed:
            return torch.cat([z[..., : self.visible], hidden.long()], -1)
        seen = (hidden @ self.weight.T + self.visible_bias).sigmoid().bernoulli()
        top = (hidden @ self.top_weight + self.top_bias).sigmoid().bernoulli()
        return torch.cat([seen, hidden, top], -1).long()

    @torch.no_grad()
    def mean_field(self, x: Tensor, sweeps: int = 10) -> tuple[Tensor, Tensor]:
        """Means of the latent layers given complete rows, `(batch, hidden)` and `(batch, top)`."""
        if self.summed:
            raise NotOffered("a collapsed BoltzmannMachine offers no mean_field: collapsed False")
        inner = x.float() @ self.weight + self.hidden_bias
        top = torch.full((len(x), self.top), 0.5, device=x.device)
        hidden = inner.sigmoid()
        for _ in range(sweeps):
            hidden = (inner + top @ self.top_weight.T).sigmoid()
            top = (hidden @ self.top_weight + self.top_bias).sigmoid()
        return hidden, top

"""Markov chains over assignments that look at the energy: Gibbs, and by its gradient."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import one_hot, pad

from gfnem.energies.models import AssignmentEnergy
from gfnem.energies.space import random_values, to_write
from gfnem.mcmc import LocalMoves
from gfnem.offers import NotOffered
from gfnem.ranges import Positive
from gfnem.target import Conditioned


class EnergyMoves(LocalMoves[Tensor, Tensor]):
    """Moves for `(batch, samples, variables)` of an `AssignmentEnergy`; what is observed stays."""

    model: AssignmentEnergy

    def given(self, given: Conditioned) -> EnergyMoves:
        """The moves of one energy."""
        made = object.__new__(type(self))  # copying would bind the constructor's arguments anew
        vars(made).update(vars(self), model=given.target)
        return made

    def free(self, x: Tensor, z: Tensor) -> Tensor:
        """`(batch, samples, variables)` bool: what may move."""
        return to_write(x, self.model)[:, None].expand(z.shape)

    def initial(self, x: Tensor, samples: int) -> Tensor:
        """Uniform values where nothing is observed."""
        known = pad(x, (0, self.model.variables - x.shape[1]), value=-1)[:, None]
        known = known.expand(-1, samples, -1)
        random = random_values(known, self.model.values, self.model.counts)
        return torch.where(self.free(x, known), random, known)

    def differences(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """First-order change of log p~ by each value of each variable, `(..., variables, values)`.

        The second is log p~ itself, `(batch, samples)`.
        """
        features = self.model.features(z).requires_grad_()
        with torch.enable_grad():
            value = self.model.score(features)
            slope = torch.autograd.grad(value.sum(), features)[0]
        if self.model.values == 2:  # from -1 to 1 or back: each value's own part is +- slope
            slope = torch.stack([-slope, slope], -1)
        else:
            slope = slope.unflatten(-1, (self.model.variables, self.model.values))
        own = slope.gather(-1, z.unsqueeze(-1))
        return slope - own, value.detach()


class Gibbs(EnergyMoves):
    """Draws a variable uniformly, and its value from the conditional distribution."""

    @torch.no_grad()
    def propose(self, x: Tensor, z: Tensor) -> tuple[Tensor, Tensor]:
        """A draw that is always accepted."""
        free = self.free(x, z)
        chance = torch.rand(z.shape, device=z.device).masked_fill(~free, -1.0)
        place = chance.argmax(2, keepdim=True)
        options = torch.arange(self.model.values, device=z.device)
        every = z.unsqueeze(2).expand(-1, -1, len(options), -1)
        every = every.scatter(3, place.unsqueeze(2).expand(-1, -1, len(options), 1),
                              options[:, None].expand(*z.shape[:2], -1, 1))  # fmt: skip
        value = self.model.score(self.model.features(every))
        drawn = value.softmax(-1).flatten(0, 1).multinomial(1).unflatten(0, z.shape[:2])
        old = value.gather(2, z.gather(2, place))
        log_ratio = (old - value.gather(2, drawn)).squeeze(2)
        log_ratio = log_ratio.masked_fill(~free.any(2), -torch.inf)
        return torch.where(free.any(2, keepdim=True), z.scatter(2, place, drawn), z), log_ratio


class BlockGibbs(EnergyMoves):
    """A sweep of a Boltzmann machine's layers, which is always accepted."""

    def given(self, given: Conditioned) -> EnergyMoves:
        """The moves of one machine."""
        if not given.offers("resample"):
            raise NotOffered(f"{type(given.target).__name__} has no layers to sweep over")
        return super().given(given)

    @torch.no_grad()
    def propose(self, x: Tensor, z: Tensor) -> tuple[Tensor, Tensor]:
        """The sweep."""
        new = torch.where(self.free(x, z), self.model.resample(z), z)
        return new, self.model.log_joint(x, z) - self.model.log_joint(x, new)


class GibbsWithGradients(EnergyMoves):
    """Changes one variable, chosen by the gradient (Grathwohl et al. 2021, algorithm 1)."""

    def propose(self, x: Tensor, z: Tensor) -> tuple[Tensor, Tensor]:
        """A change of one variable, with its correction."""
        log_q = self._choices(x, z)
        choice = log_q.exp().flatten(0, 1).multinomial(1).unflatten(0, z.shape[:2])
        place, value = choice // self.model.values, choice % self.model.values
        new = z.scatter(2, place, value)
        back = place * self.model.values + z.gather(2, place)
        log_ratio = self._choices(x, new).gather(2, back) - log_q.gather(2, choice)
        moves = self.free(x, z).any(2)
        return (
            torch.where(moves.unsqueeze(2), new, z),
            log_ratio.squeeze(2).masked_fill(~moves, -torch.inf),
        )

    def _choices(self, x: Tensor, z: Tensor) -> Tensor:
        """`(batch, samples, variables * values)` log probabilities of the changes."""
        change, _ = self.differences(z)
        possible = self.free(x, z).unsqueeze(-1) & ~one_hot(z, self.model.values).bool()
        possible = possible | ~possible.any(-1).any(-1)[..., None, None]  # nothing may move
        return (change / 2).masked_fill(~possible, -torch.inf).flatten(2).log_softmax(2)


class DiscreteLangevin(EnergyMoves):
    """Changes all variables at once, by the gradient (Zhang et al. 2022, arXiv 2206.09914, eq. 4).

    Args:
        step: the step size; larger ones change more variables and are accepted less.
    """

    def __init__(self, step: Positive = 0.2):
        self.step = step

    def propose(self, x: Tensor, z: Tensor) -> tuple[Tensor, Tensor]:
        """An independent draw of each variable, with its correction."""
        log_q = self._choices(x, z)
        new = log_q.exp().flatten(0, 2).multinomial(1).view_as(z)
        back = self._choices(x, new).gather(3, z.unsqueeze(3))
        return new, (back - log_q.gather(3, new.unsqueeze(3))).sum((2, 3))

    def _choices(self, x: Tensor, z: Tensor) -> Tensor:
        """`(batch, samples, variables, values)` log probabilities of each variable's new value."""
        change, _ = self.differences(z)
        stays = one_hot(z, self.model.values).bool()
        log_q = change / 2 - (~stays) / (2 * self.step)
        return log_q.masked_fill(~stays & ~self.free(x, z).unsqueeze(-1), -torch.inf).log_softmax(3)

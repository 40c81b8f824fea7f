"""What the sampler aims at: a joint density of data and latent structure."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, Generic

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from gfnem.batched import X, Z
from gfnem.component import Component
from gfnem.offers import Offering, optional

if TYPE_CHECKING:
    from gfnem.mcmc import LocalMoves


class Conditioned(Generic[X, Z]):
    """A target, given one batch of observations.

    What depends on the observations and the parameters alone is computed once here. It is good
    until the target's parameters change.

    Args:
        target: the model.
        x: a batch of observations.
    """

    def __init__(self, target: Target[X, Z], x: X):
        self.target, self.x = target, x
        self._log_marginal: dict[bool, Tensor] = {}
        self._normalised: Conditioned[X, Z] | None = None

    def offers(self, hook: str) -> bool:
        """Whether the target offers a hook (see `Target`)."""
        return self.target.offers(hook)

    def normalised(self) -> Conditioned[X, Z]:
        """The model whose likelihood is reported (`Target.normalised`), given the same batch."""
        if self._normalised is None:
            part = self.target.normalised()
            self._normalised = self if part is self.target else part.given(self.x)
        return self._normalised

    def log_joint(self, z: Z) -> Float[Tensor, "batch samples"]:
        """`(batch, samples)` `log p~(x, z)` in nats."""
        return self.target.log_joint(self.x, z)

    def partial_log_joint(self, state: Any) -> Float[Tensor, "batch samples"]:
        """See `Target.partial_log_joint`."""
        return self.target.partial_log_joint(self.x, state)

    def collapsed_log_joint(self, z: Z) -> Float[Tensor, "batch samples"]:
        """See `Target.collapsed_log_joint`."""
        return self.target.collapsed_log_joint(self.x, z)

    def log_marginal(self) -> Float[Tensor, " batch"]:
        """`(batch,)` exact `log p(x)` in nats; computed once."""
        with_gradient = torch.is_grad_enabled()
        if with_gradient not in self._log_marginal:
            self._log_marginal[with_gradient] = self.target.log_marginal(self.x)
        return self._log_marginal[with_gradient]

    def sample_posterior(self, samples: int) -> Z:
        """See `Target.sample_posterior`."""
        return self.target.sample_posterior(self.x, samples)


class Target(Component, Offering, nn.Module, ABC, Generic[X, Z]):
    """A joint `log p~(x, z)` over observations `x` and latent structures `z`.

    Only `log_joint` is required. The optional hooks make training better or its report richer
    where a model offers them (`offers`); everything works without them.
    """

    #: what one unit of `x` is called where likelihoods are reported per unit
    unit: str = "observation"
    #: whether `log_marginal` sums over all of what is latent; if a part of it is drawn instead, it
    #: is a lower bound in expectation
    marginal_is_exact: bool = True

    @abstractmethod
    def log_joint(self, x: X, z: Z) -> Float[Tensor, "batch samples"]:
        """`(batch, samples)` log density of each `(x, z)` in nats, differentiable.

        Args:
            x: a batch of observations, leading axis `(batch,)`.
            z: latents, leading axes `(batch, samples)`.
        """

    def given(self, x: X) -> Conditioned[X, Z]:
        """The target, given a batch: what is asked many things of one `x` is asked there."""
        return Conditioned(self, x)

    @optional
    def tilted(self, x: X, parts: Any) -> Conditioned[X, Z]:
        """As `given`, with a log weight added for each part that a structure is made of.

        What is asked of it then is of `log p~(x, z)` plus the weights of the parts of `z`, in nats:
        exact inference, where the target has it, stays exact. Which parts there are is the latent
        space's matter (spans of a sentence, say). Optional.
        """
        ...

    @optional
    def partial_log_joint(self, x: X, state: Any) -> Float[Tensor, "batch samples"]:
        """`(batch, samples)` part of `log_joint` that a partial object already determines.

        It must equal `log_joint` at final states. Objectives use it as forward-looking credit
        (Pan et al. 2023, arXiv 2302.01687). Optional.
        """
        ...

    @optional
    def collapsed_log_joint(self, x: X, z: Z) -> Float[Tensor, "batch samples"]:
        """`(batch, samples)` `log_joint` with a part of `z` summed out in closed form.

        The log of the sum of `p~(x, z')` over all `z'` that agree with `z` in the rest. The M-step
        then climbs this instead of `log_joint`: the same expected gradient with less noise
        (Rao-Blackwell), which keeps symbols that few samples would starve. Optional.
        """
        ...

    @optional
    def log_marginal(self, x: X) -> Float[Tensor, " batch"]:
        """`(batch,)` exact `log p(x)` in nats, differentiable. Optional: often intractable.

        Of a target that is not normalised, the log of the sum of `p~(x, z)` over all `z`.
        """
        ...

    @optional
    def moves(self) -> LocalMoves[X, Z]:
        """Moves of Markov chains that suit the target better than its space's. Optional."""
        ...

    def log_partition(self) -> Tensor:
        """`()` log of the sum of `p~` over all `x` and `z`, in nats, which the M-step lowers.

        0 for a target whose M-step needs no negative phase.
        """
        return torch.zeros(())

    @optional
    def estimated_log_partition(self) -> tuple[Tensor, Tensor]:
        """`()` log Z by draws of the model's own, and its standard error, in nats. Optional.

        The estimate of Z is unbiased. The same for the same parameters, so that all observations of
        an evaluation share it.
        """
        ...

    @optional
    def sample_posterior(self, x: X, samples: int) -> Z:
        """Exact draws of `P(z|x)`, leading axes `(batch, samples)`, without autograd. Optional."""
        ...

    @optional
    def sample(self, count: int) -> tuple[X, Z]:
        """`count` draws `(x, z)` of the model, `z` with one sample for each `x`. Optional.

        Draws from torch's global generator, without autograd. The sleep phase and `sample` use it.
        """
        ...

    def in_support(self, x: X) -> Bool[Tensor, " batch"]:
        """`(batch,)` bool: which observations the target gives any probability at all.

        All of them, unless a target knows better: a grammar may have no tree for a sentence.
        """
        return torch.ones(len(x), dtype=torch.bool)

    def normalised(self) -> Target[X, Z]:
        """The model whose `log p(x)` is reported as the likelihood of `x`.

        The target itself, unless it multiplies a normalised model by factors that leave it
        unnormalised: then that model.
        """
        return self

    def prepare(self, data: Any) -> None:
        """Reads what the target must know of the training data, once, before training.

        Args:
            data: the run's `DataModule`.

        Raises:
            UserError: if the data are not of the kind that it needs.
        """

    def on_step(self, m_updates: int) -> None:
        """Told before each update how many M-updates there have been.

        For targets that change as training goes on (an annealed term); most do not care.
        """

    def facts(self) -> dict[str, Any]:
        """What spaces and policies must be told of the model, as constructor arguments."""
        return {}

    def units(self, x: X) -> Float[Tensor, " batch"]:
        """`(batch,)` how many `unit`s each observation has (tokens of a sentence, say)."""
        like = x if isinstance(x, Tensor) else next(self.parameters(), None)
        return torch.ones(len(x), device=None if like is None else like.device)


class GenerativeModel(Target[X, Z]):
    """A normalised `p(x, z)`."""


class EnergyModel(Target[X, Z]):
    """An unnormalised `log p~(x, z) = -E(x, z)`: its M-step needs a negative phase.

    Its `log_marginal` is the log of the sum of `p~` over the latents alone.
    """

    @optional
    def log_partition(self) -> Tensor:
        """`()` exact log Z in nats, differentiable. Optional: often intractable."""
        ...

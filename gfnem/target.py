"""What the sampler aims at: a joint density of data and latent structure."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from gfnem.component import Component


class Target(Component, nn.Module, ABC):
    """A joint `log p~(x, z)` over observations `x` and latent structures `z`.

    Only `log_joint` is required. The hooks below it make training better or its report richer
    where a model can offer them; everything works without them.
    """

    #: what one unit of `x` is called where likelihoods are reported per unit
    unit: str = "observation"

    @abstractmethod
    def log_joint(self, x: Any, z: Any) -> Tensor:
        """`(batch, samples)` log density of each `(x, z)` in nats, differentiable.

        Args:
            x: a batch of observations, leading axis `(batch,)`.
            z: latents, leading axes `(batch, samples)`.
        """

    def partial_log_joint(self, x: Any, state: Any) -> Tensor | None:
        """`(batch, samples)` part of `log_joint` that a partial object already determines.

        It must equal `log_joint` at final states. Objectives use it as forward-looking credit
        (Pan et al. 2023, arXiv 2302.01687). None where the target does not offer it.
        """
        return None

    def collapsed_log_joint(self, x: Any, z: Any) -> Tensor | None:
        """`(batch, samples)` `log_joint` with a part of `z` summed out in closed form.

        The log of the sum of `p~(x, z')` over all `z'` that agree with `z` in the rest. The M-step
        then climbs this instead of `log_joint`: the same expected gradient with less noise
        (Rao-Blackwell), which keeps symbols that few samples would starve. None where the target
        does not offer it.
        """
        return None

    def log_marginal(self, x: Any) -> Tensor | None:
        """`(batch,)` exact `log p(x)` in nats, differentiable; None where it is intractable."""
        return None

    def in_support(self, x: Any) -> Tensor:
        """`(batch,)` bool: which observations the target gives any probability at all.

        All of them, unless a target knows better: a grammar may have no tree for a sentence.
        """
        return torch.ones(len(x), dtype=torch.bool)

    def normalised(self) -> Target:
        """The model whose `log p(x)` is reported as the likelihood of `x`.

        The target itself, unless it multiplies a normalised model by factors that leave it
        unnormalised: then that model.
        """
        return self

    def log_joint_given(self, x: Any) -> Callable[[Any], Tensor]:
        """`log_joint` of one batch for many latents, without autograd.

        A target for which part of the work depends on `x` alone does that part once.
        """

        def log_joint(z: Any) -> Tensor:
            with torch.no_grad():
                return self.log_joint(x, z)

        return log_joint

    def sample_posterior(self, x: Any, samples: int) -> Any | None:
        """Exact draws of `P(z|x)`, leading axes `(batch, samples)`, without autograd.

        None where that is intractable.
        """
        return None

    @contextmanager
    def unchanged(self) -> Iterator[None]:
        """A context in which the parameters stay as they are until the last use of the target.

        A target that is asked several things of one `x` may keep what it has computed.
        """
        yield

    def on_step(self, m_updates: int) -> None:
        """Told before each update how many M-updates there have been.

        For targets that change as training goes on (an annealed term); most do not care.
        """

    def facts(self) -> dict[str, Any]:
        """What spaces and policies must be told of the model, as constructor arguments."""
        return {}

    def units(self, x: Any) -> Tensor:
        """`(batch,)` how many `unit`s each observation has (tokens of a sentence, say)."""
        like = x if isinstance(x, Tensor) else next(self.parameters(), None)
        return torch.ones(len(x), device=None if like is None else like.device)


class GenerativeModel(Target):
    """A normalised `p(x, z)`. Where it can `sample`, the sleep phase and `generate` use it."""

    def sample(self, count: int) -> tuple[Any, Any]:
        """`count` draws `(x, z)` of the model, `z` with one sample for each `x`.

        Draws from torch's global generator, without autograd.

        Raises:
            NotImplementedError: if the model cannot sample.
        """
        raise NotImplementedError(f"{type(self).__name__} does not implement sample(count)")


class EnergyModel(Target):
    """An unnormalised `log p~(x, z) = -E(x, z)`: its M-step needs a negative phase."""

"""Recipes: what an update is made of, phase after phase."""

from __future__ import annotations

import functools
import inspect
import reprlib
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, cast

from gfnem.component import Component
from gfnem.objectives import (
    ForwardKL,
    MaximumLikelihood,
    Objective,
    ReverseKL,
    TrajectoryBalance,
)
from gfnem.offers import NotOffered
from gfnem.phases import ClimbMarginal, LearnBeside, Phase, Together, TrainModel, TrainPolicy
from gfnem.policy import Policy
from gfnem.ranges import Amount, Count, NotNegative, PartialShare, Positive, Share, hints_of
from gfnem.refinement import Back
from gfnem.schedules import Anneal
from gfnem.side import SideInformation
from gfnem.sources import (
    Chains,
    Free,
    Mixed,
    ModelSamples,
    Own,
    PosteriorSamples,
    Refined,
    Released,
    Replay,
    Source,
)
from gfnem.space import LatentSpace
from gfnem.target import Target


class Recipe(Component, ABC):
    """A list of phases and the settings that it is made with; see `recipe`."""

    decorator = "@gfnem.recipe"

    @abstractmethod
    def phases(self) -> list[Phase]:
        """The phases of an update, in their order, made anew."""


def recipe(function: Callable[..., list[Phase]]) -> type[Recipe]:
    """Makes a recipe of a function that returns the list of phases.

    The function's parameters, with their annotations and defaults, are the recipe's settings, in
    Python, in a settings file and on the command line.
    """
    signature = inspect.signature(function)
    hints = hints_of(function)
    parameters = [
        parameter.replace(annotation=hints.get(name, parameter.annotation))
        for name, parameter in signature.parameters.items()
    ]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._settings = signature.bind(*args, **kwargs).arguments

    own = inspect.Parameter("self", inspect.Parameter.POSITIONAL_OR_KEYWORD)
    __init__.__signature__ = inspect.Signature([own, *parameters])
    __init__.__annotations__ = {p.name: p.annotation for p in parameters}

    def phases(self) -> list[Phase]:
        made = function(**self._settings)
        if not isinstance(made, list) or not made or not all(isinstance(p, Phase) for p in made):
            raise ValueError(
                f"{function.__name__} returned {reprlib.repr(made)}; a recipe returns a list of "
                "phases"
            )
        return made

    body = {"__init__": __init__, "phases": phases, "__doc__": function.__doc__}
    body |= {"__module__": function.__module__, "__qualname__": function.__qualname__}
    made = type(function.__name__, (Recipe,), body)
    functools.update_wrapper(cast(Any, made), function, updated=())
    return made


def _e_step(
    source: Source,
    objective: Objective | None,
    reward_temperature: float | Anneal,
    sleep: float,
) -> Phase:
    """The E-step on what a source draws, and beside it the sleep phase where it has a weight."""
    wake = TrainPolicy(source, objective, reward_temperature)
    if not sleep:
        return wake
    return Together([wake, _dreams("sleep_loss")], [1.0, sleep])


def _dreams(name: str = "e_loss") -> Phase:
    return TrainPolicy(ModelSamples(), MaximumLikelihood(), name=name)


def _m_step(
    source: Source,
    m_step: str,
    collapse: bool,
    side: SideInformation | None = None,
    negative: Source | None = None,
) -> Phase:
    """The M-step, and beside it what the model learns from other data."""
    learned = TrainModel(source, m_step, collapse, negative)
    return learned if side is None else Together([learned, LearnBeside(side)])


@recipe
def gflownet(
    objective: Objective | None = None,
    samples: Count = 16,
    temperature: Positive | Anneal = 1.0,
    epsilon: Share | Anneal = 0.0,
    reward_temperature: Positive | Anneal = 1.0,
    sleep: NotNegative = 0.0,
    m_step: str = "importance",
    collapse: bool = True,
    refine: Amount = 0,
    side: SideInformation | None = None,
    negative: Source | None = None,
) -> list[Phase]:
    """GFlowNet-EM (Hu et al. 2023, arXiv 2302.06576): the sampler is trained by a GFlowNet loss.

    Args:
        objective: the E-step's loss; `BalancedVarGrad` if None.
        samples: structures drawn for each observation. With few, both steps are noisy.
        temperature: of training samples: the policy's log weights are divided by it, so that above
            1 samples stray further from what the policy prefers.
        epsilon: probability that a step of a training sample is drawn uniformly instead.
        reward_temperature: the `T` in `p(z|x)^(1/T)`, which the sampler aims at.
        sleep: weight of the sleep phase: the policy's surprise at structures that the model itself
            draws together with their observations. 0 turns it off.
        m_step: "importance" counts the samples of an observation by self-normalised
            `p(x,z)/q(z|x)`: right where the sampler lags behind, if they are many for the
            structures there are. "equal" counts them alike: less noisy where they are few, as for
            trees. "best" takes the one with the greatest `p(x,z)` alone, "one" one drawn by the
            weights: noisier than all of them, and `samples` times cheaper.
        collapse: whether the M-step sums out what the model can sum out of a sample in closed form.
        refine: back-and-forth Metropolis-Hastings proposals to each sample before the M-step, in
            which the samples then count equally (Hu et al. 2023 use 10).
        side: what the model learns from beside the observations; nothing if None.
        negative: where pairs of the model itself come from, for an energy of observations and
            structures; none, for a normalised model, if None.
    """
    own = Own(samples, temperature, epsilon)
    taught = Refined(own, refine) if refine else own
    return [
        _e_step(own, objective, reward_temperature, sleep),
        _m_step(taught, "equal" if refine else m_step, collapse, side, negative),
    ]


@recipe
def posterior(
    objective: Objective | None = None,
    samples: Count = 64,
    temperature: Positive | Anneal = 1.0,
    epsilon: Share | Anneal = 0.0,
    reward_temperature: Positive | Anneal = 1.0,
    replay: Amount = 0,
) -> list[Phase]:
    """Amortised Bayesian inference: the sampler is trained, and there is no M-step.

    Each setting may be an `Anneal` over updates.

    Args:
        objective: the loss; `BalancedVarGrad` if None.
        samples: structures drawn for each observation.
        temperature: as in `gflownet`.
        epsilon: as in `gflownet`.
        reward_temperature: as in `gflownet`.
        replay: updates whose draws are kept; half of the updates then train on kept draws.
    """
    source: Source = Own(samples, temperature, epsilon)
    if replay:
        source = Replay(source, replay)
    return [TrainPolicy(source, objective, reward_temperature)]


@recipe
def wake_sleep(
    samples: Count = 16, collapse: bool = True, side: SideInformation | None = None
) -> list[Phase]:
    """Wake-sleep (Hinton et al. 1995): the policy learns from the model's dreams alone."""
    return [_dreams(), _m_step(Own(samples), "equal", collapse, side)]


@recipe
def reverse_kl(
    samples: Count = 16, collapse: bool = True, side: SideInformation | None = None
) -> list[Phase]:
    """Hierarchical variational inference: score-function gradients of the ELBO."""
    own = Own(samples)
    return [TrainPolicy(own, ReverseKL()), _m_step(own, "equal", collapse, side)]


@recipe
def iw(
    samples: Count = 16, collapse: bool = True, side: SideInformation | None = None
) -> list[Phase]:
    """Reweighted wake-sleep (Bornschein and Bengio 2015): both steps are importance-weighted."""
    own = Own(samples)
    return [TrainPolicy(own, ForwardKL()), _m_step(own, "importance", collapse, side)]


@recipe
def exact(side: SideInformation | None = None) -> list[Phase]:
    """Exact EM: the exact log marginal is climbed; there is no sampler."""
    climb = ClimbMarginal()
    return [climb if side is None else Together([climb, LearnBeside(side)])]


@recipe
def exact_sampling(
    samples: Count = 16, collapse: bool = True, side: SideInformation | None = None
) -> list[Phase]:
    """Stochastic EM: the M-step on exact samples of the posterior; there is no sampler."""
    return [_m_step(PosteriorSamples(samples), "equal", collapse, side)]


@recipe
def mcmc(
    samples: Count = 16,
    steps: Count = 1000,
    collapse: bool = True,
    side: SideInformation | None = None,
) -> list[Phase]:
    """Monte Carlo EM: the M-step on ends of Metropolis-Hastings chains; there is no sampler.

    Args:
        samples: chains for each observation.
        steps: small random changes proposed to each chain in each update.
        collapse: as in `gflownet`.
        side: as in `gflownet`.
    """
    return [_m_step(Chains(samples, steps), "equal", collapse, side)]


@recipe
def eb_gfn(
    objective: Objective | None = None,
    samples: Count = 128,
    share: PartialShare = 0.5,
    temperature: Positive | Anneal = 1.0,
    epsilon: Share | Anneal = 0.02,
    arithmetic: bool | None = None,
    likelihood: NotNegative = 0.0,
    latents: Amount = 0,
    chains: Amount | None = None,
    proposals: Amount = 0,
    back: Back | list[Back] | Anneal = 0.5,
    acceptance: str = "metropolis",
    negative: Source | None = None,
    collapse: bool = True,
) -> list[Phase]:
    """An energy and its sampler, trained together (Zhang et al. 2022, arXiv 2202.01361).

    The sampler builds whole structures, observations included, in proportion to the energy's `p~`.
    The model is raised on the data and lowered on structures of its own.

    Args:
        objective: the sampler's loss; `TrajectoryBalance(centred=True)` if None.
        samples: structures drawn from the sampler in each update, of no observation in particular.
        share: of trajectories retraced from the data, or from persistent chains, among those that
            the sampler is trained on; the others are its own draws.
        temperature, epsilon: of its own draws, of latents too, as in `gflownet`. Weights make up
            for what strays, and the model cannot keep mass where the sampler never draws.
        arithmetic: whether draws are spread evenly and not independent (see
            `Policy.arithmetic_sample`). None: where the policy can.
        likelihood: weight of the sampler's surprise at the data beside its loss. It then learns of
            the data at once, and not only by way of the energy. Of energies without latents.
        latents: structures drawn for each observation, of an energy with latents, two at least; the
            sampler is trained on them too. 0 for an energy without.
        chains: persistent chains that the model is lowered on. In each update each is offered a
            draw of the sampler, by Metropolis-Hastings, and moves once as the model or the space
            says. The model then cannot run away to where the sampler never goes. 0 lowers the model
            on the sampler's own draws, by self-normalised importance weight, which costs nothing.
            None: as many as `samples` where there are latents, else 0.
        proposals: the model is lowered instead on where back-and-forth chains end that start at the
            data and have so many proposals each (the published way).
        back: how far proposals go back: a number of steps, or a share of all of them. One of
            several is drawn for each proposal; an `Anneal` over M-updates moves a share.
        acceptance: "metropolis" or "barker".
        negative: what the model is lowered on instead: `Free(Chains(..., persistent=True))` is
            persistent contrastive divergence.
        collapse: as in `gflownet`.
    """
    strays = (temperature, epsilon, arithmetic)
    seen = Own(max(latents, 1), *strays)
    data, own = Released(seen), Free(Own(samples, *strays))
    if chains is None:
        chains = samples if latents and not proposals and negative is None else 0
    if chains and (proposals or negative is not None):
        raise ValueError("one negative phase: chains, proposals or negative")
    taught: Source = data
    if chains:
        negative = taught = Free(Chains(chains, 1, True, jumps=1))
    elif negative is None:
        negative = Refined(data, proposals, back, acceptance) if proposals else own

    def loss() -> Objective:
        return TrajectoryBalance(centred=True) if objective is None else objective

    sampler: Phase = TrainPolicy(Mixed(own, taught, share), loss())
    if latents:
        sampler = Together([sampler, TrainPolicy(seen, loss(), name="latent_loss")])
    if likelihood:
        if latents:
            raise ValueError("likelihood: the data do not say what is latent")
        surprise = TrainPolicy(data, MaximumLikelihood(), name="data_loss")
        sampler = Together([sampler, surprise], [1.0, likelihood])
    counted = ("importance", seen) if latents else ("equal", data)
    return [sampler, TrainModel(counted[1], counted[0], collapse, negative)]


#: the recipes that are shipped, by name
RECIPES = {
    made.__name__: made
    for made in (
        gflownet,
        posterior,
        wake_sleep,
        reverse_kl,
        iw,
        exact,
        exact_sampling,
        mcmc,
        eb_gfn,
    )
}


def fitting(model: Target, space: LatentSpace, policy: Policy) -> list[str]:
    """The shipped recipes, with their default settings, that these parts can be trained by."""
    names = []
    for name, made in RECIPES.items():
        try:
            for phase in made().phases():
                phase.check(model, space, policy)
        except (NotOffered, ValueError):
            continue
        names.append(name)
    return names

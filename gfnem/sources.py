"""Sources: where the pairs of observation and structure come from that a phase trains on."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from typing import Any

import torch
from torch import Tensor, nn

from gfnem.batch import Batch, Draws
from gfnem.batched import each, tensors_of
from gfnem.component import Component
from gfnem.mcmc import ACCEPTANCES, LocalMoves, metropolis
from gfnem.offers import NotOffered
from gfnem.policy import Policy
from gfnem.ranges import Amount, Count, Positive, Share
from gfnem.refinement import Back, refine
from gfnem.sampling import Exploration
from gfnem.schedules import Anneal, value_at
from gfnem.space import LatentSpace, Trajectories
from gfnem.target import Target


class Source(Component, nn.Module, ABC):
    """Draws structures for a batch of observations. Phases that share a source share its draws."""

    #: whether the draws know their importance weights; if not, they count equally
    weighted: bool = False
    #: whether the draws are the policy's own, drawn as it is
    on_policy: bool = False

    @abstractmethod
    def draw(self, batch: Batch) -> Draws:
        """Draws once; called in an update at most once."""

    def check(self, model: Target, space: LatentSpace, policy: Policy) -> None:
        """Refuses parts that do not offer what the source needs.

        Raises:
            NotOffered: naming the part and the hook.
        """


def needs(part: Any, hook: str, why: str) -> None:
    """Refuses a part that does not offer a hook.

    Raises:
        NotOffered: naming both, and why it is needed.
    """
    if not part.offers(hook):
        raise NotOffered(f"{part.called()} offers no {hook}, which {why} needs")


class Own(Source):
    """Samples of the policy.

    Args:
        samples: structures for each observation.
        temperature: the policy's log weights are divided by it: above 1 samples stray further from
            what it prefers. A number or an `Anneal` over M-updates.
        epsilon: probability that a step is drawn uniformly instead, likewise.
        arithmetic: whether the draws for an observation are spread evenly and not independent (see
            `Policy.arithmetic_sample`), for averages of less noise. None: where the policy can.
    """

    recordable = True
    weighted = True

    def __init__(
        self,
        samples: Count = 16,
        temperature: Positive | Anneal = 1.0,
        epsilon: Share | Anneal = 0.0,
        arithmetic: bool | None = False,
    ):
        super().__init__()
        self.samples, self.temperature, self.epsilon = samples, temperature, epsilon
        self.arithmetic = arithmetic

    @property
    def on_policy(self) -> bool:
        """Whether samples never stray and are independent."""
        straight = _always(self.temperature, 1.0) and _always(self.epsilon, 0.0)
        return straight and self.arithmetic is False

    def draw(self, batch: Batch) -> Draws:
        """Draws trajectories, without autograd."""
        em, now = batch.em, batch.em.clock.now
        exploration = Exploration(value_at(self.temperature, now), value_at(self.epsilon, now))
        can = em.policy.offers("arithmetic_sample")
        even = can if self.arithmetic is None else self.arithmetic
        sample = em.policy.arithmetic_sample if even else em.policy.sample
        found = sample(batch.context, batch.x, em.space, self.samples, exploration)
        return Draws(batch, found.latent, found)

    def check(self, model: Target, space: LatentSpace, policy: Policy) -> None:
        """The policy must offer `arithmetic_sample` where that is asked for."""
        if self.arithmetic:
            needs(policy, "arithmetic_sample", "arithmetic sampling")


def _always(value: float | Anneal, number: float) -> bool:
    ends = value.extremes() if isinstance(value, Anneal) else (value,)
    return all(end == number for end in ends)


class ModelSamples(Source):
    """Pairs that the model itself draws, as many as the batch has observations: its dreams."""

    def draw(self, batch: Batch) -> Draws:
        """Draws observations too: the draws belong to these."""
        with torch.no_grad():
            x, z = batch.em.model.sample(len(batch))
        return Draws(batch.of(x), z)

    def check(self, model: Target, space: LatentSpace, policy: Policy) -> None:
        """The model must offer `sample`."""
        needs(model, "sample", "a sleep phase")


class PosteriorSamples(Source):
    """Exact samples of the model's posterior.

    Args:
        samples: structures for each observation.
    """

    def __init__(self, samples: Count = 16):
        super().__init__()
        self.samples = samples

    def draw(self, batch: Batch) -> Draws:
        """Draws without autograd."""
        return Draws(batch, batch.given.sample_posterior(self.samples))

    def check(self, model: Target, space: LatentSpace, policy: Policy) -> None:
        """The model must offer `sample_posterior`."""
        needs(model, "sample_posterior", "exact sampling")


class Chains(Source):
    """Ends of Metropolis-Hastings chains of small random changes.

    Args:
        samples: chains for each observation.
        steps: changes proposed to each chain in each update.
        persistent: whether chains go on where the last update left them (persistent contrastive
            divergence, Tieleman 2008), also when training is resumed. Then every batch must have
            observations of the same sizes.
        moves: proposes the changes; the model's `moves` if None, or else the space's.
        jumps: draws of the policy that are proposed to each chain in each update, before the
            changes: long ways from mode to mode. What the policy never draws, chains still find.
    """

    def __init__(
        self,
        samples: Count = 16,
        steps: Amount = 1000,
        persistent: bool = False,
        moves: LocalMoves | None = None,
        jumps: Amount = 0,
    ):
        super().__init__()
        self.samples, self.steps, self.persistent, self.moves = samples, steps, persistent, moves
        self.jumps = jumps
        self._ends: Any = None
        self._resumed: list[Tensor] | None = None

    def draw(self, batch: Batch) -> Draws:
        """Moves the chains, without autograd."""
        moves = moves_of(self.moves, batch)
        z = self._ends if self.persistent else None
        if z is None:
            z = moves.initial(batch.x, self.samples)
            if self._resumed is not None:
                tensors, self._resumed = iter(self._resumed), None
                z = each(lambda tensor: next(tensors).to(tensor), z)
        if self.jumps:
            em = batch.em
            z, _, jumped = refine(
                em.policy, batch.context, batch.given, em.space, z, self.jumps, 1.0
            )
            batch.figures["jumped"] = jumped.mean()
        z, _, accepted = metropolis(moves, batch.given.log_joint, batch.x, z, self.steps)
        batch.figures["accepted"] = accepted.mean()
        if self.persistent:
            self._ends = z
        return Draws(batch, z)

    def get_extra_state(self) -> dict[str, Any]:
        """Where persistent chains stand, for a checkpoint."""
        return {"ends": self._resumed if self._ends is None else list(tensors_of(self._ends))}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        """The next draw goes on from there."""
        self._ends, self._resumed = None, state["ends"]

    def check(self, model: Target, space: LatentSpace, policy: Policy) -> None:
        """The space or the model must offer `moves` where none are named."""
        needs_moves(self.moves, model, space)


class Moved(Source):
    """Draws of another source, moved by chains that start there (contrastive divergence).

    Args:
        source: where the structures come from.
        moves: proposes the changes; the model's `moves` if None, or else the space's.
        steps: changes proposed to each chain.
        acceptance: "metropolis" or "barker" (see `gfnem.mcmc.metropolis`).
    """

    def __init__(
        self,
        source: Source,
        moves: LocalMoves | None = None,
        steps: Amount = 1,
        acceptance: str = "metropolis",
    ):
        super().__init__()
        self.source, self.moves, self.steps = source, moves, steps
        self.acceptance = _accepted_by(acceptance)

    def draw(self, batch: Batch) -> Draws:
        """Moves the draws, without autograd."""
        found = batch.draw(self.source)
        home = found.batch
        moves = moves_of(self.moves, home)
        z, _, accepted = metropolis(
            moves, home.given.log_joint, home.x, found.z, self.steps, self.acceptance
        )
        batch.figures["accepted"] = accepted.mean()
        return Draws(home, z)

    def check(self, model: Target, space: LatentSpace, policy: Policy) -> None:
        """What the source needs; the space or the model must offer `moves` where none are named."""
        self.source.check(model, space, policy)
        needs_moves(self.moves, model, space)


def moves_of(moves: LocalMoves | None, batch: Batch) -> LocalMoves:
    """The moves that are named, or else the model's, or else the space's, for a batch."""
    if moves is None:
        part = batch.given.target if batch.given.offers("moves") else batch.em.space
        moves = part.moves()
    return moves.given(batch.given)


def needs_moves(moves: LocalMoves | None, model: Target, space: LatentSpace) -> None:
    """Refuses parts of which none offers moves, where none are named."""
    if moves is None and not model.offers("moves"):
        needs(space, "moves", "Markov chain Monte Carlo")


def _accepted_by(acceptance: str) -> str:
    if acceptance not in ACCEPTANCES:
        raise ValueError(f"acceptance is one of {', '.join(ACCEPTANCES)}, not {acceptance!r}")
    return acceptance


class Refined(Source):
    """Draws of another source, moved nearer to the posterior (see `gfnem.refinement`).

    Args:
        source: where the structures come from.
        proposals: back-and-forth Metropolis-Hastings proposals to each (Hu et al. 2023 use 10).
        back: how far to go back, a number of steps (int) or a share of all of them (float). Of
            several, one is drawn for each proposal; an `Anneal` over M-updates moves a share.
        acceptance: "metropolis" or "barker" (see `gfnem.mcmc.metropolis`).
    """

    def __init__(
        self,
        source: Source,
        proposals: Amount = 10,
        back: Back | list[Back] | Anneal = 0.5,
        acceptance: str = "metropolis",
    ):
        super().__init__()
        self.source, self.proposals, self.back = source, proposals, back
        self.acceptance = _accepted_by(acceptance)

    def draw(self, batch: Batch) -> Draws:
        """Moves the draws with the policy as it is now, without autograd."""
        found, em = batch.draw(self.source), batch.em
        home, back = found.batch, self.back
        back = back(em.clock.now) if isinstance(back, Anneal) else back
        z, _, accepted = refine(
            em.policy, home.context, home.given, em.space, found.z, self.proposals, back,
            self.acceptance,
        )  # fmt: skip
        batch.figures["accepted"] = accepted.mean()
        return Draws(home, z)

    def check(self, model: Target, space: LatentSpace, policy: Policy) -> None:
        """What the source needs."""
        self.source.check(model, space, policy)


class Replay(Source):
    """Draws of another source, in some updates replaced by draws of earlier updates.

    Structures come back with the observations that they were drawn for; their trajectories are
    drawn anew with `P_B`, so that objectives which are right off the policy alone may use them.

    Args:
        source: where new structures come from.
        capacity: batches kept; the oldest goes first.
        share: probability that an update uses a kept batch.
    """

    def __init__(self, source: Source, capacity: Count = 64, share: Share = 0.5):
        super().__init__()
        self.source, self.share = source, share
        self._kept: deque[tuple[Any, Any]] = deque(maxlen=capacity)

    def draw(self, batch: Batch) -> Draws:
        """Draws from torch's global generator which batch comes back, if any."""
        chance, which = torch.rand(2).tolist()
        if self._kept and chance < self.share:
            x, z = self._kept[int(which * len(self._kept))]
            return Draws(batch.of(x), z)
        found = batch.draw(self.source)
        self._kept.append((found.batch.x, found.z))
        return Draws(found.batch, found.z)

    def check(self, model: Target, space: LatentSpace, policy: Policy) -> None:
        """What the source needs."""
        self.source.check(model, space, policy)


class Given(Source):
    """The data itself as the structure: `z` is `x`, one sample each, retraced with `P_B`."""

    def draw(self, batch: Batch) -> Draws:
        """Draws nothing: leading axes of the data are `(batch, 1)`."""
        return Draws(batch, batch.x)


class Free(Source):
    """Draws of another source where nothing is observed: of the model's whole distribution.

    All of them belong to one observation that says nothing (`LatentSpace.free`).

    Args:
        source: where structures come from; its `samples` are all there are.
    """

    def __init__(self, source: Source):
        super().__init__()
        self.source, self.weighted = source, source.weighted
        self.samples = getattr(source, "samples", 1)

    @property
    def on_policy(self) -> bool:
        """Whether the source is."""
        return self.source.on_policy

    def draw(self, batch: Batch) -> Draws:
        """Draws for the observation that says nothing."""
        return batch.free.draw(self.source)

    def check(self, model: Target, space: LatentSpace, policy: Policy) -> None:
        """The space must offer `free`."""
        needs(space, "free", "structures of no observation in particular")
        self.source.check(model, space, policy)


class Released(Source):
    """Draws of another source as if nothing had been observed: they keep what was, and may lose it.

    So data become structures of the model's whole distribution, which chains start from and the
    sampler is taught by; their trajectories are drawn anew with `P_B`.

    Args:
        source: where structures come from.
    """

    def __init__(self, source: Source):
        super().__init__()
        self.source = source

    def draw(self, batch: Batch) -> Draws:
        """`(1, batch * samples)` of what the source draws."""
        found = batch.draw(self.source)
        together = each(lambda tensor: tensor.flatten(0, 1)[None], found.z)
        return Draws(batch.free, batch.em.space.released(together))

    def check(self, model: Target, space: LatentSpace, policy: Policy) -> None:
        """The space must offer `free`."""
        needs(space, "free", "structures of no observation in particular")
        self.source.check(model, space, policy)


class Mixed(Source):
    """Free draws of the policy, and beside them structures that another source released.

    Args:
        own: the policy's draws, `Free(Own(...))`.
        other: what its trajectories are retraced to, such as `Released(...)` of the data.
        share: of the second among all; so many of them are used as go with the draws.
    """

    def __init__(self, own: Source, other: Source, share: Share = 0.5):
        super().__init__()
        if share >= 1:
            raise ValueError(f"share {share}: less than 1 is needed")
        self.own, self.other, self.share = own, other, share
        self.samples = getattr(own, "samples", 1)

    def draw(self, batch: Batch) -> Draws:
        """`(1, samples + some)`, the policy's own first."""
        own, other = batch.draw(self.own), batch.draw(self.other)
        wanted = round(self.samples * self.share / (1 - self.share))
        count, taken = tensors_of(other.z)[0].shape[1], other
        if wanted < count:
            order = torch.randperm(count, device=tensors_of(other.z)[0].device)[:wanted]
            taken = Draws(batch.free, other.pick(order[None]))
        both = Trajectories.cat([own.trajectories, taken.trajectories])
        return Draws(batch.free, both.latent, both, [own, taken])

    def check(self, model: Target, space: LatentSpace, policy: Policy) -> None:
        """What both need."""
        self.own.check(model, space, policy)
        self.other.check(model, space, policy)

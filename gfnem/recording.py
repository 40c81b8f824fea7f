"""Updates on a GPU that are recorded once for each shape of observations, and then repeated.

An update is thousands of small operations, each of which takes longer to launch than to compute.
Where all of them are the same in each update but for the numbers, they are recorded by CUDA, one
recording for each phase, and a phase of an update is one launch. What a phase records is its loss,
the figures that it reports and the gradients of the network that it trains; the optimiser's steps
between phases are taken as ever.

A part of a run says that it can be recorded (`Component.recordable`), and promises

- that it waits for nothing on the GPU: no size depends on what a tensor holds (`fixed_shapes`);
- that it keeps nothing from one update to the next, beside its parameters;
- that numbers that move in the course of training come from `value_at`.

The first promise is kept watch over: before anything is recorded, an update is tried out where
waiting is an error.
"""

from __future__ import annotations

import gc
import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from gfnem.batch import Batch
from gfnem.batched import each, tensors_of
from gfnem.component import Component
from gfnem.errors import UserError
from gfnem.schedules import Anneal, moving

if TYPE_CHECKING:
    from gfnem.em import EM
    from gfnem.phases import Phase

_LOG = logging.getLogger(__name__)
#: shapes of observations that are recorded; further ones are computed as ever
_MOST = 128


class Recorder:
    """Keeps the recordings of a run.

    Args:
        em: what is trained.

    Attributes:
        refused: why nothing is recorded, for people; None where nothing speaks against it.
    """

    def __init__(self, em: EM):
        self._em = em
        self._kept: dict[Any, Recording | None] = {}
        self._tried: set[tuple[int, ...]] = set()
        self._pool: Any = None
        self._stream: torch.cuda.Stream | None = None
        self._gradients: dict[str, Gradients] = {}
        names = sorted({type(part).__name__ for part in _parts(em) if not part.recordable})
        self.refused = f"{', '.join(names)} cannot be recorded" if names else None

    def recording(self, x: Any, due: Sequence[int]) -> Recording | None:
        """The recording of an update on observations of such a shape; None where there is none.

        A shape is recorded when it comes for the second time: the first update has everything
        made that is made once.

        Args:
            x: the observations.
            due: the numbers of the phases that make the update.
        """
        if self.refused is not None or not self._possible(x):
            return None
        key = (tuple(due), _shapes(x), self._em.training, *_autocast())
        if key not in self._kept:
            if len(self._kept) < _MOST:
                self._kept[key] = None
            return None
        found = self._kept[key]
        if found is None and self._can(x, tuple(due)):
            found = self._kept[key] = Recording(self, x)
        return found

    def _possible(self, x: Any) -> bool:
        tensors = tensors_of(x)
        return bool(tensors) and all(t.is_cuda for t in tensors) and _autocast()[1] != torch.half

    def _can(self, x: Any, due: tuple[int, ...]) -> bool:
        """Tries an update out, without a step, where to wait for the GPU is an error."""
        gc.collect()  # a graph of an earlier update that is left would be recorded with
        if due in self._tried:
            return True
        mode, states = torch.cuda.get_sync_debug_mode(), torch.cuda.get_rng_state()
        self._stream = self._stream or torch.cuda.Stream()
        self._stream.wait_stream(torch.cuda.current_stream())
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Synchronization debug mode")
            torch.cuda.set_sync_debug_mode("error")
        try:
            one = torch.ones((), device="cuda")
            # libraries make what they need when a stream first asks, which cannot be recorded
            with torch.cuda.stream(self._stream), uncached(), moving(lambda anneal: one):
                self.rehearse(x, due)
        except RuntimeError as error:
            self.refused = str(error).split("\n")[0]
            _LOG.info("gfnem: updates are not recorded: %s", self.refused)
            return False
        finally:
            torch.cuda.set_sync_debug_mode(mode)
            torch.cuda.current_stream().wait_stream(self._stream)
            torch.cuda.set_rng_state(states)
        self._tried.add(due)
        return True

    def rehearse(self, x: Any, due: Sequence[int]) -> None:
        """Takes the phases that are due, and their gradients, and no step."""
        batch = Batch(self._em, x)
        for number in due:
            phase = self._em.phases[number]
            self._em.before(batch, number, due)
            self.gradients(phase.trains).of(phase(batch))
            batch.forget(phase.trains)

    def gradients(self, network: str) -> Gradients:
        """Where the gradients of a network are kept, for all recordings."""
        if network not in self._gradients:
            self._gradients[network] = Gradients(self._em.network(network))
        return self._gradients[network]

    @contextmanager
    def capture(self, graph: torch.cuda.CUDAGraph) -> Iterator[None]:
        """Meanwhile records. All recordings share what memory they need in between."""
        where = {"pool": self._pool, "stream": self._stream}
        with uncached(), torch.cuda.graph(graph, capture_error_mode="thread_local", **where):
            yield
        self._pool = graph.pool()


class Recording:
    """The recorded phases of updates on observations of one shape.

    Args:
        recorder: what it belongs to.
        x: observations of this shape.

    Attributes:
        x: the observations that the phases read, `(batch, ...)`; each update puts its own there.
    """

    def __init__(self, recorder: Recorder, x: Any):
        self._recorder = recorder
        self.x = each(torch.clone, x)
        self._phases: dict[int, _Phase] = {}
        self._numbers: dict[Anneal, Tensor] = {}

    def read(self, x: Any, now: int) -> Any:
        """Puts the observations, and the numbers of an update, where the phases read them."""
        for mine, tensor in zip(tensors_of(self.x), tensors_of(x), strict=True):
            mine.copy_(tensor)
        for anneal, number in self._numbers.items():
            number.fill_(anneal(now))
        return self.x

    def run(self, number: int, phase: Phase, batch: Batch) -> Tensor:
        """`()` the loss of a phase, whose gradient is known; recorded when it first comes."""
        if number not in self._phases:
            self._phases[number] = self._record(phase, batch)
        return self._phases[number].replay(batch)

    def _record(self, phase: Phase, batch: Batch) -> _Phase:
        now = batch.em.clock.now

        def number(anneal: Anneal) -> Tensor:
            return self._numbers[anneal]

        for anneal in _anneals(phase):
            if anneal not in self._numbers:
                device = tensors_of(self.x)[0].device
                self._numbers[anneal] = torch.full((), anneal(now), device=device)
        gradients = self._recorder.gradients(phase.trains)
        graph, before = torch.cuda.CUDAGraph(), set(batch.figures)
        try:
            with self._recorder.capture(graph), moving(number):
                loss = phase(batch)
                used = gradients.keep(loss)
        except RuntimeError as error:  # CUDA does not go on from here
            raise UserError(
                f"an update could not be recorded: {str(error).splitlines()[0]}; train with "
                "--record false, or EM(..., record=False)"
            ) from error
        batch.forget(phase.trains)  # its graph is of the recording's stream
        figures = {name: batch.figures[name] for name in batch.figures if name not in before}
        return _Phase(graph, loss.detach(), figures, gradients, used)


class _Phase:
    """A recorded phase."""

    def __init__(
        self,
        graph: torch.cuda.CUDAGraph,
        loss: Tensor,
        figures: dict[str, Tensor | float],
        gradients: Gradients,
        used: list[int],
    ):
        self.graph, self.loss, self.figures = graph, loss, figures
        self.gradients, self.used = gradients, used

    def replay(self, batch: Batch) -> Tensor:
        """`()` the loss for the observations that stand there now."""
        self.graph.replay()
        batch.figures |= {
            name: value.clone() if isinstance(value, Tensor) else value
            for name, value in self.figures.items()
        }
        if not self.used:
            return self.loss.clone()
        parameters = [self.gradients.parameters[at] for at in self.used]
        return _Known.apply(self.loss, self.gradients, self.used, *parameters)


class Gradients:
    """Where the gradients of a network's parameters are kept.

    Args:
        network: its parameters that are trained count.
    """

    def __init__(self, network: nn.Module):
        self.parameters = [p for p in network.parameters() if p.requires_grad]
        zeros = [torch.zeros_like(parameter).flatten() for parameter in self.parameters]
        self._flat = torch.cat(zeros) if zeros else torch.zeros(0)
        self.kept = self._views(self._flat)

    def _views(self, flat: Tensor) -> list[Tensor]:
        parts = flat.split([parameter.numel() for parameter in self.parameters])
        return [part.view_as(p) for part, p in zip(parts, self.parameters, strict=True)]

    def times(self, factor: Tensor) -> list[Tensor]:
        """All that are kept, times a number `()`."""
        return self._views(self._flat * factor)

    def of(self, loss: Tensor) -> list[Tensor | None]:
        """The gradient of a loss `()` in each parameter; None in one that it does not depend on."""
        if not loss.requires_grad:
            return [None] * len(self.parameters)
        return list(torch.autograd.grad(loss, self.parameters, allow_unused=True))

    def keep(self, loss: Tensor) -> list[int]:
        """Keeps the gradients of a loss `()`; numbers of the parameters that it depends on."""
        used = []
        for at, gradient in enumerate(self.of(loss)):
            if gradient is not None:
                self.kept[at].copy_(gradient)
                used.append(at)
        return used


class _Known(torch.autograd.Function):
    """A loss whose gradients are known."""

    @staticmethod
    def forward(ctx, loss: Tensor, gradients: Gradients, used: list[int], *parameters: Tensor):
        ctx.gradients, ctx.used = gradients, used
        return loss.clone()

    @staticmethod
    def backward(ctx, gradient: Tensor):
        found = ctx.gradients.times(gradient)
        return None, None, None, *(found[at] for at in ctx.used)


@contextmanager
def uncached() -> Iterator[None]:
    """Meanwhile autocast keeps no casts of weights: those of a recording belong to it alone."""
    cached = torch.is_autocast_cache_enabled()
    torch.clear_autocast_cache()
    torch.set_autocast_cache_enabled(False)
    try:
        yield
    finally:
        torch.set_autocast_cache_enabled(cached)


def _autocast() -> tuple[bool, torch.dtype]:
    on = torch.is_autocast_enabled("cuda")
    return on, torch.get_autocast_dtype("cuda") if on else torch.float32


def _shapes(x: Any) -> tuple:
    return tuple((tensor.shape, tensor.dtype, tensor.device) for tensor in tensors_of(x))


def _parts(em: EM) -> Iterator[Component]:
    """What an update is made of."""
    for root in (em.model, em.policy, em.reward, em.phases):
        if isinstance(root, nn.Module):
            yield from (part for part in root.modules() if isinstance(part, Component))
    yield from (part for part in (em.space, em.schedule) if isinstance(part, Component))


def _anneals(phase: nn.Module) -> list[Anneal]:
    """The numbers of a phase that move."""
    values: list[Any] = [value for part in phase.modules() for value in vars(part).values()]
    return [value for value in values if isinstance(value, Anneal)]

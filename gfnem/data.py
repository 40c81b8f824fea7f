"""Where batches come from, in an order that a resumed run finds again."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Generic

import pytorch_lightning as pl
import torch
from torch.utils.data import DataLoader, IterableDataset

from gfnem.batched import X
from gfnem.component import Component
from gfnem.errors import UserError
from gfnem.ranges import Count
from gfnem.running.processes import own_rank, world_size


def digest(tensor: torch.Tensor) -> str:
    """A hex digest of a tensor of any shape, its values and shape, for `fingerprint`."""
    found = hashlib.blake2b(str(tuple(tensor.shape)).encode(), digest_size=20)
    found.update(tensor.contiguous().cpu().numpy().tobytes())
    return found.hexdigest()


class BatchOrder:
    """Which observations make up update number `t`, a pure function of `t` and the seed.

    Each pass over the data is shuffled anew. Observations of similar size are put together: a
    shuffled pool of `pool` batches is sorted by size, cut into batches, and these are shuffled.

    Args:
        sizes: one number for each observation (tokens of a sentence); equal ones for no bucketing.
        batch_size: observations in a batch; the last ones of a pass that do not fill one are left
            to the next pass (except where there are fewer observations than that in all).
        seed: of the shuffling.
        pool: batches sorted together.
    """

    def __init__(self, sizes: Sequence[int], batch_size: int, seed: int, pool: int = 50):
        if not len(sizes):
            raise ValueError("no observations")
        self.sizes = torch.as_tensor(sizes)
        self.batch_size = min(batch_size, len(sizes))
        self.seed, self.pool = seed, pool
        self.batches_per_pass = len(sizes) // self.batch_size
        self._pass: tuple[int, list[list[int]]] | None = None

    def __getitem__(self, update: int) -> list[int]:
        number, place = divmod(update, self.batches_per_pass)
        if self._pass is None or self._pass[0] != number:
            self._pass = (number, self._shuffle(number))
        return self._pass[1][place]

    def _shuffle(self, number: int) -> list[list[int]]:
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + number)
        order = torch.randperm(len(self.sizes), generator=generator)
        order = order[: self.batches_per_pass * self.batch_size]
        batches: list[list[int]] = []
        for pool in order.split(self.pool * self.batch_size):
            by_size = pool[self.sizes[pool].argsort(stable=True)]
            batches.extend(by_size.view(-1, self.batch_size).tolist())
        shuffled = torch.randperm(len(batches), generator=generator).tolist()
        return [batches[index] for index in shuffled]


class _Stream(IterableDataset):
    """Batches by number; which numbers is asked each time it is gone through."""

    def __init__(self, numbers: Callable[[], range], batch: Callable[[int], Any]):
        self.numbers, self.batch = numbers, batch

    def __iter__(self) -> Iterator[Any]:
        return (self.batch(number) for number in self.numbers())

    def __len__(self) -> int:
        return len(self.numbers())


class DataModule(Component, pl.LightningDataModule, ABC, Generic[X]):
    """One world's data. A subclass says how many observations there are and makes batches.

    A Lightning "epoch" is `interval` updates, whatever the size of the data: after each, the run is
    validated and checkpointed. The training module's count of updates says where to go on.

    Args:
        batch_size: observations in a training batch, shared out among all processes.
        interval: updates between two validations (and checkpoints).
        seed: of the order of the data (not of the model). None is 0, and in a run of the command
            line the run's own seed.

    Attributes:
        world: name of the world that the data belong to (see `gfnem.world`); None if to none.
    """

    world: str | None = None

    def __init__(self, batch_size: Count = 32, interval: Count = 100, seed: int | None = None):
        super().__init__()
        self.batch_size, self.interval = batch_size, interval
        self.seed = 0 if seed is None else seed
        self._order: BatchOrder | None = None

    @abstractmethod
    def facts(self) -> dict[str, Any]:
        """What models, spaces and policies must be told of the data, as constructor arguments."""

    @abstractmethod
    def sizes(self) -> Sequence[int]:
        """One number for each training observation, to batch similar ones together."""

    @abstractmethod
    def batch(self, indices: Sequence[int]) -> X:
        """The training observations at `indices`, collated."""

    @abstractmethod
    def validation_batches(self) -> list[X]:
        """The held-out observations in batches (none: no validation)."""

    def metadata(self) -> dict[str, Any]:
        """Plain data that a checkpoint must hold to read new input the same way."""
        return {}

    def fingerprint(self) -> dict[str, str]:
        """Digests of what a resumed run must find again, by what they are digests of."""
        return {}

    def summary(self) -> str:
        """What was read, in a line or two for a person."""
        return ""

    def evaluate(self, module: Any, path: str | None = None) -> dict[str, float]:
        """Figures of a trained module on held-out data beyond what validation reports."""
        return {}

    def draw(self, module: Any, folder: Any) -> list[str]:
        """Draws what was learned into `folder`; returns the names of the files written."""
        return []

    def training_batch(self, update: int, rank: int = 0, ranks: int = 1) -> X:
        """The batch of update number `update`, or one process's share of it."""
        if self._order is None:
            self._order = BatchOrder(self.sizes(), self.batch_size, self.seed)
        if self._order.batch_size < ranks:
            raise UserError(
                f"batches of {self._order.batch_size} cannot be shared out among {ranks} processes"
            )
        return self.batch(self._order[update][rank::ranks])

    def _next_updates(self) -> range:
        """The updates up to the next validation (fewer where the run's end comes first)."""
        trainer: Any = self.trainer
        if trainer.overfit_batches:
            return range(self.interval)  # the same few batches again and again
        module = trainer.lightning_module
        start = int(module.updates)
        stop = (start // self.interval + 1) * self.interval
        if module.max_updates is not None:
            stop = max(start, min(stop, module.max_updates))
        return range(start, stop)

    def train_dataloader(self) -> DataLoader:
        """The next `interval` updates' batches, from the module's count of updates on."""
        rank, ranks = own_rank(), world_size()
        rank = rank if ranks > 1 else 0
        return _loader(self._next_updates, lambda update: self.training_batch(update, rank, ranks))

    def val_dataloader(self) -> DataLoader:
        """The validation batches; those of one process where there are several."""
        batches = self.validation_batches()
        if len(batches) >= (ranks := world_size()) > 1:  # fewer are seen by all: each takes part
            batches = batches[own_rank() :: ranks]
        return _loader(lambda: range(len(batches)), batches.__getitem__)

    def test_dataloader(self) -> DataLoader:
        """The held-out observations."""
        return self.val_dataloader()

    def predict_dataloader(self) -> DataLoader:
        """The held-out observations."""
        return self.val_dataloader()


def _loader(numbers: Callable[[], range], batch: Callable[[int], Any]) -> DataLoader:
    # a generator of its own: otherwise each pass takes a number from the global one, and whether
    # a run is validated would change what it draws next
    return DataLoader(_Stream(numbers, batch), batch_size=None, generator=torch.Generator())

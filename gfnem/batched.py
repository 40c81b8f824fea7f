"""Dataclasses of tensors that are handled row by row, as one tensor is: states and latents."""

from __future__ import annotations

from collections.abc import Callable, Sequence, Sized
from dataclasses import Field, fields
from typing import Any, ClassVar, TypeVar

import torch
from jaxtyping import Bool, Int, Shaped
from torch import Tensor

B = TypeVar("B", bound="Batched")
#: what targets, spaces and policies are generic in: a batch of observations, latents, states, and
#: what a policy makes of the observations
X = TypeVar("X", bound=Sized)
Z = TypeVar("Z")
State = TypeVar("State", bound="Batched")
Context = TypeVar("Context")


class Batched:
    """Makes a dataclass of tensors that share their leading axes behave as one tensor does.

    The tensors of states and latents lead with `(batch, samples)`, those of observations with
    `(batch,)`. A field may also be Batched itself, a list of such, or None. Nothing is changed in
    place. A class of one's own is written

        @dataclass
        class Path(Batched):
            places: Tensor  # (batch, samples, steps)
            length: Tensor  # (batch, samples)
    """

    __dataclass_fields__: ClassVar[dict[str, Field[Any]]]

    def map(self: B, function: Callable[..., Tensor], *others: B) -> B:
        """Applies `function` to corresponding tensors of this and of others of its type."""
        parts = ([getattr(part, f.name) for part in (self, *others)] for f in fields(self))
        return type(self)(*(each(function, *values) for values in parts))

    def where(self: B, mask: Bool[Tensor, "batch samples"], other: B) -> B:
        """Rows of this where `mask` `(batch, samples)` holds, else rows of `other`."""
        return self.map(lambda one, two: choose(mask, one, two), other)

    def take(self: B, index: Int[Tensor, "batch picked"]) -> B:
        """Samples number `index` `(batch, picked)` of each row; leading axes `(batch, picked)`."""
        return self.map(lambda tensor: pick(tensor, index))

    def __getitem__(self: B, index: Any) -> B:
        """Indexes every tensor alike, by what indexes its leading axes."""
        return self.map(lambda tensor: tensor[index])

    def __len__(self) -> int:
        """How many rows: the size of the first axis."""
        return len(getattr(self, fields(self)[0].name))

    def to(self: B, *args, **kwargs) -> B:
        """Moves every tensor (`torch.Tensor.to`)."""
        return self.map(lambda tensor: tensor.to(*args, **kwargs))

    @staticmethod
    def cat(parts: Sequence[B], dim: int = 1) -> B:
        """Joins objects of one type along a leading axis, by default that of samples.

        `T` states of `samples` give `T * samples` columns, all samples of the first state first.
        This is how a policy scores a whole trajectory in one call: time is folded into samples.
        """
        return parts[0].map(lambda *tensors: torch.cat(tensors, dim), *parts[1:])


def each(function: Callable[..., Tensor], *structures: Any) -> Any:
    """Applies `function` to corresponding tensors, of any shape, of structures of one kind.

    A structure is a tensor, which is what many latents are, a `Batched`, a list or tuple of
    structures, or None, which stays None.

    Raises:
        TypeError: for anything else, such as a dataclass that is not `Batched`.
    """
    first = structures[0]
    if isinstance(first, Tensor):
        return function(*structures)
    if isinstance(first, Batched):
        return first.map(function, *structures[1:])
    if isinstance(first, list | tuple):
        return [each(function, *parts) for parts in zip(*structures, strict=True)]
    if first is None:
        return None
    name = type(first).__name__
    raise TypeError(
        f"{name} is neither a tensor nor Batched; a dataclass of tensors is declared as "
        f"class {name}(gfnem.Batched)"
    )


def tensors_of(structure: Any) -> list[Tensor]:
    """The tensors, of any shape, of a structure as `each` takes it, in the order of its fields."""
    found: list[Tensor] = []

    def add(tensor: Tensor) -> Tensor:
        found.append(tensor)
        return tensor

    each(add, structure)
    return found


def what_no_state_is(state: Any, batch: int, samples: int) -> str | None:
    """What is wrong with a state of so many rows and samples, for a person; None if nothing is."""
    name = type(state).__name__
    if not isinstance(state, Batched):
        return f"{name} is no state: declare it as @dataclass class {name}(gfnem.Batched)"
    for tensor in tensors_of(state):
        if tensor.shape[:2] != (batch, samples):
            shape = tuple(tensor.shape)
            return f"a tensor of {name} has the shape {shape}, not ({batch}, {samples}, ...)"
    return None


def as_lists(structure: Any, axes: int) -> Any:
    """A tensor or `Batched` as plain data, for records that people and programs read.

    Args:
        structure: a tensor, which becomes nested lists, or a `Batched`, of which each entry
            becomes a mapping of its fields.
        axes: how many leading axes entries have.
    """
    if isinstance(structure, Tensor):
        return structure.tolist()
    if axes:
        return [as_lists(structure[place], axes - 1) for place in range(len(structure))]
    return {f.name: as_lists(getattr(structure, f.name), 0) for f in fields(structure)}


def choose(
    mask: Bool[Tensor, "batch samples"],
    one: Shaped[Tensor, "batch samples *more"],
    other: Shaped[Tensor, "batch samples *more"],
) -> Shaped[Tensor, "batch samples *more"]:
    """Entries of `one` where `mask` `(batch, samples)` holds, else of `other`."""
    if one is other:
        return one
    return torch.where(mask.reshape(mask.shape + (1,) * (one.dim() - mask.dim())), one, other)


def pick(
    tensor: Shaped[Tensor, "batch samples *more"], index: Int[Tensor, "batch picked"]
) -> Shaped[Tensor, "batch picked *more"]:
    """Samples number `index` `(batch, picked)` of each row of `(batch, samples, ...)`."""
    first = torch.arange(len(index), device=index.device)[:, None] * tensor.shape[1]
    found = tensor.flatten(0, 1).index_select(0, (first + index).flatten())
    return found.view(*index.shape, *tensor.shape[2:])

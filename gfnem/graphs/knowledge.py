"""What is known of a graph beforehand: edges that are there, edges that are not."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from gfnem.graphs.dags import bit_masks, closure_of


class Knowledge:
    """Constraints on graphs.

    Args:
        variables: how many nodes there are.
        max_parents: most parents of a node; any number if None.
        forbidden, required: `[i, j]` pairs, the edge from `i` to `j`.

    Attributes:
        permitted: `(n, n)` bool; edges that may be there. The diagonal is not.
        candidates: `(n,)` int64; bit masks of the nodes that may be parents of each node.
        required: `(n, n)` bool; edges that always are there.
        required_closure: `(n, n)` bool; paths of these.
        free: whether every edge is permitted and none required.

    Raises:
        ValueError: if they contradict each other.
    """

    def __init__(
        self,
        variables: int,
        max_parents: int | None = None,
        forbidden: Sequence[Sequence[int]] | None = None,
        required: Sequence[Sequence[int]] | None = None,
    ):
        self.variables, self.max_parents = variables, max_parents
        self.permitted = ~torch.eye(variables, dtype=torch.bool, device="cpu")
        self.required = torch.zeros_like(self.permitted)
        for name, pairs, matrix, value in (
            ("forbidden", forbidden, self.permitted, False),
            ("required", required, self.required, True),
        ):
            for pair in pairs or ():
                if len(pair) != 2 or not all(0 <= node < variables for node in pair):
                    raise ValueError(f"{name} {list(pair)}: a pair of nodes below {variables}")
                matrix[tuple(pair)] = value
        self.candidates = bit_masks(self.permitted.mT)
        self.required_closure = closure_of(self.required)
        self.free = not forbidden and not required
        if (self.required & ~self.permitted).any():
            raise ValueError("an edge is both required and forbidden, or from a node to itself")
        if self.required_closure.diagonal().any():
            raise ValueError("the required edges form a cycle")
        if max_parents is not None and (self.required.sum(0) > max_parents).any():
            raise ValueError(f"a node has more than {max_parents} required parents")

    def on(self, device: torch.device | str) -> Knowledge:
        """The same, on a device."""
        if self.permitted.device == torch.device(device):
            return self
        other = object.__new__(Knowledge)
        other.__dict__ = {
            name: value.to(device) if isinstance(value, Tensor) else value
            for name, value in self.__dict__.items()
        }
        return other

    def permits(self, members: Tensor) -> Tensor:
        """`(n, sets)` bool: whether each node may have a set `(sets, n)` bool as its parents.

        A limit on their number apart.
        """
        known = self.on(members.device)
        fine = (~members | known.permitted.mT[:, None]) & (members | ~known.required.mT[:, None])
        return fine.all(2)

    def allows(self, adjacency: Tensor) -> Tensor:
        """`(...)` bool: whether graphs `(..., n, n)` heed it; cycles are not looked for."""
        known = self.on(adjacency.device)
        fine = (adjacency | ~known.required) & (known.permitted | ~adjacency)
        fine = fine.flatten(-2).all(-1)
        if self.max_parents is not None:
            fine = fine & (adjacency.sum(-2) <= self.max_parents).all(-1)
        return fine

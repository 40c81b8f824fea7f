"""A grammar's binary rules: a table with a cell for each pair of children, or one for each side."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable

import torch
from torch import Tensor

from gfnem.parsing.inference.factored import FactoredPotentials
from gfnem.parsing.inference.potentials import Potentials, groups_of
from gfnem.parsing.inference.rule_potentials import RulePotentials


class Rules(ABC):
    """The weights of a grammar's rules `A -> B C`, and all that is asked of them.

    `K` contexts, `N` nonterminals in `G` groups, `S` symbols (see `Grammar`). A grammar gives log
    weights; `each` makes others of them, such as probabilities, of which the methods below
    `weighed` are.
    """

    #: numbers of contexts, nonterminals and symbols
    contexts: int
    labels: int
    symbols: int
    #: where children are chosen apart, the `(N, S)` weights of left and of right ones; else none
    sides: tuple[Tensor, ...] = ()

    @abstractmethod
    def each(self, change: Callable[[Tensor], Tensor]) -> Rules:
        """The rules with every tensor changed."""

    def exp(self) -> Rules:
        """The probabilities of rules given as log probabilities."""
        return self.each(torch.exp)

    @abstractmethod
    def potentials(
        self, root: Tensor, words: Tensor, lengths: Tensor, kinds: Tensor | None = None
    ) -> Potentials:
        """The potentials of a batch, of log weights (see `RulePotentials.from_tables`)."""

    @abstractmethod
    def everything(self) -> bool:
        """Whether no log weight is minus infinity."""

    @abstractmethod
    def weighed(self, extra: Tensor) -> Rules:
        """With `(K, N)` nats added to all log weights of each nonterminal."""

    @abstractmethod
    def normalised(self) -> Rules:
        """With the weights of each nonterminal, that has any, summing to 1."""

    @abstractmethod
    def draws(self) -> list[Tensor]:
        """`(K * N, columns)` weights that are drawn from one after the other for a rule.

        Their columns, as the digits of one number of base `S`, are the pair `B * S + C`.
        """

    @abstractmethod
    def pairs(self, label: int) -> Tensor:
        """`(K, S, S)` weights of the rules of a nonterminal."""

    @abstractmethod
    def best(self, allowed: Tensor) -> tuple[Tensor, Tensor]:
        """Two `(K, N)`: the largest weight of each nonterminal's rules, and their pair `B * S + C`.

        Args:
            allowed: `(N, S)` bool, which symbols may be children of each.
        """

    @abstractmethod
    def join(self, first: Tensor, second: Tensor, group: int) -> Tensor:
        """`(..., K, N / G)` weights of the nonterminals of a group, summed over splits and rules.

        Args:
            first, second: `(..., splits, S)` weights of both children.
            group: the number of the group.
        """


def rules_of(table: Tensor | Rules) -> Rules:
    """The rules that a grammar's `tables` name; of a tensor, those of a dense table."""
    return table if isinstance(table, Rules) else DenseRules(table)


class DenseRules(Rules):
    """A cell for each pair of children.

    Args:
        table: `(K, N, S, S)`; the axis of contexts may be left out where there is one.
    """

    def __init__(self, table: Tensor):
        self.table = table.reshape(-1, *table.shape[-3:])
        self.contexts, self.labels, self.symbols, _ = self.table.shape

    def each(self, change: Callable[[Tensor], Tensor]) -> DenseRules:
        """See `Rules`."""
        return DenseRules(change(self.table))

    def potentials(
        self, root: Tensor, words: Tensor, lengths: Tensor, kinds: Tensor | None = None
    ) -> RulePotentials:
        """See `Rules`."""
        words = words if words.dim() == 4 else words.unsqueeze(2)
        return RulePotentials.from_tables(root, self.table, words, lengths, kinds)

    def everything(self) -> bool:
        """See `Rules`."""
        return bool(self.table.amin() > -torch.inf)

    def weighed(self, extra: Tensor) -> DenseRules:
        """See `Rules`."""
        return DenseRules(self.table + extra[..., None, None])

    def normalised(self) -> DenseRules:
        """See `Rules`."""
        return DenseRules(_shares(self.table.flatten(2)).view_as(self.table))

    def draws(self) -> list[Tensor]:
        """See `Rules`."""
        return [self.table.flatten(0, 1).flatten(1)]

    def pairs(self, label: int) -> Tensor:
        """See `Rules`."""
        return self.table[:, label]

    def best(self, allowed: Tensor) -> tuple[Tensor, Tensor]:
        """See `Rules`."""
        found = (self.table * (allowed[:, :, None] & allowed[:, None])).flatten(2).max(2)
        return found.values, found.indices

    def join(self, first: Tensor, second: Tensor, group: int) -> Tensor:
        """See `Rules`."""
        pairs = (first.mT @ second).flatten(-2)
        table = self.table.unflatten(1, (groups_of(self.contexts), -1))[:, group]
        return (pairs @ table.flatten(0, 1).flatten(1).T).unflatten(-1, (self.contexts, -1))


class ApartRules(Rules):
    """Rules that choose their two children apart: a weight of `A -> B C` is a product of two.

    `p(B C | A) = p(B | A, left) p(C | A, right)` (Liu et al., 2023, eq. 5); one context.

    Args:
        left, right: `(N, S)` of each nonterminal's left and right child.
    """

    contexts = 1

    def __init__(self, left: Tensor, right: Tensor):
        self.sides = left, right
        self.labels, self.symbols = left.shape

    def each(self, change: Callable[[Tensor], Tensor]) -> ApartRules:
        """See `Rules`."""
        return ApartRules(*(change(side) for side in self.sides))

    def potentials(
        self, root: Tensor, words: Tensor, lengths: Tensor, kinds: Tensor | None = None
    ) -> FactoredPotentials:
        """See `Rules`; kinds of words make nothing cheaper here."""
        words = words if words.dim() == 3 else words.squeeze(2)
        return FactoredPotentials.from_tables(root, *self.sides, words, lengths)

    def everything(self) -> bool:
        """See `Rules`."""
        return all(bool(side.amin() > -torch.inf) for side in self.sides)

    def weighed(self, extra: Tensor) -> ApartRules:
        """See `Rules`."""
        return ApartRules(self.sides[0] + extra[0][:, None], self.sides[1])

    def normalised(self) -> ApartRules:
        """See `Rules`."""
        return self.each(_shares)

    def draws(self) -> list[Tensor]:
        """See `Rules`."""
        return list(self.sides)

    def pairs(self, label: int) -> Tensor:
        """See `Rules`."""
        left, right = self.sides
        return (left[label][:, None] * right[label])[None]

    def best(self, allowed: Tensor) -> tuple[Tensor, Tensor]:
        """See `Rules`."""
        first, second = ((side * allowed).max(1) for side in self.sides)
        weight = first.values * second.values
        return weight[None], (first.indices * self.symbols + second.indices)[None]

    def join(self, first: Tensor, second: Tensor, group: int) -> Tensor:
        """See `Rules`."""
        left, right = self.sides
        return ((first @ left.T) * (second @ right.T)).sum(-2).unsqueeze(-2)


def _shares(table: Tensor) -> Tensor:
    """A table whose last axis sums to 1, where it has any weight."""
    return table / table.sum(-1, keepdim=True).clamp(min=torch.finfo(table.dtype).tiny)

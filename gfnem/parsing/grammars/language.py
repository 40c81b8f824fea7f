"""Which sentences a grammar makes at all, and how often sentences of each length.

Nonterminals come in `G` groups; the children of a nonterminal stand under its group, and a symbol
under one of `K` contexts: the groups, and where rules look at parents the top of the tree besides.
A context-free grammar has `G = K = 1`, others `K = G + 1`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import pad

from gfnem.parsing.grammars.rule_tables import Rules, rules_of
from gfnem.parsing.inference.potentials import groups_of
from gfnem.parsing.text.sentences import Sentences


@dataclass
class ContextTables:
    """A grammar's weights, by the context that a symbol stands under (see `Grammar.tables`).

    Attributes:
        root: `(S,)` of the start symbol's child.
        rules: of the children of nonterminals.
        words: `(K, T, vocabulary)` of each preterminal's words.
    """

    root: Tensor
    rules: Rules
    words: Tensor

    @classmethod
    def of(cls, root: Tensor, rules: Tensor | Rules, words: Tensor) -> ContextTables:
        """With an axis of contexts, which tables of a context-free grammar may leave out."""
        return cls(root, rules_of(rules), words.reshape(-1, *words.shape[-2:]))

    def each(self, change: Callable[[Tensor], Tensor]) -> ContextTables:
        """The tables with every tensor changed."""
        return ContextTables(change(self.root), self.rules.each(change), change(self.words))

    def normalised(self) -> ContextTables:
        """Float64 probabilities: weights of what can be chosen, over their sum."""
        root, words = _shares(self.root.double()), _shares(self.words.double())
        return ContextTables(root, self.rules.each(Tensor.double).normalised(), words)

    def everything(self) -> bool:
        """Whether every nonterminal derives all words of two tokens or more: no rule is absent."""
        return self.rules.everything() and bool(self.words.amin() > -torch.inf)


def _shares(table: Tensor) -> Tensor:
    """A table whose last axis sums to 1, or is all 0."""
    return table / table.sum(-1, keepdim=True).clamp(min=torch.finfo(table.dtype).tiny)


def length_weights(tables: ContextTables, longest: int) -> Tensor:
    """`(longest,)` float64, the weight of all sentences of one token, of two, and so on.

    For a grammar whose weights are probabilities: how probable each length is, differentiable. The
    sums run over the lengths of both children; the words of each length are summed out.

    Args:
        tables: the grammar.
        longest: most tokens of a sentence, at least 1.
    """
    tables = tables.each(lambda table: table.double().exp())
    rules, words = tables.rules, tables.words
    found = [pad(words.sum(2), (rules.labels, 0))]  # (contexts, symbols) of each length
    for _ in range(2, longest + 1):
        children = torch.stack(found)
        above = [
            rules.join(children[:, group], children[:, group].flip(0), group)
            for group in range(groups_of(rules.contexts))
        ]
        found.append(pad(torch.cat(above, 1), (0, words.shape[1])))
    return torch.stack(found)[:, -1] @ tables.root


@torch.no_grad()
def recognise(tables: ContextTables, x: Sentences) -> Tensor:
    """`(batch,)` bool: which sentences have a tree of weight above 0.

    Says yes or no of each symbol over each span, without weights (Cocke, Younger and Kasami), so
    that neither rounding nor underflow can have a say.
    """
    # products of 0 and 1, summed: float32 holds whether a sum is above 0 exactly
    tables = tables.each(lambda table: (table > -torch.inf).float())
    root, rules, words = tables.root, tables.rules, tables.words
    (batch, n), labels = x.tokens.shape, rules.labels
    chart = words.new_zeros(n, n + 1, batch, rules.contexts, rules.symbols)
    for place in range(n):
        chart[place, place + 1, :, :, labels:] = words[:, :, x.tokens[:, place]].permute(2, 0, 1)
    for width in range(2, n + 1):
        start = torch.arange(n - width + 1, device=root.device)
        cuts = start[:, None] + torch.arange(1, width, device=root.device)
        left = chart[start[:, None], cuts].transpose(1, 2)  # spans, batch, cuts, K, S
        right = chart[cuts, (start + width)[:, None]].transpose(1, 2)
        above = [  # one group at a time, to bound memory
            rules.join(left[..., group, :], right[..., group, :], group) > 0
            for group in range(groups_of(rules.contexts))
        ]
        chart[start, start + width, :, :, :labels] = torch.cat(above, 3).float()
    rows = torch.arange(batch, device=root.device)
    whole = chart[torch.zeros_like(rows), x.lengths, rows, -1]
    return (whole @ root) > 0

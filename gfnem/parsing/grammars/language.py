"""Which sentences a grammar makes at all, and how often sentences of each length.

Nonterminals come in `G` groups; the children of a nonterminal stand under its group, and a symbol
under one of `K` contexts: the groups, and where rules look at parents the top of the tree besides.
A context-free grammar has `G = K = 1`, others `K = G + 1`.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import pad

from gfnem.parsing.inference.potentials import groups_of
from gfnem.parsing.text.sentences import Sentences


@dataclass
class ContextTables:
    """A grammar's weights, by the context that a symbol stands under (see `Grammar.tables`).

    Attributes:
        root: `(S,)` of the start symbol's child.
        rules: `(K, N, S, S)`, `[k, A, B, C]` of the children of nonterminal `A`.
        words: `(K, T, vocabulary)` of each preterminal's words.
    """

    root: Tensor
    rules: Tensor
    words: Tensor

    @classmethod
    def of(cls, root: Tensor, rules: Tensor, words: Tensor) -> ContextTables:
        """With an axis of contexts, which tables of a context-free grammar may leave out."""
        return cls(root, rules.reshape(-1, *rules.shape[-3:]), words.reshape(-1, *words.shape[-2:]))

    def grouped(self) -> Tensor:
        """`(K, G, N / G, S, S)` rules, nonterminals in groups whose children share a context."""
        return self.rules.unflatten(1, (groups_of(len(self.rules)), -1))

    def everything(self) -> bool:
        """Whether every nonterminal derives all words of two tokens or more: no rule is absent."""
        return bool(self.rules.isfinite().all()) and bool(self.words.isfinite().all())


def length_weights(tables: ContextTables, longest: int) -> Tensor:
    """`(longest,)` float64, the weight of all sentences of one token, of two, and so on.

    For a grammar whose weights are probabilities: how probable each length is, differentiable. The
    sums run over the lengths of both children; the words of each length are summed out.

    Args:
        tables: the grammar.
        longest: most tokens of a sentence, at least 1.
    """
    root, rules, words = (
        table.double().exp() for table in (tables.root, tables.grouped(), tables.words)
    )
    groups, symbols = rules.shape[1], rules.shape[3]
    labels = symbols - words.shape[1]
    found = [pad(words.sum(2), (labels, 0))]  # (contexts, symbols) of each length
    for _ in range(2, longest + 1):
        children = torch.stack(found)[:, :groups]
        pairs = torch.einsum("wgb,wgc->gbc", children, children.flip(0))
        above = torch.einsum("kgabc,gbc->kga", rules, pairs).flatten(1)
        found.append(pad(above, (0, symbols - labels)))
    return torch.stack(found)[:, -1] @ root


@torch.no_grad()
def recognise(tables: ContextTables, x: Sentences) -> Tensor:
    """`(batch,)` bool: which sentences have a tree of weight above 0.

    Says yes or no of each symbol over each span, without weights (Cocke, Younger and Kasami), so
    that neither rounding nor underflow can have a say.
    """
    # products of 0 and 1, summed: float32 holds whether a sum is above 0 exactly
    root, rules, words = (
        (table > -torch.inf).float() for table in (tables.root, tables.grouped(), tables.words)
    )
    contexts, groups, _, symbols, _ = rules.shape
    (batch, n), labels = x.tokens.shape, symbols - words.shape[1]
    rules = rules.permute(1, 3, 4, 0, 2).flatten(3).flatten(1, 2)  # G, S * S, K * A
    chart = rules.new_zeros(n, n + 1, batch, contexts, symbols)
    for place in range(n):
        chart[place, place + 1, :, :, labels:] = words[:, :, x.tokens[:, place]].permute(2, 0, 1)
    for width in range(2, n + 1):
        start = torch.arange(n - width + 1, device=root.device)
        cuts = start[:, None] + torch.arange(1, width, device=root.device)
        left = chart[start[:, None], cuts]  # spans, cuts, batch, K, S
        right = chart[cuts, (start + width)[:, None]]
        above = []
        for group in range(groups):  # one at a time, to bound memory
            pairs = torch.einsum("icbx,icby->ibxy", left[..., group, :], right[..., group, :])
            found = (pairs > 0).float().flatten(2) @ rules[group] > 0  # spans, batch, K * A
            above.append(found.unflatten(2, (contexts, -1)))
        chart[start, start + width, :, :, :labels] = torch.stack(above, 3).flatten(3).float()
    rows = torch.arange(batch, device=root.device)
    whole = chart[torch.zeros_like(rows), x.lengths, rows, -1]
    return (whole @ root) > 0

"""Sentences with their trees, drawn from a grammar."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import pad

from gfnem.parsing.grammars.rule_tables import Rules
from gfnem.parsing.inference.potentials import groups_of
from gfnem.parsing.text.sentences import Sentences
from gfnem.parsing.trees.trees import Trees


def draw_derivations(
    root: Tensor, rules: Rules, emissions: Tensor, count: int, max_length: int
) -> tuple[Sentences, Trees]:
    """Draws `count` sentences of at most `max_length` tokens with their trees.

    Args:
        root: `(N + T,)` probabilities of the start symbol's child.
        rules: probabilities of each nonterminal's children by context.
        emissions: `(K, T, words)` probabilities of each preterminal's words by context.
        count, max_length: how many sentences, and the most tokens of one.

    Raises:
        RuntimeError: if fewer than one derivation in a thousand fits.
    """
    contexts, labels, preterminals = rules.contexts, rules.labels, emissions.shape[1]
    size = labels // groups_of(contexts)

    def annotate(parent: Tensor | None, child: Tensor) -> Tensor:
        """The symbol `k * N + A`, or `K * N + k * T + T'`, that a child is."""
        context = contexts - 1 if parent is None else (parent % labels) // size
        leaf = contexts * labels + context * preterminals + child - labels
        return torch.where(child < labels, context * labels + child, leaf)

    tables = (
        _Lottery(root[None]),
        _Lottery(*rules.draws()),
        _Lottery(emissions.flatten(0, 1)),
    )
    pieces: list[tuple[Sentences, Trees]] = []
    found = tried = 0
    while found < count:
        tries = max(2 * (count - found), 32)
        x, z = _derive(*tables, tries, max_length, annotate)
        z.label = z.label % labels
        found, tried = found + len(x), tried + tries
        pieces.append((x, z))
        if tried > 1000 * max(found, 1):
            raise RuntimeError(
                f"only {found} of {tried} derivations had at most {max_length} tokens"
            )
    return joined(pieces, count)


class _Lottery:
    """Draws from the rows of tables of probabilities, any number of rows at once.

    Of several tables with equally many columns one draw each, the digits of one number.
    """

    def __init__(self, *tables: Tensor):
        self.rows, self.columns = tables[0].shape
        self.steps = [self._steps(table.detach().double()) for table in tables]

    def _steps(self, probabilities: Tensor) -> Tensor:
        steps = probabilities.cumsum(1)
        # a row without any weight is never asked for, but must not spoil the others
        steps = steps / steps[:, -1:].clamp(min=torch.finfo(steps.dtype).tiny)
        # row r runs from r to r + 1: one sorted list serves all rows
        return (steps + torch.arange(self.rows, device=steps.device)[:, None]).flatten()

    def draw(self, row: Tensor) -> Tensor:
        """`(count,)` columns, one for each of the rows asked for."""
        number = torch.zeros_like(row)
        for steps in self.steps:
            ticket = row + torch.rand(len(row), device=row.device, dtype=torch.double)
            found = torch.searchsorted(steps, ticket, right=True) - row * self.columns
            number = number * self.columns + found.clamp(0, self.columns - 1)
        return number


def _derive(
    root: _Lottery, rules: _Lottery, emissions: _Lottery, count: int, max_length: int, annotate
) -> tuple[Sentences, Trees]:
    """Leftmost derivations of a whole batch at once; those that grow too long are left out."""
    nonterminals, symbols = rules.rows, root.columns
    device = root.steps[0].device
    rows = torch.arange(count, device=device)
    width = max_length + 2
    # a stack of symbols still to expand; beside each, the node whose right child it is (or -1)
    stack = torch.zeros(count, width, dtype=torch.long, device=device)
    owner = torch.full((count, width), -1, device=device)
    depth = torch.ones(count, dtype=torch.long, device=device)
    stack[:, 0] = annotate(None, root.draw(torch.zeros(count, dtype=torch.long, device=device)))
    tokens = torch.zeros(count, width, dtype=torch.long, device=device)
    table = torch.zeros(4, count, width, dtype=torch.long, device=device)  # left right split label
    leaf_right = torch.zeros(count, width, dtype=torch.bool, device=device)
    words = torch.zeros(count, dtype=torch.long, device=device)
    nodes = torch.zeros(count, dtype=torch.long, device=device)
    while True:
        busy = rows[(depth > 0) & (words + depth <= max_length)]
        if not len(busy):
            break
        depth[busy] -= 1
        symbol, parent = stack[busy, depth[busy]], owner[busy, depth[busy]]
        right_child = parent >= 0
        of_right = busy[right_child]
        table[2, of_right, parent[right_child]] = words[of_right]
        emits = symbol >= nonterminals
        leaf_right[busy[right_child & emits], parent[right_child & emits]] = True
        leaf = busy[emits]
        if len(leaf):
            tokens[leaf, words[leaf]] = emissions.draw(symbol[emits] - nonterminals)
            words[leaf] += 1
        inner = busy[~emits]
        if len(inner):
            choice = rules.draw(symbol[~emits])
            node = nodes[inner]
            table[0, inner, node] = words[inner]
            table[3, inner, node] = symbol[~emits]
            for child, owned in ((choice % symbols, node), (choice // symbols, None)):
                stack[inner, depth[inner]] = annotate(symbol[~emits], child)
                owner[inner, depth[inner]] = -1 if owned is None else owned
                depth[inner] += 1
            nodes[inner] += 1
    done = depth == 0
    tokens, table, leaf_right = tokens[done], table[:, done], leaf_right[done]
    lengths = words[done]
    longest = int(lengths.max()) if len(lengths) else 1
    left, right, split, _ = table
    for node in range(longest - 2, -1, -1):  # a node ends where its right child ends
        child = (node + split[:, node] - left[:, node]).clamp(max=width - 1)
        ends = right.gather(1, child[:, None]).squeeze(1)
        right[:, node] = torch.where(leaf_right[:, node], split[:, node] + 1, ends)
    nodes_kept = torch.arange(longest - 1, device=device) < (lengths - 1)[:, None]
    table = table[:, :, : longest - 1] * nodes_kept
    x = Sentences(tokens[:, :longest], lengths)
    return x, Trees(*table.unsqueeze(2), lengths[:, None])


def joined(pieces: list[tuple[Sentences, Trees]], count: int) -> tuple[Sentences, Trees]:
    """The first `count` of some sentences with their trees, one for each, in one batch."""
    longest = max(x.max_length for x, _ in pieces)
    tokens = torch.cat([pad(x.tokens, (0, longest - x.max_length)) for x, _ in pieces])
    lengths = torch.cat([x.lengths for x, _ in pieces])
    z = Trees.cat([z.resized(longest - 1) for _, z in pieces], 0)[:count]
    x = Sentences(tokens, lengths)[:count]
    return x, z.resized()

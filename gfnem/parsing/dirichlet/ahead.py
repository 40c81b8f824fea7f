"""What is still to come of the sentences, if the rules stayed as they are so far."""

from __future__ import annotations

import torch
from torch import Tensor

from gfnem.parsing.dirichlet.model import DirichletGrammar
from gfnem.parsing.dirichlet.space import Analyses


def log_ahead(model: DirichletGrammar, state: Analyses) -> Tensor:
    """`(batch, samples)` log sum over completions, rules as probable as they are next (nats).

    An inside pass over each sentence. Rules that are used on the way would become more probable:
    this is left out, so that it is an estimate, exact where nothing is to come.
    """
    rules = model.space.rules
    predictive = model.predictive(state.counts).exp()
    roots, pairs, words = predictive.split(
        [
            rules.nonterminals,
            rules.nonterminals * rules.symbols**2,
            rules.preterminals * rules.vocabulary,
        ],
        -1,
    )
    pairs = pairs.unflatten(2, (rules.nonterminals, rules.symbols**2))
    emission = words.unflatten(2, (rules.preterminals, rules.vocabulary)).mT
    emission = torch.nn.functional.pad(emission, (0, rules.nonterminals, 0, 1))  # the last: no word
    length, count = state.stack.shape[2], state.words.shape[2]
    place = torch.arange(length, device=state.read.device)
    ends = torch.nn.functional.pad(state.ends, (1, 0))[..., :-1]
    of = ends.long().cumsum(2).masked_fill(state.words < 0, -1)  # the sentence of each word
    padded = torch.nn.functional.pad(of, (1, 0), value=-1)
    now = padded.gather(2, state.read[..., None])  # the one whose word came last, -1 at first

    def leaves(first: Tensor, sentence: Tensor, depth: Tensor) -> tuple[Tensor, Tensor]:
        """Rows of symbols, the stack's and then words from `first`, and how many there are."""
        at = first[..., None] + place - depth[..., None]
        inside = (at >= first[..., None]) & (at < count)
        at = at.clamp(0, count - 1)
        inside = inside & (of.gather(2, at) == sentence[..., None]) & (sentence >= 0)[..., None]
        word = torch.where(inside, state.words.gather(2, at), rules.vocabulary)
        index = word[..., None].expand(*word.shape, rules.symbols)
        found = emission.gather(2, index)
        return found, depth + inside.sum(2)

    depth = state.depth
    on_stack = torch.nn.functional.one_hot(state.stack.clamp(min=0), rules.symbols).to(emission)
    rows, size = leaves(state.read, now[..., 0], depth)
    rows = torch.where((place < depth[..., None])[..., None], on_stack, rows)
    begun = (now[..., 0] >= 0) & (size > 1)
    total = torch.where(begun, _inside(rows, depth, size, pairs, roots), 1.0).log()
    for sentence in range(int(of.max()) + 1):
        here = of == sentence
        first = torch.where(here, torch.arange(count, device=of.device), count).amin(2)
        first = first.clamp(max=count - 1)
        nothing = torch.zeros_like(depth)
        rows, size = leaves(first, torch.full_like(depth, sentence), nothing)
        open_ = (now[..., 0] < sentence) & (size > 1)
        value = _inside(rows, nothing, size, pairs, roots)
        total = total + torch.where(open_, value, 1.0).log()
    return total


def _inside(leaves: Tensor, depth: Tensor, size: Tensor, pairs: Tensor, roots: Tensor) -> Tensor:
    """`(batch, samples)` sum over trees whose leaves are rows `(batch, samples, length, symbols)`.

    Of `size` leaves the first `depth` stand on a stack: two of them are siblings only where the
    topmost is below, since others would have been joined before.
    """
    length, preterminals = leaves.shape[2], leaves.shape[3] - roots.shape[2]
    cells = {(at, at + 1): leaves[:, :, at] for at in range(length)}
    found = torch.zeros_like(roots[..., 0])
    for width in range(2, length + 1):
        for begin in range(length - width + 1):
            end = begin + width
            joined = sum(
                cells[begin, split][..., :, None] * cells[split, end][..., None, :]
                for split in range(begin + 1, end)
            )
            cell = (pairs @ joined.flatten(2)[..., None])[..., 0]
            cell = cell * (end >= depth)[..., None]
            cells[begin, end] = torch.nn.functional.pad(cell, (preterminals, 0))
        whole = (cells[0, width][..., preterminals:] * roots).sum(2)
        found = torch.where(size == width, whole, found)
    return found.clamp(min=torch.finfo(found.dtype).tiny)

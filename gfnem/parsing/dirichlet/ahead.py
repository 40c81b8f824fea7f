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
    place, number = (torch.arange(size, device=state.read.device) for size in (length, count))
    ends = torch.nn.functional.pad(state.ends, (1, 0))[..., :-1]
    of = ends.long().cumsum(2).masked_fill(state.words < 0, -1)  # the sentence of each word
    sentence = torch.arange(int(of.max()) + 1, device=of.device)
    # the sentence at hand, whose word came last, begins with what is on the stack
    now = torch.nn.functional.pad(of, (1, 0), value=-1).gather(2, state.read[..., None])
    depth = torch.where(sentence == now, state.depth[..., None], 0)
    here = of[..., None, :] == sentence[:, None]
    first = torch.where(here, number, count - 1).amin(3)
    first = torch.where(sentence == now, state.read[..., None], first)
    at = first[..., None] + place - depth[..., None]  # (batch, samples, sentences, length)
    inside = (at >= first[..., None]) & (at < count)
    at = at.clamp(0, count - 1).flatten(2)
    inside = inside & (of.gather(2, at).unflatten(2, (-1, length)) == sentence[:, None])
    word = state.words.gather(2, at).unflatten(2, (-1, length))
    word = torch.where(inside, word, rules.vocabulary).flatten(2)
    leaves = emission.gather(2, word[..., None].expand(*word.shape, rules.symbols))
    leaves = leaves.unflatten(2, (-1, length))
    on_stack = torch.nn.functional.one_hot(state.stack.clamp(min=0), rules.symbols).to(emission)
    leaves = torch.where((place < depth[..., None])[..., None], on_stack[:, :, None], leaves)
    size = depth + inside.sum(3)
    value = _inside(leaves, depth, size, pairs[:, :, None], roots[:, :, None])
    return torch.where((now <= sentence) & (size > 1), value, 1.0).log().sum(2)


def _inside(leaves: Tensor, depth: Tensor, size: Tensor, pairs: Tensor, roots: Tensor) -> Tensor:
    """`(...)` sum over trees whose leaves are rows `(..., length, symbols)`.

    Of `size` leaves the first `depth` stand on a stack: two of them are siblings only where the
    topmost is below, since others would have been joined before.
    """
    length, preterminals = leaves.shape[-2], leaves.shape[-1] - roots.shape[-1]
    cells = {(at, at + 1): leaves[..., at, :] for at in range(length)}
    found = torch.zeros_like(leaves[..., 0, 0])
    for width in range(2, length + 1):
        for begin in range(length - width + 1):
            end = begin + width
            splits = range(begin + 1, end)
            left = torch.stack([cells[begin, split] for split in splits], -1)
            right = torch.stack([cells[split, end] for split in splits], -2)
            cell = (pairs @ (left @ right).flatten(-2)[..., None])[..., 0]
            cell = cell * (end >= depth)[..., None]
            cells[begin, end] = torch.nn.functional.pad(cell, (preterminals, 0))
        whole = (cells[0, width][..., preterminals:] * roots).sum(-1)
        found = torch.where(size == width, whole, found)
    return found.clamp(min=torch.finfo(found.dtype).tiny)

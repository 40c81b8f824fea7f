"""Top-down choices where shapes are fixed: place after place of all trees (see `fixed_shapes`).

In preorder a node stands behind its parent, and at place `m` it has at most `n - m` words. So the
places of trees are gone through once, and no size depends on what is chosen. What is no node is
taken for one, and whatever comes of it is asked for by nobody.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import pad

from gfnem.parsing.inference.choices import RuleChoices
from gfnem.parsing.inference.nodes import Nodes
from gfnem.parsing.inference.table_draws import Lots, TableDraws
from gfnem.parsing.trees.trees import Trees

#: groups of nodes by width, told by their places
_GROUPS = 4


def draw_padded(choices: RuleChoices, roots: Tensor, lots: Lots) -> tuple[Trees, Tensor]:
    """Draws trees with these roots, without autograd.

    Args:
        choices: the action weights, of rules under one context.
        roots: `(batch, samples)` int64 labels.
        lots: numbers for `(places, batch * samples)` nodes.

    Returns:
        The trees, and `(batch, samples, places)` log weight of all that each node of three words
        or more may do, in nats; elsewhere without meaning.
    """
    (batch, samples), lengths, n = roots.shape, choices.lengths, choices.max_length
    count, places, draws = batch * samples, n - 1, TableDraws(choices)
    trees = torch.arange(count, device=roots.device)
    row = trees.div(samples, rounding_mode="floor")
    following = 1 - torch.arange(2, device=roots.device)[:, None]
    nothing = roots.new_zeros(2, count)
    # left, right, split, label of each place; one more takes what is no node
    table = roots.new_zeros(4, (places + 1) * count)
    table[1, :count] = torch.where(lengths > 1, lengths, 0).repeat_interleave(samples)
    table[3, :count] = roots.flatten()
    norms = lots.split.new_zeros(places, count)
    for place in range(places):
        left, right, split, label = table[:, place * count : (place + 1) * count]
        following_word = (left + 1).minimum(right)
        if place == places - 1:  # two words at most
            split.copy_(following_word)
            break
        # what is no node is taken for one of two words
        nodes = Nodes(trees, row, left, right.maximum(left + 2), label)
        drawn = draws.draw(nodes, n - place, lots[place])
        norms[place] = drawn.norms
        middle = torch.where(right - left > 2, drawn.middle, following_word)
        split.copy_(middle)
        begin, end = torch.stack([left, middle]), torch.stack([middle, right])
        # the left child stands next, the right one behind the left one's nodes
        below = torch.where(end - begin > 1, begin - left + (place + following), places)
        found = torch.stack([begin, end, nothing, torch.stack([drawn.first, drawn.second])])
        below = below * count + trees
        table.index_copy_(1, below.flatten(), found.flatten(1))
    shape = (batch, samples, places)
    parts = table.view(4, places + 1, count)[:, :places].transpose(1, 2).contiguous()
    made = Trees(*(part.view(shape) for part in parts), lengths[:, None].expand(batch, samples))
    return made, norms.T.reshape(shape)


def padded_norms(choices: RuleChoices, trees: Trees) -> Tensor:
    """`(batch, samples, nodes)` log weight of all that each node may do; of narrow ones 0.

    Differentiable. Groups of nodes by width are told by their places.
    """
    batch, samples, places = trees.left.shape
    count, size = places - 1, batch * samples  # a node at the last place has two words
    if count < 1:
        return choices.root().new_zeros(trees.left.shape)
    row = torch.arange(size * count, device=trees.left.device)
    row = (row % size).div(samples, rounding_mode="floor")
    left, right, label = (
        part.flatten(0, 1).T[:count].flatten() for part in (trees.left, trees.right, trees.label)
    )
    wide = right - left > 2  # what has fewer words is weighed as the first three of its sentence
    nodes = Nodes(row, row, torch.where(wide, left, 0), torch.where(wide, right, 3), label)
    starts = sorted({count * group // _GROUPS for group in range(_GROUPS)})
    groups = [
        ((end - start) * size, places + 1 - start)
        for start, end in zip(starts, [*starts[1:], count], strict=True)
    ]
    norms = torch.where(wide, choices.options(nodes, groups).scores.logsumexp(-1), 0.0)
    return pad(norms.view(count, size).T, (0, 1)).reshape(batch, samples, places)

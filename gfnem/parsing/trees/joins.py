"""A recursive network that reads trees from the words upwards."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import embedding

from gfnem.parsing.trees.heights import by_height
from gfnem.parsing.trees.trees import Trees


class Joins(nn.Linear):
    """A vector for each node, made of those of its children.

    It is a gated mixture of both and of a new one (as in Tai et al. 2015, arXiv 1503.00075, but
    with gates that sum to 1, so that vectors stay within -1 and 1 however high the tree).

    Args:
        dim: size of the vectors.
    """

    def __init__(self, dim: int):
        super().__init__(2 * dim, 4 * dim)

    def join(self, first: Tensor, second: Tensor) -> Tensor:
        """`(..., dim)` from the vectors of both children."""
        joined = self(torch.cat([first, second], -1)).unflatten(-1, (4, -1))
        gates = joined[..., :3, :].softmax(-2)
        new = joined[..., 3, :].tanh()
        return gates[..., 0, :] * first + gates[..., 1, :] * second + gates[..., 2, :] * new

    def read(self, trees: Trees, words: Tensor) -> tuple[Tensor, Tensor]:
        """Vectors of all nodes, those of a height at once.

        Args:
            trees: the trees.
            words: `(batch, n, dim)` within -1 and 1; an axis of size 1 serves all sentences or all
                places.

        Returns:
            `(rows, dim)` vectors, those of `words` first, and `(batch, samples, nodes)` int64 the
            row of each node; 0 past a tree's nodes.
        """
        sentences, places = words.shape[:2]
        known, count = words.flatten(0, 1), sentences * places
        levels, place = by_height(trees)
        of_sentence = max(trees.left.shape[1] * trees.left.shape[2], 1)
        for level in levels:
            row = level.slot.div(of_sentence, rounding_mode="floor") if sentences > 1 else 0
            children = []
            for child, begin in ((level.first, trees.left), (level.second, trees.split)):
                leaf = row * places + (begin.flatten()[level.slot] if places > 1 else 0)
                children.append(embedding(torch.where(child < 0, leaf, count + child), known))
            known = torch.cat([known, self.join(*children)])
        return known, torch.where(place < 0, 0, count + place)

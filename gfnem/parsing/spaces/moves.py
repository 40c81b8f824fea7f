"""Random rotations and relabelings of trees."""

from __future__ import annotations

from typing import Annotated

import torch
from torch import Tensor

from gfnem.mcmc import LocalMoves
from gfnem.parsing.inference.nodes import Nodes, grow_trees
from gfnem.parsing.text.sentences import Sentences
from gfnem.parsing.trees.trees import Trees
from gfnem.ranges import Count, Range


class TreeMoves(LocalMoves[Sentences, Trees]):
    """Proposes a rotated or a relabelled tree (the Monte Carlo EM of Hu et al. 2023, section 5).

    A rotation picks a node below the root and joins the three parts that it and its parent divide
    the parent's span into the other way round; the node's label is drawn anew. A relabeling picks
    a node and draws its label. All draws are uniform, so every proposal is as likely as its
    reverse. A tree of one word has no neighbour, one of two words none by rotation.

    Args:
        nonterminals: how many labels there are.
        rotations: share of proposals that are rotations.
    """

    def __init__(
        self, nonterminals: Count, rotations: Annotated[float, Range(above=0, high=1)] = 0.5
    ):
        self.nonterminals, self.rotations = nonterminals, rotations

    def initial(self, x: Sentences, samples: int) -> Trees:
        """Trees whose splits and labels are drawn uniformly, node by node."""
        device = x.lengths.device

        def label(like: Tensor) -> Tensor:
            return torch.randint(self.nonterminals, like.shape, device=device)

        def split(nodes: Nodes) -> tuple[Tensor, Tensor, Tensor]:
            places = nodes.right - nodes.left - 1
            at = nodes.left + 1 + (torch.rand(len(places), device=device) * places).long()
            return torch.minimum(at, nodes.right - 1), label(at), label(at)

        roots = label(x.lengths[:, None].expand(-1, samples))
        return grow_trees(x.lengths, x.max_length, roots, split)

    def propose(self, x: Sentences, z: Trees) -> tuple[Trees, Tensor]:
        """A neighbour of each tree; the log ratio is 0, or -inf where there is none."""
        batch, samples, nodes = z.left.shape
        device = z.left.device
        count = z.lengths - 1  # nodes of each tree
        nowhere = torch.where(count > 0, 0.0, -torch.inf)
        if nodes == 0:
            return z, nowhere
        rotate = (torch.rand(batch, samples, device=device) < self.rotations) & (count > 1)
        first = rotate.long()  # the root cannot be rotated
        node = first + (torch.rand(batch, samples, device=device) * (count - first)).long()
        node = torch.minimum(node, (count - 1).clamp(min=0)).unsqueeze(2)
        index = torch.arange(nodes, device=device)
        label = torch.randint(self.nonterminals, node.shape, device=device)
        label = torch.where((index == node) & (count > 0).unsqueeze(2), label, z.label)
        turned = self._rotated(z, node)
        old = (z.left, z.right, z.split)
        parts = [
            torch.where(rotate.unsqueeze(2), new, kept)
            for new, kept in zip(turned, old, strict=True)
        ]
        # back into preorder: by left end, wider spans first, padding last
        key = parts[0] * (nodes + 2) - parts[1]
        order = key.masked_fill(~z.mask(), (nodes + 2) ** 2).argsort(2)
        parts = [part.gather(2, order) for part in (*parts, label)]
        return Trees(*parts, z.lengths), nowhere

    @staticmethod
    def _rotated(z: Trees, node: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Left ends, right ends and splits with `node` `(batch, samples, 1)` rotated."""
        index = torch.arange(z.left.shape[2], device=z.left.device)
        is_left, is_right = ((child == node) & z.mask() for child in z.child_index())
        parent = (is_left | is_right).long().argmax(2, keepdim=True)
        from_left = is_left.any(2, keepdim=True)
        left, right, middle = (part.gather(2, parent) for part in (z.left, z.right, z.split))
        cut = z.split.gather(2, node)
        here = index == node
        return (
            torch.where(here, torch.where(from_left, cut, left), z.left),
            torch.where(here, torch.where(from_left, right, cut), z.right),
            torch.where(here, middle, torch.where(index == parent, cut, z.split)),
        )

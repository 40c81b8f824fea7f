"""A batch of labelled binary trees as tensors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from nltk import Tree
from torch import Tensor
from torch.nn.functional import pad

from gfnem.batched import Batched


@dataclass
class Trees(Batched):
    """Binary trees over sentences: the latent `z` of the parsing domain.

    A tree over `n` words has `n - 1` internal nodes, listed in *preorder* (parent, left subtree,
    right subtree). Leaves carry no label: preterminals are summed out. In preorder the children
    need no pointers: node `m` with span `[left, right)` and split point `split` has its left child
    at `m + 1` and its right child at `m + split - left` (see `child_index`); a child of one word is
    a leaf and has no node.

    Attributes:
        left, right: `(batch, samples, nodes)` int64, the span `[left, right)` in tokens.
        split: `(batch, samples, nodes)` int64; children are `[left, split)` and `[split, right)`.
        label: `(batch, samples, nodes)` int64 nonterminal indices.
        lengths: `(batch, samples)` int64 sentence lengths in tokens, the same for all of a row.

    `nodes` is the batch's longest length minus one; entries past a tree's own nodes are 0 and are
    excluded by `mask`.
    """

    left: Tensor
    right: Tensor
    split: Tensor
    label: Tensor
    lengths: Tensor

    @property
    def samples(self) -> int:
        """Trees per sentence."""
        return self.left.shape[1]

    def mask(self) -> Tensor:
        """`(batch, samples, nodes)` bool: which entries are nodes of the tree."""
        nodes = torch.arange(self.left.shape[2], device=self.left.device)
        return nodes < (self.lengths - 1).unsqueeze(2)

    def resized(self, nodes: int | None = None) -> Trees:
        """The same trees with room for so many nodes, or for those of the longest if None."""
        nodes = max(int(self.lengths.max()) - 1, 0) if nodes is None else nodes
        size = (0, nodes - self.left.shape[2])
        parts = (pad(part, size) for part in (self.left, self.right, self.split, self.label))
        return Trees(*parts, self.lengths)

    def child_index(self) -> tuple[Tensor, Tensor]:
        """Where each node's children stand, two `(batch, samples, nodes)` int64; -1 for a leaf."""
        nodes = torch.arange(self.left.shape[2], device=self.left.device)
        first = torch.where(self.split - self.left > 1, nodes + 1, -1)
        second = torch.where(self.right - self.split > 1, nodes + self.split - self.left, -1)
        return first, second

    def child_labels(self) -> tuple[Tensor, Tensor]:
        """The labels of both children, two `(batch, samples, nodes)` int64; -1 for a leaf."""
        first, second = self.child_index()
        labels = [
            torch.where(index < 0, -1, self.label.gather(2, index.clamp(min=0)))
            for index in (first, second)
        ]
        return labels[0], labels[1]

    def spans(self, row: int, sample: int = 0) -> list[tuple[int, int, int]]:
        """One tree's nodes as `(left, right, label)` in preorder."""
        count = int(self.lengths[row, sample]) - 1
        return [
            tuple(entry)
            for entry in torch.stack(
                [t[row, sample, :count] for t in (self.left, self.right, self.label)], -1
            ).tolist()
        ]

    def to_nltk(
        self, row: int, words: Sequence[str], labels: Sequence[str], sample: int = 0, top="TOP"
    ) -> Tree:
        """One tree as an `nltk.Tree` whose leaves are `words`.

        Args:
            row, sample: which tree.
            words: the sentence, `lengths[row]` strings.
            labels: the name of each nonterminal index.
            top: the label put above a one-word sentence, which has no node of its own.
        """
        if len(words) == 1:
            return Tree(top, [words[0]])
        nodes = self.spans(row, sample)
        splits = self.split[row, sample].tolist()

        # from the last node to the first: children come behind their parent, and are there already
        built: list[Tree] = []
        for node in range(len(nodes) - 1, -1, -1):
            left, right, label = nodes[node]
            split = splits[node]
            first = words[left] if split - left == 1 else built[-1]
            second = words[split] if right - split == 1 else built[-(split - left)]
            built.append(Tree(labels[label], [first, second]))
        return built[-1]

    @classmethod
    def from_nodes(cls, trees: Sequence[Sequence[Sequence[tuple[int, int, int, int]]]], lengths):
        """Builds a batch from lists: `trees[row][sample]` lists `(left, right, split, label)`.

        Nodes may come in any order; they are put into preorder. `lengths` is `(batch,)`.

        Raises:
            ValueError: if a tree does not have `length - 1` nodes.
        """
        lengths = torch.as_tensor(lengths)
        nodes = max(int(lengths.max()) - 1, 0)
        table = torch.zeros(4, len(trees), len(trees[0]), nodes, dtype=torch.long, device="cpu")
        for row, samples in enumerate(trees):
            for sample, tree in enumerate(samples):
                if len(tree) != int(lengths[row]) - 1:
                    raise ValueError(
                        f"tree {row},{sample} has {len(tree)} nodes for {int(lengths[row])} words"
                    )
                ordered = sorted(tree, key=lambda node: (node[0], -node[1]))
                if ordered:
                    table[:, row, sample, : len(ordered)] = torch.tensor(ordered, device="cpu").T
        return cls(*table.to(lengths.device), lengths[:, None].expand(table.shape[1:3]))

"""Heights of nodes and different subtrees, against a recursion over each tree."""

import pytest
import torch

from gfnem.parsing.spaces.moves import TreeMoves
from gfnem.parsing.text.sentences import Sentences
from gfnem.parsing.trees.heights import by_height, different_subtrees
from gfnem.parsing.trees.trees import Trees


def trees_of(lengths: list[int], samples: int = 12) -> Trees:
    torch.manual_seed(len(lengths))
    lengths = torch.tensor(lengths)
    x = Sentences(torch.ones(len(lengths), int(lengths.max()), dtype=torch.long), lengths)
    trees = TreeMoves(3).initial(x, samples)
    trees.label[:, 1::2] = 0  # labels are of no matter
    return trees


def told(trees: Trees) -> dict[tuple[int, int, int], tuple[int, frozenset, tuple]]:
    """Of each node its height, its sentence with its spans, and those of both children."""
    found = {}
    for row, sample in torch.cartesian_prod(*map(torch.arange, trees.left.shape[:2])).tolist():
        nodes = [
            tuple(int(part[row, sample, node]) for part in (trees.left, trees.right, trees.split))
            for node in range(int(trees.lengths[row, sample]) - 1)
        ]
        at = {(left, right): node for node, (left, right, _) in enumerate(nodes)}

        def go(left: int, right: int, row=row, sample=sample, nodes=nodes, at=at):
            if right - left == 1:
                return -1, None
            node = at[left, right]
            split = nodes[node][2]
            below = go(left, split), go(split, right)
            spans = {(row, left, right)}.union(*(part[1] or () for part in below))
            height = 1 + max(part[0] for part in below)
            found[row, sample, node] = height, frozenset(spans), tuple(part[1] for part in below)
            return height, frozenset(spans)

        go(0, int(trees.lengths[row, sample]))
    return found


LENGTHS = pytest.mark.parametrize("lengths", [[1], [2], [1, 3], [7, 1, 2, 6, 3], [9] * 4])


@LENGTHS
def test_different_subtrees(lengths):
    trees = trees_of(lengths)
    different, nodes = different_subtrees(trees), told(trees)
    assert (different.place >= 0).sum() == len(nodes)
    place = {spans: int(different.place[node]) for node, (_, spans, _) in nodes.items()}
    assert sorted(place.values()) == list(range(len(different.slot)))  # no two are taken for one
    shape = trees.left.shape
    heights = []
    for at, slot in enumerate(different.slot.tolist()):
        node = tuple(int(i) for i in torch.unravel_index(torch.tensor(slot), shape))
        height, spans, (first, second) = nodes[node]
        heights.append((height, 0 if height == 0 or first is None else 1 if second is None else 2))
        assert place[spans] == at
        children = place.get(first, -1), place.get(second, -1)
        assert (int(different.first[at]), int(different.second[at])) == children
    for node, (_, spans, _) in nodes.items():
        assert int(different.place[node]) == place[spans]
    assert heights == sorted(heights)
    sizes = [[heights.count((height, kind)) for kind in range(3)] for height in range(8)]
    assert different.sizes == [size for size in sizes if sum(size)]


@LENGTHS
def test_by_height(lengths):
    trees = trees_of(lengths)
    levels, place = by_height(trees)
    nodes, start = told(trees), 0
    for height, level in enumerate(levels):
        here = [node for node, (found, _, _) in nodes.items() if found == height]
        assert sorted(int(place[node]) for node in here) == list(
            range(start, start + len(level.slot))
        )
        start += len(level.slot)
    assert start == len(nodes)

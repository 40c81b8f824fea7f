"""Trees as deep as their sentence is long."""

import random

import pytest
import torch
from nltk import Tree

from gfnem.parsing import Trees
from gfnem.parsing.trees.drawing import bracket


def chain(length: int, right: bool) -> Trees:
    nodes = [
        (left, length, left + 1, 0) if right else (0, length - left, length - left - 1, 0)
        for left in range(length - 1)
    ]
    return Trees.from_nodes([[nodes]], [length])


@pytest.mark.parametrize("right", [True, False])
def test_a_tree_of_1200_words_is_made_and_printed(right):
    words = [f"w{place}" for place in range(1200)]
    line = bracket(chain(1200, right).to_nltk(0, words, ["X"]))
    opening = "(X w0 (X w1 (X w2 " if right else "(X (X (X "
    assert line.startswith(opening) and line.count("(X ") == 1199
    assert [word.strip("()") for word in line.split() if word.startswith("w")] == words


def test_any_tree_has_its_own_spans():
    rng = random.Random(0)
    for length in [2, 3, 5, 9, 20]:
        nodes, todo = [], [(0, length)]
        while todo:
            left, right = todo.pop()
            if right - left > 1:
                split = rng.randint(left + 1, right - 1)
                nodes.append((left, right, split, left % 2))
                todo += [(left, split), (split, right)]
        words = [str(place) for place in range(length)]
        tree = Trees.from_nodes([[nodes]], torch.tensor([length])).to_nltk(0, words, ["A", "B"])
        found = {(int(t.leaves()[0]), int(t.leaves()[-1]) + 1, t.label()) for t in tree.subtrees()}
        assert found == {(left, right, "AB"[label]) for left, right, _, label in nodes}
        assert tree.leaves() == words and all(isinstance(t, Tree) for t in tree.subtrees())

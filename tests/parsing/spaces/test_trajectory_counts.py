"""How many trajectories lead to a tree, in closed form."""

import pytest
import torch

from gfnem.enumeration import enumerate_states
from gfnem.parsing import ForestSpace, Sentences, TopDownSpace


@pytest.mark.parametrize("length", [3, 5])
def test_bottom_up_forests_have_the_linear_extensions_of_their_trees(length):
    # k inner nodes are made in k! orders, of which those put children first: the hook formula
    graph = enumerate_states(ForestSpace(1), Sentences.from_lists([[1] * length]))
    trees = graph.latents()
    sizes = torch.where(trees.mask(), trees.right - trees.left - 1, 1).double()
    expected = torch.tensor(float(length)).double().lgamma() - sizes.log().sum(2)[0]
    assert torch.allclose(graph.log_counts()[graph.ends], expected)
    assert len(graph.ends) == {3: 2, 5: 14}[length]  # Catalan


def test_top_down_trees_have_one():
    graph = enumerate_states(TopDownSpace(2), Sentences.from_lists([[1, 2, 3, 4]]))
    assert graph.log_counts().abs().max() < 1e-12

"""The top-down policy of parent-conditioned grammars, against every tree of short sentences."""

import pytest
import torch
from brute import all_trees
from test_exact_posterior import LABELS, SENTENCES, WORDS, compare, e_train
from test_tree_flows import OBJECTIVES, objective_loss
from test_tree_spaces import TestTopDown as TopDownCase
from test_tree_spaces import shake

from gfnem.objectives import TrajectoryBalance, VarGrad
from gfnem.parsing import NeuralParentPCFG, NeuralPCFG, Sentences, TopDownPolicy, TopDownSpace
from gfnem.parsing.parent_descent import ParentChoices
from gfnem.parsing.parent_inside import parent_inside
from gfnem.space import Trajectories, concatenate
from gfnem.testing import enumerate_trajectories

SPACE = TopDownSpace(LABELS)


class SharpParentPCFG(NeuralParentPCFG):
    """Rule probabilities far from uniform and far from each other under different parents."""

    def tables(self):
        root, rules, emissions = super().tables()
        return (
            (root * 4).log_softmax(0),
            (rules * 8).flatten(2).log_softmax(2).view_as(rules),
            (emissions * 6).log_softmax(2),
        )


def model() -> SharpParentPCFG:
    torch.manual_seed(0)
    return SharpParentPCFG(WORDS, LABELS, 3, dim=16)


def policy(**settings) -> TopDownPolicy:
    return TopDownPolicy(WORDS, LABELS, parent_conditioned=True, **settings)


@pytest.mark.parametrize("objective", [VarGrad(), TrajectoryBalance()], ids=["vargrad", "tb"])
def test_the_sampler_becomes_the_posterior(objective):
    grammar, sampler = model(), policy(dim=32)
    x = Sentences.from_lists(SENTENCES)
    before = compare(sampler, SPACE, grammar, x, 3)["distance"]
    e_train(sampler, SPACE, grammar, x, objective, 500)
    name = "learned_log_z" if isinstance(objective, TrajectoryBalance) else "vargrad_log_z"
    for row in range(len(x)):
        result = compare(sampler, SPACE, grammar, x, row)
        assert result["distance"] <= 0.02, result
        assert abs(result[name]) <= 0.01, result
        assert abs(result["exact"]) < 1e-4, result
    assert before > 0.05

"""After E-training against a fixed grammar the sampler is the exact posterior, all trees listed."""

import pytest
import torch
from sharp_grammar import LABELS, SENTENCES, WORDS, SharpPCFG, compare, e_train

from gfnem.objectives import BalancedVarGrad, TrajectoryBalance, VarGrad
from gfnem.parsing import (
    ForestPolicy,
    ForestSpace,
    Sentences,
    TopDownPolicy,
    TopDownSpace,
)

SPACES = {"down": TopDownSpace(LABELS), "up": ForestSpace(LABELS)}
LOSSES = {"vargrad": VarGrad(), "tb": TrajectoryBalance(), "balanced": BalancedVarGrad()}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("space", "objective", "prior"),
    [
        pytest.param(SPACES[space], LOSSES[loss], prior, id=f"{space}-{loss}-{prior}")
        # these take long: each loss and each kind of policy once for a space
        for space, loss, prior in (
            *(("down", loss, True) for loss in LOSSES),
            *(("down", "vargrad", False), ("up", "tb", True), ("up", "vargrad", False)),
        )
    ],
)
def test_the_sampler_becomes_the_posterior(space, objective, prior):
    torch.manual_seed(0)
    model = SharpPCFG(WORDS, LABELS, 3, dim=16)
    # bottom-up, a sentence of five words has 5,376 trajectories: four are enough
    x = Sentences.from_lists(SENTENCES if space.unique_trajectory else SENTENCES[:3])
    policy_class = TopDownPolicy if space.unique_trajectory else ForestPolicy
    policy = policy_class(WORDS, LABELS, dim=32, use_prior=prior).eval()  # no dropout
    before = compare(policy, space, model, x, 1)["distance"]
    updates = 200 if space.unique_trajectory else 300
    if space.unique_trajectory and not prior:  # without the grammar's help it takes longer
        updates = 1200
    e_train(policy, space, model, x, objective, updates)
    # what the objective takes log Z(x) to be: the mean log weight, or what was learned
    name = "learned_log_z" if isinstance(objective, TrajectoryBalance) else "vargrad_log_z"
    for row in range(len(x)):
        result = compare(policy, space, model, x, row)
        assert result["distance"] <= 0.02, result
        assert abs(result[name]) <= 0.01, result
        assert abs(result["exact"]) < 1e-4, result
    assert before > 0.05  # there was something to learn


class TiltedPCFG(SharpPCFG):
    """Not a grammar any more: spans of two words would rather have the first label."""

    additive = False

    def log_joint(self, x, z):
        pairs = (z.right - z.left == 2) & z.mask()
        return super().log_joint(x, z) + (3.0 * (z.label == 0) * pairs).sum(2)


@pytest.mark.slow
def test_more_than_the_rules_can_be_learned_everywhere():
    torch.manual_seed(0)
    model = TiltedPCFG(WORDS, LABELS, 3, dim=16)
    x = Sentences.from_lists(SENTENCES)
    policy = TopDownPolicy(WORDS, LABELS, dim=32).eval()
    before = compare(policy, TopDownSpace(LABELS), model, x, 1)["distance"]
    e_train(policy, TopDownSpace(LABELS), model, x, VarGrad(), 300)
    for row in range(len(x)):
        assert compare(policy, TopDownSpace(LABELS), model, x, row)["distance"] <= 0.03
    assert before > 0.5

"""A top-down policy for targets that offer no rules: its words, its flows."""

import pytest
import torch

from gfnem.enumeration import enumerate_trajectories
from gfnem.errors import UserError
from gfnem.objectives import BalancedVarGrad, VarGrad
from gfnem.parsing import RNNG, ForestPolicy, ForestSpace, Sentences, TopDownPolicy, TopDownSpace

WORDS, LABELS = 9, 2


def sentences() -> Sentences:
    return Sentences.from_lists([[1, 2, 3, 8], [7, 3, 2, 6]])


def shaken(policy):
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter.normal_(std=0.5)
    return policy.eval()


def scored(policy, space, flows=False):
    x = sentences()
    found = enumerate_trajectories(space, x).trajectories
    with torch.no_grad():
        return policy.score(policy.encode(x), space, found, flows)


def test_word_scores_move_log_z_and_not_the_trees():
    policy, space = shaken(TopDownPolicy(WORDS, LABELS, dim=8)), TopDownSpace(LABELS)
    before = scored(policy, space)
    x = sentences()
    by_word = torch.randn(WORDS) * 5
    with torch.no_grad():
        policy.word_score.weight += by_word[:, None]
    after = scored(policy, space)
    assert torch.allclose(before.log_pf, after.log_pf, atol=1e-4)
    moved = by_word[x.tokens].sum(1)
    assert torch.allclose(after.log_z - before.log_z, moved, atol=1e-4)


def test_flows_balance_where_nothing_is_chosen():
    """Two words have one tree under a label: what it is worth does not change."""
    policy, space = shaken(TopDownPolicy(WORDS, LABELS, dim=8)), TopDownSpace(LABELS)
    x = sentences()
    trees = enumerate_trajectories(space, x).trajectories.latent
    flow = scored(policy, space, flows=True).log_flow
    pairs = (trees.right - trees.left == 2) & trees.mask()
    gain = flow.diff(dim=2)[:, :, 1:]  # the root's label comes first
    assert pairs.any() and gain[~pairs].abs().max() > 0.1
    assert gain[pairs].abs().max() < 1e-4


def test_a_new_policy_takes_words_for_uniform():
    policy, x = TopDownPolicy(WORDS, LABELS, dim=8).eval(), sentences()
    per_word = policy.log_z(policy.encode(x)) / x.lengths
    assert (per_word.detach() + torch.log(torch.tensor(float(WORDS)))).abs().max() < 1.0


@pytest.mark.parametrize("space", [TopDownSpace(LABELS), ForestSpace(LABELS)], ids=["down", "up"])
def test_flows_that_know_nothing_of_the_target_are_left_alone(space):
    policy = TopDownPolicy if space.unique_trajectory else ForestPolicy
    scores = scored(shaken(policy(WORDS, LABELS, dim=8)), space, flows=True)
    log_reward = torch.randn(scores.log_pf.shape[:2]) - 100
    loss = BalancedVarGrad()(scores, log_reward)
    torch.testing.assert_close(loss, VarGrad()(scores, log_reward))


def test_a_recursion_over_rules_that_there_are_not_is_refused():
    policy = TopDownPolicy(WORDS, LABELS, dim=8, recursion=2)
    with pytest.raises(UserError, match="RNNG has none: leave it out"):
        policy.serve(RNNG(WORDS, dim=8))

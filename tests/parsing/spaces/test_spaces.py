"""Both tree spaces and their policies, by the shipped test case."""

from math import factorial

import pytest
import torch
from brute import all_trees, keys
from tree_space_cases import (
    LABELS,
    LENGTHS,
    WORDS,
    TestTopDown,  # noqa: F401  collected here
    TreeSpaceCase,
    shake,
)

from gfnem.parsing.grammars.neural_pcfg import NeuralPCFG
from gfnem.parsing.policies.forest import ForestPolicy
from gfnem.parsing.policies.topdown import TopDownPolicy
from gfnem.parsing.spaces.forest import ForestSpace
from gfnem.parsing.spaces.topdown import TopDownSpace
from gfnem.parsing.text.sentences import Sentences


class TestForest(TreeSpaceCase):
    def make_space(self):
        return ForestSpace(LABELS)

    def make_policy(self):
        return shake(ForestPolicy(WORDS, LABELS, dim=8))

    def count_trajectories(self, row):
        # every order of the n - 1 gaps is a trajectory, each node may have any label
        n = LENGTHS[row]
        return factorial(n - 1) * LABELS ** (n - 1)


@pytest.mark.parametrize("space", [TopDownSpace(LABELS), ForestSpace(LABELS)])
@pytest.mark.parametrize("n", [1, 2, 5])
def test_every_tree_survives_the_way_through_its_final_state(space, n):
    trees = all_trees(n, LABELS)
    x = Sentences(torch.zeros(1, n, dtype=torch.long), torch.tensor([n]))
    back = space.to_latent(x, space.final_state(x, trees))
    assert keys(back) == keys(trees)


@pytest.mark.parametrize("prior", [True, False])
@pytest.mark.parametrize("policy_class", [TopDownPolicy, ForestPolicy])
def test_a_padded_batch_equals_one_by_one_with_the_grammars_weights(policy_class, prior):
    torch.manual_seed(0)
    model = NeuralPCFG(WORDS, LABELS, 3, dim=8)
    policy = shake(policy_class(WORDS, LABELS, dim=8, use_prior=prior))
    space = TopDownSpace(LABELS) if policy_class is TopDownPolicy else ForestSpace(LABELS)
    x = Sentences.from_lists([[1, 2, 3, 4, 5], [2], [3, 1], [5, 5, 1]])
    context = policy.encode(x, model.given(x))
    trajectories = policy.sample(context, x, space, 3)
    torch.manual_seed(1)
    together = policy.retrace(context, x, space, trajectories.latent)
    scores = policy.score(context, space, together)
    for row in range(len(x)):
        alone = x[torch.tensor([row])]
        part = trajectories.latent[row : row + 1].resized()
        own = policy.encode(alone, model.given(alone))
        assert torch.allclose(policy.log_z(own), policy.log_z(context)[row], atol=1e-4)
        if space.unique_trajectory:
            again = policy.score(own, space, policy.retrace(own, alone, space, part))
            assert torch.allclose(again.log_pf.sum(2), scores.log_pf.sum(2)[row], atol=1e-4)
            continue
        # replay the very same trajectories in the unpadded batch
        steps = alone.max_length - 1
        late = together.mask[row].float().argmax(1)[0] if steps else 0
        states = [space.initial_state(alone, 3)]
        actions = together.actions[row, :, late : late + steps]
        log_pf = torch.zeros(1, 3)
        for step in range(steps):
            allowed = space.forward_mask(states[-1])
            weights = policy(own, states[-1]).forward.masked_fill(~allowed, -torch.inf)
            action = actions[None, :, step]
            log_pf += weights.log_softmax(2).gather(2, action.unsqueeze(2)).squeeze(2)
            states.append(space.step(states[-1], action))
        assert torch.allclose(log_pf, scores.log_pf.sum(2)[row], atol=1e-4)

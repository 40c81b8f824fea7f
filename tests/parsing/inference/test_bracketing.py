"""Labels summed out of a bracketing, against listing them."""

import torch
from brute import all_trees, random_tables

from gfnem.parsing.inference.bracketing import bracketing_log_joint
from gfnem.parsing.inference.draws import sample_trees
from gfnem.parsing.inference.inside import inside
from gfnem.parsing.inference.log_joint import tree_log_joint
from gfnem.parsing.inference.rule_potentials import RulePotentials


def test_it_is_the_sum_over_labels():
    for n in (1, 2, 3, 5):
        potentials = RulePotentials.from_tables(*random_tables(lengths=(n,), seed=n))
        trees = all_trees(n, 2)
        joint = tree_log_joint(potentials, trees).sum(2)[0]
        summed = bracketing_log_joint(potentials, trees)[0]
        splits = [tuple(split) for split in trees.split[0].tolist()]
        for split in set(splits):
            same = torch.tensor([other == split for other in splits])
            expected = joint[same].logsumexp(0)
            assert torch.allclose(summed[same], expected.expand(int(same.sum())), atol=1e-6)


def test_a_padded_batch_equals_one_by_one_and_gradients_agree():
    tables = random_tables(labels=3, lengths=(7, 1, 4, 2), seed=3, absent=0.0)
    leaves = [table.requires_grad_() for table in tables[:3]]
    potentials = RulePotentials.from_tables(*leaves, tables[3])
    torch.manual_seed(0)
    trees, _ = sample_trees(potentials, inside(potentials).detach(), 3)
    together = bracketing_log_joint(potentials, trees)
    gradient = torch.autograd.grad(together.sum(), leaves[:2])
    apart = 0
    for row, n in enumerate(tables[3].tolist()):
        one = RulePotentials.from_tables(
            leaves[0], leaves[1], leaves[2][row : row + 1, :n], tables[3][row : row + 1]
        )
        alone = bracketing_log_joint(one, trees[row : row + 1].resized())
        assert torch.allclose(alone[0], together[row], atol=1e-8)
        apart = apart + alone.sum()
    for ours, theirs in zip(gradient, torch.autograd.grad(apart, leaves[:2]), strict=True):
        assert torch.allclose(ours, theirs, atol=1e-8)
        assert ours.isfinite().all()

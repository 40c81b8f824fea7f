"""Parent-conditioned grammars: exact inference against every tree of short sentences."""

import pytest
import torch
from brute import all_trees, keys, random_tables

from gfnem.parsing import NeuralParentPCFG, Sentences, Trees
from gfnem.parsing.inference.inside import log_partition
from gfnem.parsing.inference.parent_bracketing import parent_bracketing_log_joint
from gfnem.parsing.inference.parent_inside import (
    parent_log_partition,
    parent_span_marginals,
    parent_viterbi,
)
from gfnem.parsing.inference.parent_potentials import ParentPotentials
from gfnem.parsing.inference.parent_rule_choices import parent_sample, parent_tree_log_joint
from gfnem.parsing.inference.potentials import RulePotentials
from gfnem.testing import TargetTestCase

LABELS, PRETERMINALS = 2, 3


def random_parent_tables(lengths, seed=0, dtype=torch.float64):
    """Different random rules and emissions under each parent, the start symbol last."""
    drawn = [
        random_tables(LABELS, PRETERMINALS, lengths, 10 * seed + parent, dtype=dtype)
        for parent in range(LABELS + 1)
    ]
    rules = torch.stack([tables[1] for tables in drawn])
    emissions = torch.stack([tables[2] for tables in drawn], 2)
    return drawn[0][0], rules, emissions, torch.tensor(lengths)


def brute(trees, root, rules, emissions):
    """`(samples,)` log p(x, z), straight from the definition."""
    n, totals = int(trees.lengths[0]), []
    root, rules, words = root.exp(), rules.exp(), emissions[0].exp()
    for nodes in keys(trees):
        columns = [nodes[at * (n - 1) : (at + 1) * (n - 1)] for at in range(4)]
        chosen = {(i, j): (k, a) for i, j, k, a in zip(*columns, strict=True)}

        def symbols(i, j, parent, chosen=chosen):
            weights = torch.zeros(LABELS + PRETERMINALS, dtype=rules.dtype)
            if j - i == 1:
                weights[LABELS:] = words[i, parent]
            else:
                k, a = chosen[i, j]
                weights[a] = symbols(i, k, a) @ rules[parent, a] @ symbols(k, j, a)
            return weights

        totals.append(root @ symbols(0, n, LABELS))
    return torch.stack(totals).log()


@pytest.mark.parametrize("length", [1, 2, 3, 4, 5])
def test_exact_inference_agrees_with_brute_force(length):
    tables = random_parent_tables((length,), seed=length)
    potentials = ParentPotentials.from_tables(*tables)
    trees = all_trees(length, LABELS)
    joint = brute(trees, *tables[:3])
    mine = parent_tree_log_joint(potentials, trees).sum(-1)[0]
    possible = joint > -torch.inf
    torch.testing.assert_close(mine[possible], joint[possible])
    assert (mine[~possible] < -5000).all()
    torch.testing.assert_close(parent_log_partition(potentials)[0], joint.logsumexp(0))
    best, score = parent_viterbi(potentials)
    torch.testing.assert_close(score[0], joint.max())
    assert keys(best)[0] == keys(trees)[int(joint.argmax())]
    expected = torch.zeros(length, length + 1, LABELS, dtype=torch.float64)
    place = (trees.left[0], trees.right[0], trees.label[0])
    posterior = joint.softmax(0)[:, None].expand_as(place[0])
    expected.index_put_(place, posterior, accumulate=True)
    torch.testing.assert_close(parent_span_marginals(potentials)[0], expected)


def test_draws_follow_the_posterior():
    torch.manual_seed(0)
    tables = random_parent_tables((5, 4), seed=3)
    trees, draws = all_trees(5, LABELS), 20_000
    drawn = keys(parent_sample(ParentPotentials.from_tables(*tables), draws))
    place = {key: at for at, key in enumerate(keys(trees))}
    counts = torch.bincount(torch.tensor([place[key] for key in drawn]), minlength=len(place))
    expected = draws * brute(trees, *tables[:2], tables[2][:1]).softmax(0)
    assert not counts[expected == 0].any()
    common = expected > 5
    rest = torch.stack([counts[~common].sum(), expected[~common].sum()])
    squares = ((counts - expected)[common] ** 2 / expected[common]).sum()
    squares += (rest[0] - rest[1]) ** 2 / rest[1].clamp(min=1)
    freedom = int(common.sum())
    assert freedom > 10
    assert squares < freedom + 5 * (2 * freedom) ** 0.5


def test_padded_batch_equals_one_by_one():
    lengths = (1, 2, 3, 4, 6)
    root, rules, emissions, sizes = random_parent_tables(lengths, dtype=torch.float32)
    batch = ParentPotentials.from_tables(root, rules, emissions, sizes)
    total, (best, score) = parent_log_partition(batch), parent_viterbi(batch)
    marginals = parent_span_marginals(batch)
    for row, n in enumerate(lengths):
        one = ParentPotentials.from_tables(
            root, rules, emissions[row : row + 1, :n], sizes[row : row + 1]
        )
        torch.testing.assert_close(total[row], parent_log_partition(one)[0])
        alone, alone_score = parent_viterbi(one)
        torch.testing.assert_close(score[row], alone_score[0])
        assert keys(best, row) == keys(alone)
        torch.testing.assert_close(marginals[row, :n, : n + 1], parent_span_marginals(one)[0])
        assert marginals[row].sum().item() == pytest.approx(n - 1, abs=1e-4)


def test_rules_that_ignore_the_parent_are_a_pcfg():
    root, rules, emissions, lengths = random_tables(3, 4, (9, 1, 5))
    plain = log_partition(RulePotentials.from_tables(root, rules, emissions, lengths))
    parents = rules.expand(4, -1, -1, -1), emissions[:, :, None].expand(-1, -1, 4, -1)
    ours = parent_log_partition(ParentPotentials.from_tables(root, *parents, lengths))
    torch.testing.assert_close(ours, plain)


def test_gradients_equal_finite_differences():
    torch.manual_seed(0)
    root, rules, emissions = torch.randn(4), torch.randn(3, 2, 4, 4), torch.randn(2, 5, 3, 2)
    tables = [table.double().requires_grad_() for table in (root, rules, emissions)]

    def total(*tables):
        return parent_log_partition(ParentPotentials.from_tables(*tables, torch.tensor([5, 4])))

    assert torch.autograd.gradcheck(total, tables)


class TestNeuralParentPCFG(TargetTestCase):
    frequency_samples = 2000

    def make_target(self):
        torch.manual_seed(2)
        return NeuralParentPCFG(6, LABELS, PRETERMINALS, dim=8)

    def make_x(self):
        return Sentences.from_lists([[1, 2, 3, 4], [5], [3, 1]])

    def make_latents(self, x):
        return self.make_target().sample_posterior(x, 30)

    def enumerate_latents(self, x):
        return all_trees(int(x.lengths[0]), LABELS)

    def take_latent(self, z, row):
        nodes = int(z.lengths[row]) - 1
        parts = (getattr(z, name)[row : row + 1, :, :nodes] for name in
                 ("left", "right", "split", "label"))  # fmt: skip
        return Trees(*parts, z.lengths[row : row + 1])


def test_collapsed_joint_is_the_sum_over_labels():
    for length in (1, 2, 3, 5):
        potentials = ParentPotentials.from_tables(*random_parent_tables((length,), seed=length))
        trees = all_trees(length, LABELS)
        joint = parent_tree_log_joint(potentials, trees).sum(2)[0]
        summed = parent_bracketing_log_joint(potentials, trees)[0]
        splits = [tuple(split) for split in trees.split[0].tolist()]
        for split in set(splits):
            same = torch.tensor([other == split for other in splits])
            expected = joint[same].logsumexp(0).expand(int(same.sum()))
            torch.testing.assert_close(summed[same], expected)


def test_collapsed_joint_of_a_padded_batch_and_its_gradient():
    """One by one the same; its posterior mean climbs as the marginal does."""
    torch.manual_seed(0)
    model = NeuralParentPCFG(6, LABELS, PRETERMINALS, dim=8).double()
    x = Sentences.from_lists([[1, 2, 3, 1, 5], [2], [3, 4], [1, 1, 1]])
    trees = model.sample_posterior(x, 7)
    together = model.collapsed_log_joint(x, trees)
    for row in range(len(x)):
        one = x.select(torch.tensor([row]))
        part = TestNeuralParentPCFG.take_latent(None, trees, row)
        torch.testing.assert_close(model.collapsed_log_joint(one, part)[0], together[row])
    one, trees = x.select(torch.tensor([0])), all_trees(5, LABELS)
    weight = model.log_joint(one, trees).detach().softmax(1)
    parameters = list(model.parameters())
    collapsed = (weight * model.collapsed_log_joint(one, trees)).sum()
    ours = torch.autograd.grad(collapsed, parameters)
    exact = torch.autograd.grad(model.log_marginal(one).sum(), parameters)
    for a, b in zip(ours, exact, strict=True):
        torch.testing.assert_close(a, b)


def test_weights_kept_through_an_update_are_the_same():
    torch.manual_seed(0)
    model = NeuralParentPCFG(6, LABELS, PRETERMINALS, dim=8).double()
    x = Sentences.from_lists([[1, 2, 3, 1], [4]])
    trees = model.sample_posterior(x, 3)
    parameters = list(model.parameters())

    def gradient():
        value = model.collapsed_log_joint(x, trees).sum() + model.log_joint(x, trees).sum()
        return torch.autograd.grad(value, parameters)

    apart = gradient()
    given = model.given(x)
    with torch.no_grad():
        assert given.potentials is given.potentials
        assert not given.potentials.both_leaves.requires_grad
        assert not given.log_joint(trees).requires_grad
    together = given.collapsed_log_joint(trees).sum() + given.log_joint(trees).sum()
    for a, b in zip(torch.autograd.grad(together, parameters), apart, strict=True):
        torch.testing.assert_close(a, b)

"""Rules under contexts: exact inference against every tree of short sentences."""

import pytest
import torch
from brute import all_trees, keys, random_tables

from gfnem.parsing import NeuralParentPCFG, NeuralPCFG, Sentences
from gfnem.parsing.inference.bracketing import bracketing_log_joint
from gfnem.parsing.inference.draws import sample_trees
from gfnem.parsing.inference.inside import inside, log_partition, span_marginals
from gfnem.parsing.inference.log_joint import tree_log_joint
from gfnem.parsing.inference.rule_potentials import RulePotentials
from gfnem.parsing.inference.viterbi import viterbi
from gfnem.testing import TargetTestCase

LABELS, PRETERMINALS = 2, 3
# labels and classes of parents: each label its own; two labels share a class; three labels do; one
# class, so that only the symbol at the top expands differently
KINDS = [(2, 2), (4, 2), (3, 1), (6, 2)]
LONGEST = {2: 5, 3: 5, 4: 5, 6: 3}
# log p(x) and the best tree's log p(x, z) of three sentences; sums of span posteriors of the first
SAVED = [
    [-43.514886517927, -4.944503339759, -27.126877767514],
    [-47.016456335513, -4.944503339759, -29.679243129250],
    [0.143404251370, 0.387855302594, 0.082105896908],
]


def random_context_tables(labels, classes, lengths, seed=0, dtype=torch.float64):
    """Different random rules and emissions under each context, that of the top last."""
    drawn = [
        random_tables(labels, PRETERMINALS, lengths, 10 * seed + context, dtype=dtype)
        for context in range(classes + 1)
    ]
    rules = torch.stack([tables[1] for tables in drawn])
    emissions = torch.stack([tables[2] for tables in drawn], 2)
    return drawn[0][0], rules, emissions, torch.tensor(lengths)


def random_parent_tables(lengths, seed=0, dtype=torch.float64):
    """The same where each label is a class of its own."""
    return random_context_tables(LABELS, LABELS, lengths, seed, dtype)


def brute(trees, root, rules, emissions):
    """`(samples,)` log p(x, z), straight from the definition."""
    n, totals = int(trees.lengths[0, 0]), []
    root, rules, words = root.exp(), rules.exp(), emissions[0].exp()
    labels, classes = rules.shape[1], len(rules) - 1
    for nodes in keys(trees):
        columns = [nodes[at * (n - 1) : (at + 1) * (n - 1)] for at in range(4)]
        chosen = {(i, j): (k, a) for i, j, k, a in zip(*columns, strict=True)}

        def symbols(i, j, context, chosen=chosen):
            weights = torch.zeros(labels + PRETERMINALS, dtype=rules.dtype)
            if j - i == 1:
                weights[labels:] = words[i, context]
            else:
                k, a = chosen[i, j]
                below = a * classes // labels
                weights[a] = symbols(i, k, below) @ rules[context, a] @ symbols(k, j, below)
            return weights

        totals.append(root @ symbols(0, n, classes))
    return torch.stack(totals).log()


@pytest.mark.parametrize(
    "length,labels,classes",
    [(n, *kind) for kind in KINDS for n in range(1, LONGEST[kind[0]] + 1)],
)
def test_exact_inference_agrees_with_brute_force(length, labels, classes):
    tables = random_context_tables(labels, classes, (length,), seed=length)
    potentials = RulePotentials.from_tables(*tables)
    trees = all_trees(length, labels)
    joint = brute(trees, *tables[:3])
    mine = tree_log_joint(potentials, trees).sum(-1)[0]
    possible = joint > -torch.inf
    torch.testing.assert_close(mine[possible], joint[possible])
    assert (mine[~possible] < -5000).all()
    torch.testing.assert_close(log_partition(potentials)[0], joint.logsumexp(0))
    best, score = viterbi(potentials)
    torch.testing.assert_close(score[0], joint.max())
    assert keys(best)[0] == keys(trees)[int(joint.argmax())]
    expected = torch.zeros(length, length + 1, labels, dtype=torch.float64)
    place = (trees.left[0], trees.right[0], trees.label[0])
    posterior = joint.softmax(0)[:, None].expand_as(place[0])
    expected.index_put_(place, posterior, accumulate=True)
    torch.testing.assert_close(span_marginals(potentials)[0], expected)
    summed = bracketing_log_joint(potentials, trees)[0]
    splits = [tuple(split) for split in trees.split[0].tolist()]
    for split in set(splits):
        same = torch.tensor([other == split for other in splits])
        expected = joint[same].logsumexp(0).expand(int(same.sum()))
        torch.testing.assert_close(summed[same], expected)


@pytest.mark.parametrize("labels,classes", KINDS[:2])
def test_draws_follow_the_posterior(labels, classes):
    torch.manual_seed(0)
    lengths = (5, 4) if labels == 2 else (4, 3)
    tables = random_context_tables(labels, classes, lengths, seed=3)
    potentials, draws = RulePotentials.from_tables(*tables), 20_000
    trees = all_trees(lengths[0], labels)
    drawn = keys(sample_trees(potentials, inside(potentials), draws)[0])
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
    batch = RulePotentials.from_tables(root, rules, emissions, sizes)
    total, (best, score) = log_partition(batch), viterbi(batch)
    marginals = span_marginals(batch)
    for row, n in enumerate(lengths):
        one = RulePotentials.from_tables(
            root, rules, emissions[row : row + 1, :n], sizes[row : row + 1]
        )
        torch.testing.assert_close(total[row], log_partition(one)[0])
        alone, alone_score = viterbi(one)
        torch.testing.assert_close(score[row], alone_score[0])
        assert keys(best, row) == keys(alone)
        torch.testing.assert_close(marginals[row, :n, : n + 1], span_marginals(one)[0])
        assert marginals[row].sum().item() == pytest.approx(n - 1, abs=1e-4)


def test_rules_that_ignore_the_parent_are_a_pcfg():
    root, rules, emissions, lengths = random_tables(3, 4, (9, 1, 5))
    plain = log_partition(RulePotentials.from_tables(root, rules, emissions, lengths))
    parents = rules.expand(4, -1, -1, -1), emissions[:, :, None].expand(-1, -1, 4, -1)
    ours = log_partition(RulePotentials.from_tables(root, *parents, lengths))
    torch.testing.assert_close(ours, plain)


@pytest.mark.slow
@pytest.mark.parametrize("labels", [2, 4])
def test_gradients_equal_finite_differences(labels):
    torch.manual_seed(0)
    symbols = labels + 2
    root, rules = torch.randn(symbols), torch.randn(3, labels, symbols, symbols)
    emissions = torch.randn(2, 5, 3, 2)
    tables = [table.double().requires_grad_() for table in (root, rules, emissions)]

    def total(*tables):
        return log_partition(RulePotentials.from_tables(*tables, torch.tensor([5, 4])))

    assert torch.autograd.gradcheck(total, tables)


def test_classes_that_do_not_differ_are_one():
    """Two labels in one class are two classes with the same rules below."""
    root, rules, emissions, lengths = random_context_tables(4, 2, (5, 3))
    apart = torch.tensor([0, 0, 1, 1, 2])  # the context of each label's children, and of the top
    full = RulePotentials.from_tables(root, rules[apart], emissions[:, :, apart], lengths)
    ours = RulePotentials.from_tables(root, rules, emissions, lengths)
    torch.testing.assert_close(log_partition(ours), log_partition(full))
    torch.testing.assert_close(span_marginals(ours), span_marginals(full))
    torch.testing.assert_close(viterbi(ours)[1], viterbi(full)[1])
    chart = inside(full)[:, :, :, [0, 2, 4]]
    torch.testing.assert_close(inside(ours), chart)
    profiles = RulePotentials.from_tables(root, rules, emissions, lengths).word_profiles()
    assert profiles.shape == (2, 5, 16) and profiles.isfinite().all()


def test_one_context_has_the_values_it_always_had():
    """Computed by the inside algorithm of a PCFG alone, which this one replaced."""
    potentials = RulePotentials.from_tables(*random_tables(3, 4, (9, 1, 5), seed=5))
    expected = torch.tensor(SAVED, dtype=torch.float64)
    torch.testing.assert_close(log_partition(potentials), expected[0])
    torch.testing.assert_close(viterbi(potentials)[1], expected[1])
    torch.testing.assert_close(span_marginals(potentials)[0, 2, 5:8].sum(0), expected[2])


def test_labels_that_do_not_fall_into_groups_are_refused():
    root, rules, emissions, lengths = random_context_tables(3, 2, (4,))
    with pytest.raises(ValueError, match="3 nonterminals do not fall into 2 groups"):
        RulePotentials.from_tables(root, rules, emissions, lengths)


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
        return z[row : row + 1].resized()


class TestParentClasses(TestNeuralParentPCFG):
    def make_target(self):
        torch.manual_seed(2)
        return NeuralPCFG(6, 4, 7, dim=16, parent_classes=2)  # few enough that sentences end

    def enumerate_latents(self, x):
        return all_trees(int(x.lengths[0]), 4)


def test_collapsed_joint_of_a_padded_batch_and_its_gradient():
    """One by one the same; its posterior mean climbs as the marginal does."""
    torch.manual_seed(0)
    model = NeuralParentPCFG(6, LABELS, PRETERMINALS, dim=8).double()
    x = Sentences.from_lists([[1, 2, 3, 1, 5], [2], [3, 4], [1, 1, 1]])
    trees = model.sample_posterior(x, 7)
    together = model.collapsed_log_joint(x, trees)
    for row in range(len(x)):
        one = x[torch.tensor([row])]
        part = TestNeuralParentPCFG.take_latent(None, trees, row)
        torch.testing.assert_close(model.collapsed_log_joint(one, part)[0], together[row])
    one, trees = x[torch.tensor([0])], all_trees(5, LABELS)
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

import pytest
import torch
from brute import all_trees, keys, random_tables

from gfnem.parsing.inference.draws import sample_trees, score_trees
from gfnem.parsing.inference.inside import inside, log_partition
from gfnem.parsing.inference.log_joint import tree_log_joint
from gfnem.parsing.inference.rule_potentials import RulePotentials
from gfnem.parsing.trees.trees import Trees

FIELDS = ("left", "right", "split", "label")


def build(*args, **kwargs):
    return RulePotentials.from_tables(*random_tables(*args, **kwargs))


def random_values(potentials, seed=0):
    batch, n = len(potentials.lengths), potentials.max_length
    generator = torch.Generator().manual_seed(seed)
    shape = (batch, n, n + 1, potentials.contexts, potentials.labels)
    return 2 * torch.randn(shape, generator=generator, dtype=torch.float64)


def same(first: Trees, second: Trees) -> bool:
    return all(torch.equal(getattr(first, name), getattr(second, name)) for name in FIELDS)


def node_log_probability(potentials, values, node, children, temperature, epsilon):
    """One node's choice by listing every action with its weight."""
    (left, right, split, label), (first, second) = node, children
    labels = potentials.labels
    actions = {}
    for k in range(left + 1, right):
        lone_left, lone_right = k - left == 1, right - k == 1
        for b in [-1] if lone_left else range(labels):
            for c in [-1] if lone_right else range(labels):
                if lone_left and lone_right:
                    weight = potentials.both_leaves[0, left, 0, label]
                elif lone_left:
                    weight = potentials.leaf_tables[0][left, 0, label, 0, c]
                elif lone_right:
                    weight = potentials.leaf_tables[1][k, 0, label, 0, b]
                else:
                    weight = potentials.rules[0, label, b, c]
                weight = weight + (0 if lone_left else values[0, left, k, 0, b])
                actions[k, b, c] = weight + (0 if lone_right else values[0, k, right, 0, c])
    chosen = list(actions).index((split, first, second))
    return explored(torch.stack(list(actions.values())), temperature, epsilon)[chosen]


def explored(weights, temperature, epsilon):
    """Log of the tempered softmax mixed with the uniform distribution."""
    tempered = (weights / temperature).log_softmax(0)
    if epsilon == 0:
        return tempered
    return ((1 - epsilon) * tempered.exp() + epsilon / len(weights)).log()


@pytest.mark.parametrize("temperature, epsilon", [(1.0, 0.0), (2.0, 0.0), (0.7, 0.2), (1.0, 1.0)])
def test_scores_equal_listing_every_action(temperature, epsilon):
    potentials = build(lengths=(6,), absent=0.2)
    values = random_values(potentials)
    generator = torch.Generator().manual_seed(1)
    trees, _ = sample_trees(potentials, values, 20, 1.5, 0.3, generator)
    scores = score_trees(potentials, values, trees, temperature, epsilon)
    first, second = trees.child_labels()
    for sample in range(trees.samples):
        root = explored(potentials.root + values[0, 0, 6, 0], temperature, epsilon)
        expected = [root[trees.label[0, sample, 0]]]
        for m in range(5):
            node = [getattr(trees, name)[0, sample, m].item() for name in FIELDS]
            children = first[0, sample, m].item(), second[0, sample, m].item()
            expected.append(
                node_log_probability(potentials, values, node, children, temperature, epsilon)
            )
        torch.testing.assert_close(scores[0, sample], torch.stack(expected))


@pytest.mark.parametrize("length", [1, 2, 3, 4, 5, 6])
@pytest.mark.parametrize("temperature, epsilon", [(1.0, 0.0), (2.5, 0.0), (0.6, 0.3)])
def test_probabilities_of_all_trees_sum_to_one(length, temperature, epsilon):
    potentials = build(lengths=(length,), absent=0.2)
    trees, values = all_trees(length, 2), random_values(potentials)
    scores = score_trees(potentials, values, trees, temperature, epsilon)
    assert scores.shape == (1, trees.samples, length)
    assert scores.sum(-1).exp().sum().item() == pytest.approx(1, rel=1e-9)
    if length == 1:
        assert not scores.any()


@pytest.mark.parametrize("dtype, tolerance", [(torch.float32, 1e-4), (torch.float64, 1e-9)])
def test_inside_values_give_the_posterior(dtype, tolerance):
    lengths = (6, 1, 2, 4, 5, 3)
    tables = random_tables(3, 4, lengths, absent=0, dtype=dtype)
    potentials = RulePotentials.from_tables(*tables)
    chart, total = inside(potentials), log_partition(potentials)
    generator = torch.Generator().manual_seed(0)
    trees, log_q = sample_trees(potentials, chart, 50, generator=generator)
    posterior = tree_log_joint(potentials, trees).sum(-1) - total[:, None]
    torch.testing.assert_close(log_q, posterior, rtol=0, atol=tolerance)
    scores = score_trees(potentials, chart, trees).sum(-1)
    torch.testing.assert_close(scores, posterior, rtol=0, atol=tolerance)
    for row, n in enumerate(lengths):  # each a proper tree, in preorder, zero past its nodes
        for sample in range(0, 50, 10):
            left, right, split, label = (getattr(trees, name)[row, sample] for name in FIELDS)
            nodes = list(
                zip(
                    *(field[: n - 1].tolist() for field in (left, right, split, label)), strict=True
                )
            )
            rebuilt = Trees.from_nodes([[nodes]], [n])
            assert keys(rebuilt) == keys(trees[row : row + 1].resized())[sample : sample + 1]
            spans = {(i, j) for i, j, _, _ in nodes}
            assert len(spans) == n - 1
            for i, j, k, _ in nodes:
                assert i < k < j
                assert (k - i == 1 or (i, k) in spans) and (j - k == 1 or (k, j) in spans)
            assert not any(field[n - 1 :].any() for field in (left, right, split, label))


@pytest.mark.slow
@pytest.mark.parametrize(
    "temperature, epsilon, exact", [(1.0, 0.0, True), (1.0, 0.0, False), (2.0, 0.0, False),
                                    (0.8, 0.25, False), (1.0, 1.0, False)]
)  # fmt: skip
def test_sample_frequencies(temperature, epsilon, exact):
    potentials = build(lengths=(5,), absent=0.2)
    values = inside(potentials) if exact else random_values(potentials)
    everything = all_trees(5, 2)
    expected = score_trees(potentials, values, everything, temperature, epsilon).sum(-1)[0].exp()
    count = 40_000
    generator = torch.Generator().manual_seed(0)
    trees, behaviour = sample_trees(potentials, values, count, temperature, epsilon, generator)
    index = {key: place for place, key in enumerate(keys(everything))}
    places = torch.tensor([index[key] for key in keys(trees)])
    seen = torch.bincount(places, minlength=len(index)).double()
    # Pearson's statistic over trees expected at least 5 times, the others pooled.
    often = count * expected >= 5
    observed = torch.cat([seen[often], seen[~often].sum()[None]])
    wanted = torch.cat([count * expected[often], count * expected[~often].sum()[None] + 1e-9])
    keep = wanted > 5
    observed, wanted = observed[keep], wanted[keep]
    statistic, degrees = ((observed - wanted) ** 2 / wanted).sum().item(), len(wanted) - 1
    assert degrees >= 10
    assert statistic < degrees + 4 * (2 * degrees) ** 0.5
    torch.testing.assert_close(behaviour[0].exp(), expected[places])


def test_padded_batch_equals_one_by_one():
    lengths = (1, 2, 3, 5, 6)
    tables = random_tables(lengths=lengths, absent=0.2)
    potentials = RulePotentials.from_tables(*tables)
    values = random_values(potentials)
    generator = torch.Generator().manual_seed(3)
    trees, _ = sample_trees(potentials, values, 6, generator=generator)
    scores = score_trees(potentials, values, trees, 1.3, 0.1)
    joint = tree_log_joint(potentials, trees)
    root, rules, emissions, _ = tables
    for row, n in enumerate(lengths):
        one = RulePotentials.from_tables(
            root, rules, emissions[row : row + 1, :n], torch.tensor([n])
        )
        alone, tree = values[row : row + 1, :n, : n + 1], trees[row : row + 1].resized()
        torch.testing.assert_close(scores[row, :, :n], score_trees(one, alone, tree, 1.3, 0.1)[0])
        torch.testing.assert_close(joint[row, :, :n], tree_log_joint(one, tree)[0])
        assert not scores[row, :, n:].any() and not joint[row, :, n:].any()


@pytest.mark.slow
def test_gradients_equal_finite_differences():
    root, rules, emissions, lengths = random_tables(lengths=(1, 5, 6), absent=0)
    potentials = RulePotentials.from_tables(root, rules, emissions, lengths)
    values = random_values(potentials)
    generator = torch.Generator().manual_seed(0)
    trees, _ = sample_trees(potentials, values, 3, 2.0, generator=generator)

    def scores(values, root, rules, emissions):
        potentials = RulePotentials.from_tables(root, rules, emissions, lengths)
        plain = score_trees(potentials, values, trees)
        explored = score_trees(potentials, values, trees, 1.7, 0.1)
        return plain, explored, tree_log_joint(potentials, trees)

    inputs = [table.requires_grad_() for table in (values, root, rules, emissions)]
    assert torch.autograd.gradcheck(scores, inputs)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_absent_rules_give_finite_values_and_gradients(dtype):
    tables = random_tables(lengths=(5,), absent=0.7, dtype=dtype)
    tables = [table.requires_grad_() for table in tables[:3]] + [tables[3]]
    potentials = RulePotentials.from_tables(*tables)
    trees = all_trees(5, 2)
    chart = inside(potentials)
    total = score_trees(potentials, chart, trees), tree_log_joint(potentials, trees)
    assert all(torch.isfinite(entry).all() for entry in total)
    sum(entry.sum() for entry in total).backward()
    assert all(torch.isfinite(table.grad).all() for table in tables[:3])


@pytest.mark.slow
def test_gradients_are_the_same_bits_on_two_threads():
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        root, rules, emissions, lengths = random_tables(12, 20, (12,) * 16, dtype=torch.float32)
        tables = [table.requires_grad_() for table in (root, rules, emissions)]
        seen = []
        for _ in range(5):
            potentials = RulePotentials.from_tables(*tables, lengths)
            chart = inside(potentials)
            generator = torch.Generator().manual_seed(0)
            trees, _ = sample_trees(potentials, chart, 8, generator=generator)
            loss = score_trees(potentials, chart, trees).square().sum()
            loss = loss + tree_log_joint(potentials, trees).sum() + log_partition(potentials).sum()
            seen.append(torch.autograd.grad(loss, tables))
        for gradients in seen[1:]:
            assert all(map(torch.equal, gradients, seen[0]))
    finally:
        torch.set_num_threads(threads)


def test_a_seed_repeats_its_trees():
    potentials = build(lengths=(6, 3))
    draws = [
        sample_trees(potentials, inside(potentials), 5, generator=torch.Generator().manual_seed(s))
        for s in (0, 0, 1)
    ]
    assert same(draws[0][0], draws[1][0]) and not same(draws[0][0], draws[2][0])

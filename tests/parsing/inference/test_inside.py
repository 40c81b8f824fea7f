import pytest
import torch
from brute import all_trees, brute_log_joint, keys, random_tables

from gfnem.parsing.inference.inside import inside, log_partition, span_marginals
from gfnem.parsing.inference.log_joint import tree_log_joint
from gfnem.parsing.inference.potentials import IMPOSSIBLE
from gfnem.parsing.inference.rule_potentials import RulePotentials
from gfnem.parsing.inference.viterbi import viterbi

LENGTHS = [1, 2, 3, 4, 5, 6]


def build(*args, **kwargs):
    tables = random_tables(*args, **kwargs)
    return tables, RulePotentials.from_tables(*tables)


@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize("seed", [0, 1])
def test_exact_inference_agrees_with_brute_force(length, seed):
    (root, rules, emissions, _), potentials = build(lengths=(length,), seed=seed)
    trees = all_trees(length, 2)
    joint = brute_log_joint(trees, root, rules, emissions)
    assert torch.isfinite(joint.logsumexp(0))
    mine = tree_log_joint(potentials, trees)[0].sum(-1)
    possible = joint > -torch.inf
    torch.testing.assert_close(mine[possible], joint[possible])
    assert (mine[~possible] < IMPOSSIBLE / 2).all()
    assert torch.isfinite(mine).all()
    torch.testing.assert_close(log_partition(potentials)[0], joint.logsumexp(0))

    best, score = viterbi(potentials)
    torch.testing.assert_close(score[0], joint.max())
    torch.testing.assert_close(tree_log_joint(potentials, best).sum(-1)[0], score)
    assert keys(best)[0] == keys(trees)[int(joint.argmax())]

    posterior = joint.softmax(0)
    expected = torch.zeros(length, length + 1, 2, dtype=torch.float64)
    place = (trees.left[0], trees.right[0], trees.label[0])
    expected.index_put_(place, posterior[:, None].expand_as(place[0]), accumulate=True)
    torch.testing.assert_close(span_marginals(potentials)[0], expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_padded_batch_equals_one_by_one(dtype):
    root, rules, emissions, lengths = random_tables(lengths=LENGTHS, dtype=dtype)
    batch = RulePotentials.from_tables(root, rules, emissions, lengths)
    total, (best, score) = log_partition(batch), viterbi(batch)
    marginals, chart = span_marginals(batch), inside(batch)
    for row, n in enumerate(LENGTHS):
        one = RulePotentials.from_tables(
            root, rules, emissions[row : row + 1, :n], torch.tensor([n])
        )
        torch.testing.assert_close(total[row], log_partition(one)[0])
        alone, best_score = viterbi(one)
        torch.testing.assert_close(score[row], best_score[0])
        assert keys(best, row) == keys(alone)
        torch.testing.assert_close(marginals[row, :n, : n + 1], span_marginals(one)[0])
        assert marginals[row].sum().item() == pytest.approx(n - 1, abs=1e-4)
        torch.testing.assert_close(chart[row, :n, : n + 1], inside(one)[0])
        assert (chart[row, :, n + 1 :] == IMPOSSIBLE).all()
        assert not best.split[row, :, n - 1 :].any()


def test_many_labels_and_longer_sentence_agree_with_textbook_recursion():
    (root, rules, emissions, _), potentials = build(5, 4, (11,), absent=0.5)
    labels = 5
    table = {(i, i + 1): torch.cat([torch.zeros(5), w.exp()]) for i, w in enumerate(emissions[0])}
    for width in range(2, 12):
        for i in range(12 - width):
            total = sum(
                torch.einsum("abc,b,c->a", rules.exp(), table[i, k], table[k, i + width])
                for k in range(i + 1, i + width)
            )
            table[i, i + width] = torch.cat([total, torch.zeros(4)])
    chart = inside(potentials)[0]
    for (i, j), weights in table.items():
        if j - i > 1:
            expected = weights[:labels].log()[None]  # one context
            known = expected > -torch.inf
            torch.testing.assert_close(chart[i, j][known], expected[known])
            assert (chart[i, j][~known] < IMPOSSIBLE / 2).all()
    total = (root.exp() @ table[0, 11]).log()
    torch.testing.assert_close(log_partition(potentials, chart[None])[0], total)


@pytest.mark.slow
def test_gradients_equal_finite_differences():
    root, rules, emissions, lengths = random_tables(lengths=(1, 4, 5), absent=0)
    spans = torch.randn(3, 5, 6, 2, dtype=torch.float64, requires_grad=True)

    def total(root, rules, emissions, spans):
        potentials = RulePotentials.from_tables(root, rules, emissions, lengths)
        return log_partition(potentials, inside(potentials, spans))

    inputs = [table.requires_grad_() for table in (root, rules, emissions)]
    assert torch.autograd.gradcheck(total, (*inputs, spans))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_absent_rules_give_finite_gradients(dtype):
    root, rules, emissions, lengths = random_tables(lengths=(1, 2, 6), absent=0.8, dtype=dtype)
    emissions[2, 3] = -torch.inf  # a word that nothing emits
    rules[0] = -torch.inf  # a nonterminal that derives nothing
    tables = [table.requires_grad_() for table in (root, rules, emissions)]
    potentials = RulePotentials.from_tables(*tables, lengths)
    total = log_partition(potentials)
    assert torch.isfinite(total).all() and total[2] < IMPOSSIBLE / 2
    total.sum().backward()
    for table in tables:
        assert torch.isfinite(table.grad).all()
        assert not table.grad[table == -torch.inf].any()
    assert torch.isfinite(inside(potentials)).all()


def test_gradient_is_expected_rule_count():
    root, rules, emissions, lengths = random_tables(lengths=(6,), dtype=torch.float32)
    rules.requires_grad_()
    log_partition(RulePotentials.from_tables(root, rules, emissions, lengths)).sum().backward()
    assert rules.grad.sum().item() == pytest.approx(5, rel=1e-5)


def test_float32_holds_on_long_sentences_with_extreme_weights():
    root, rules, emissions, lengths = random_tables(6, 6, (40,), absent=0)
    emissions = 8 * emissions - 60
    double = RulePotentials.from_tables(root, rules, emissions, lengths)
    single = RulePotentials.from_tables(root.float(), rules.float(), emissions.float(), lengths)
    exact = log_partition(double).item()
    assert exact < -2000
    assert log_partition(single).item() == pytest.approx(exact, rel=1e-5)


def test_autocast_leaves_the_chart_in_float32():
    tables, plain = build(lengths=(6,), dtype=torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        potentials = RulePotentials.from_tables(*tables)
        chart = inside(potentials)
    assert chart.dtype == torch.float32
    torch.testing.assert_close(chart, inside(plain), rtol=0, atol=0)


def test_shapes_that_do_not_fit_are_refused():
    root, rules, emissions, lengths = random_tables()
    with pytest.raises(ValueError, match="do not fit"):
        RulePotentials.from_tables(root[1:], rules, emissions, lengths)


@pytest.mark.filterwarnings("ignore:.*arg_constraints")
def test_torch_struct_agrees():
    struct = pytest.importorskip("torch_struct")
    root, rules, emissions, lengths = random_tables(3, 4, (7,), absent=0)
    sentence = struct.SentCFG((emissions, rules[None], root[None, :3]), lengths=lengths)
    potentials = RulePotentials.from_tables(root, rules, emissions, lengths)
    torch.testing.assert_close(log_partition(potentials), sentence.partition.detach().view(1))

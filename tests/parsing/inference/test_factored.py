"""Rules that choose their children apart: all of inference against the same rules as a table."""

import pytest
import torch
from brute import all_trees, brute_log_joint, keys, random_tables

from gfnem.parsing.inference.bracketing import bracketing_log_joint
from gfnem.parsing.inference.choices import RuleChoices
from gfnem.parsing.inference.draws import draw_trees, sample_trees, score_choices, score_trees
from gfnem.parsing.inference.expansion import expanded
from gfnem.parsing.inference.factored import FactoredPotentials
from gfnem.parsing.inference.inside import inside, log_partition, span_marginals
from gfnem.parsing.inference.log_joint import tree_log_joint
from gfnem.parsing.inference.rule_potentials import RulePotentials
from gfnem.parsing.inference.viterbi import viterbi

LABELS, PRETERMINALS, LENGTHS = 3, 4, (1, 2, 3, 7, 5)


def tables(labels=LABELS, lengths=LENGTHS, seed=0, absent=0.3, dtype=torch.float64):
    """Root, left and right children, words, lengths; some rules are absent."""
    root, _, words, lengths = random_tables(labels, PRETERMINALS, lengths, seed, absent)
    generator = torch.Generator().manual_seed(seed)
    sides = []
    for kept in (labels - 1, -1):
        scores = 2 * torch.randn(labels, labels + PRETERMINALS, generator=generator).double()
        gone = torch.rand(scores.shape, generator=generator) < absent
        gone[:, [kept, -1]] = False
        sides.append(scores.masked_fill(gone, -torch.inf).log_softmax(1))
    return *(table.to(dtype) for table in (root, *sides, words)), lengths


def both(root, left, right, words, lengths):
    """The same rules chosen apart, and as a table with a cell for each pair."""
    rules = left[:, :, None] + right[:, None]
    return (
        FactoredPotentials.from_tables(root, left, right, words, lengths),
        RulePotentials.from_tables(root, rules, words, lengths),
    )


@pytest.mark.parametrize("length", range(1, 6))
def test_exact_inference_agrees_with_brute_force(length):
    root, left, right, words, lengths = tables(2, (length,))
    apart, _ = both(root, left, right, words, lengths)
    trees = all_trees(length, 2)
    joint = brute_log_joint(trees, root, left[:, :, None] + right[:, None], words)
    possible = joint > -torch.inf
    torch.testing.assert_close(tree_log_joint(apart, trees)[0].sum(-1)[possible], joint[possible])
    torch.testing.assert_close(log_partition(apart)[0], joint.logsumexp(0))
    best, score = viterbi(apart)
    torch.testing.assert_close(score[0], joint.max())
    assert keys(best)[0] == keys(trees)[int(joint.argmax())]


@pytest.mark.parametrize("spans", [False, True])
def test_charts_posteriors_and_best_trees_agree_with_those_of_the_table(spans):
    apart, table = both(*tables())
    weights = torch.randn(len(LENGTHS), 7, 8).double() if spans else None
    extra = None if weights is None else weights.unsqueeze(3).expand(-1, -1, -1, LABELS)
    torch.testing.assert_close(inside(apart, extra), inside(table, extra))
    torch.testing.assert_close(span_marginals(apart, weights), span_marginals(table, weights))
    (one, score), (other, same) = viterbi(apart, weights), viterbi(table, weights)
    torch.testing.assert_close(score, same)
    assert [keys(one, row) for row in range(5)] == [keys(other, row) for row in range(5)]
    torch.testing.assert_close(apart.word_levels(), table.word_levels())
    # `RulePotentials` has shares of the labels' rules with a word, whatever the other child
    assert apart.word_profiles().shape == table.word_profiles().shape


def test_one_step_of_the_rules_agrees_with_that_of_the_table():
    apart, table = both(*tables())
    chart = inside(table)[:, :, :, 0]
    torch.testing.assert_close(expanded(apart, chart), expanded(table, chart))
    torch.testing.assert_close(expanded(apart, chart), inside(apart))  # it is a fixed point
    other = torch.where(chart > -1e3, chart + torch.randn_like(chart), chart)
    torch.testing.assert_close(expanded(apart, other), expanded(table, other))


def test_gradients_agree_with_those_of_the_table():
    given = tables(absent=0.0)
    found = []
    for kind in range(2):
        leaves = [table.clone().requires_grad_() for table in given[:4]]
        total = log_partition(both(*leaves, given[4])[kind])
        found.append(torch.autograd.grad((total * torch.arange(1, 6)).sum(), leaves))
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other)


def test_single_precision_and_padding_make_no_difference():
    exact, rough = (both(*tables(dtype=kind))[0] for kind in (torch.float64, torch.float32))
    torch.testing.assert_close(log_partition(exact).float(), log_partition(rough))
    root, left, right, words, lengths = tables()
    for row, n in enumerate(LENGTHS):
        alone, _ = both(root, left, right, words[row : row + 1, :n], lengths[row : row + 1])
        torch.testing.assert_close(log_partition(alone)[0], log_partition(exact)[row])


def test_bracketings_of_labels_summed_out_agree_with_those_of_the_table():
    given = tables(absent=0.0)
    apart, table = both(*given)
    torch.manual_seed(0)
    trees, _ = sample_trees(table, inside(table), 8)
    torch.testing.assert_close(
        bracketing_log_joint(apart, trees), bracketing_log_joint(table, trees)
    )


@pytest.mark.parametrize(("temperature", "epsilon"), [(1.0, 0.0), (1.7, 0.2)])
def test_choices_under_any_look_ahead_agree_with_those_of_the_table(temperature, epsilon):
    apart, table = both(*tables())
    torch.manual_seed(1)
    ahead = torch.randn(len(LENGTHS), 7, 8, 1, LABELS).double().requires_grad_()
    trees, drawn = draw_trees(RuleChoices.from_chart(apart, ahead), 20, temperature, epsilon)
    found = []
    for potentials in (apart, table):
        scores = score_trees(potentials, ahead, trees, temperature, epsilon)
        found.append((scores, *torch.autograd.grad(scores.sum(), ahead)))
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other)
    torch.testing.assert_close(found[0][0].sum(-1), drawn)


def test_no_table_of_rules_is_made(monkeypatch):
    apart, _ = both(*tables())
    ahead = torch.randn(len(LENGTHS), 7, 8, 1, LABELS).double()

    def made(self):
        raise AssertionError("a table with a cell for each pair of children")

    monkeypatch.setattr(FactoredPotentials, "rules", property(made))
    choices = RuleChoices.from_chart(apart, ahead)
    score_choices(choices, draw_trees(choices, 20, 1.7, 0.2)[0])


def test_samples_come_as_often_as_the_posterior_says():
    root, left, right, words, lengths = tables(2, (4,))
    apart, _ = both(root, left, right, words, lengths)
    torch.manual_seed(0)
    drawn, log_p = sample_trees(apart, inside(apart), 4000)
    trees = all_trees(4, 2)
    exact = (tree_log_joint(apart, trees).sum(-1)[0]).softmax(0)
    counts = {key: 0 for key in keys(trees)}
    for key in keys(drawn):
        counts[key] += 1
    frequency = torch.tensor(list(counts.values())) / 4000
    assert (frequency - exact).abs().max() < 4 * (0.25 / 4000) ** 0.5
    named = dict(zip(keys(trees), exact.log().tolist(), strict=True))
    for key, value in zip(keys(drawn)[:50], log_p[0].tolist()[:50], strict=True):
        assert value == pytest.approx(named[key], abs=1e-6)


def test_the_posterior_scores_itself():
    apart, _ = both(*tables())
    choices = RuleChoices.from_chart(apart, inside(apart))
    trees, log_p = draw_trees(choices, 5)
    torch.testing.assert_close(score_choices(choices, trees).sum(-1), log_p)
    joint = tree_log_joint(apart, trees).sum(-1)
    torch.testing.assert_close(joint - log_partition(apart)[:, None], log_p)


def test_tables_that_do_not_fit_are_refused():
    root, left, right, words, lengths = tables()
    with pytest.raises(ValueError, match="do not fit root"):
        FactoredPotentials.from_tables(root[:-1], left, right, words, lengths)

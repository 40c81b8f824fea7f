"""What nodes may do altogether, against the options of each and against sums over pairs."""

import pytest
import torch
from brute import random_tables

from gfnem.parsing.inference import by_rule
from gfnem.parsing.inference.by_rule import Joins, joined, norms_by_rule, norms_of
from gfnem.parsing.inference.choices import RuleChoices
from gfnem.parsing.inference.nodes import Nodes
from gfnem.parsing.inference.rule_potentials import RulePotentials


def test_joins_and_gradients_equal_sums_over_pairs():
    torch.manual_seed(0)
    logs = torch.randn(9, 3, dtype=torch.float64, requires_grad=True)
    rules = torch.rand(4, 9, dtype=torch.float64, requires_grad=True)
    left, right = torch.randint(9, (2, 11))
    joins = Joins(left, right, [(0, 0, 4), (3, 4, 11)])
    peaks = logs.detach().amax(1)
    found = joined((logs - peaks[:, None]).exp(), peaks, rules, joins)
    own = rules.view(4, 3, 3)[[0] * 4 + [3] * 7].log()
    expected = (logs[left][:, :, None] + own + logs[right][:, None]).flatten(1).logsumexp(1)
    torch.testing.assert_close(found, expected)
    weights = torch.rand_like(found)
    ours = torch.autograd.grad((found * weights).sum(), (logs, rules))
    theirs = torch.autograd.grad((expected * weights).sum(), (logs, rules))
    torch.testing.assert_close(ours, theirs)


def test_what_weighs_nothing_has_no_gradient():
    logs = torch.zeros(2, 2, requires_grad=True)
    rules = torch.zeros(1, 4, requires_grad=True)
    joins = Joins(torch.tensor([0]), torch.tensor([1]), [(0, 0, 1)])
    found = joined(logs.exp(), torch.zeros(2), rules, joins)
    assert found.item() <= -1e3 and found.isfinite().all()
    for gradient in torch.autograd.grad(found.sum(), (logs, rules)):
        assert not gradient.any()


def case(labels: int = 4, temperature: float = 1.0):
    lengths = (8, 3, 6)
    root, rules, *rest = random_tables(labels, 3, lengths)
    potentials = RulePotentials.from_tables(root, rules.requires_grad_(), *rest)
    generator = torch.Generator().manual_seed(1)
    chart = torch.randn(3, 8, 9, 1, labels, generator=generator, dtype=potentials.rules.dtype)
    choices = RuleChoices.from_chart(potentials, chart.requires_grad_()).tempered(temperature)
    found = [
        (row, left, right, label)
        for row, length in enumerate(lengths)
        for left in range(length)
        for right in range(left + 3, length + 1)
        for label in range(labels)
    ]
    row, left, right, label = torch.tensor(found)[torch.randperm(len(found), generator=generator)].T
    return (chart, rules), choices, Nodes(row, row, left, right, label)


@pytest.mark.parametrize("temperature", [1.0, 0.5, 2.0])
def test_nodes_may_do_what_their_options_say(temperature):
    learned, choices, nodes = case(temperature=temperature)
    found = norms_by_rule(choices, nodes)
    expected = choices.options(nodes).scores.logsumexp(-1)
    torch.testing.assert_close(found, expected)
    weights = torch.rand(found.shape, dtype=found.dtype)
    ours = torch.autograd.grad((found * weights).sum(), learned, retain_graph=True)
    theirs = torch.autograd.grad((expected * weights).sum(), learned)
    assert all(each.any() for each in ours)
    torch.testing.assert_close(ours, theirs)


def test_few_nodes_for_their_rules_are_taken_by_width(monkeypatch):
    _, choices, nodes = case()
    taken = []
    monkeypatch.setattr(by_rule, "norms_by_rule", lambda *given: taken.append(given))
    norms_of(choices, nodes[torch.arange(63)])
    assert not taken
    norms_of(choices, nodes[torch.arange(64)])
    assert len(taken) == 1

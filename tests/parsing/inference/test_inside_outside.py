"""The written-out outside pass against the gradient that it is."""

import pytest
import torch

from gfnem.parsing import NeuralPCFG, Sentences
from gfnem.parsing.inference.inside import inside, inside_outside, log_partition
from gfnem.parsing.inference.potentials import IMPOSSIBLE, RulePotentials


def by_autograd(potentials):
    batch, n, labels, _ = potentials.left_leaf.shape
    extra = potentials.rules.new_zeros(batch, n, n + 1, labels, requires_grad=True)
    total = log_partition(potentials, inside(potentials, extra))
    if n == 1:
        return torch.zeros_like(extra), total
    return torch.autograd.grad(total.sum(), extra)[0], total


def potentials_of(lengths, labels=4, preterminals=5, words=30, sharp=3.0):
    torch.manual_seed(sum(lengths))
    model = NeuralPCFG(words, labels, preterminals, 8).double()
    for parameter in model.parameters():
        parameter.data *= sharp
    x = Sentences(torch.randint(words, (len(lengths), max(lengths))), torch.tensor(lengths))
    with torch.no_grad():
        return model.potentials(x)


@pytest.mark.parametrize("lengths", [[1], [2, 1], [3, 2, 1], [4], [5, 5, 3], [12, 1, 7, 2]])
def test_marginals_and_partition(lengths):
    potentials = potentials_of(lengths)
    wanted, total = by_autograd(potentials)
    marginals, partition = inside_outside(potentials)
    torch.testing.assert_close(marginals, wanted)
    torch.testing.assert_close(partition, total)
    nodes = torch.tensor(lengths).double() - 1
    torch.testing.assert_close(marginals.sum((1, 2, 3)), nodes)


def test_a_long_sentence_in_single_precision():
    potentials = potentials_of([60, 41], sharp=6.0).map(torch.Tensor.float)
    wanted, total = by_autograd(potentials)
    marginals, partition = inside_outside(potentials)
    assert marginals.isfinite().all()
    torch.testing.assert_close(marginals, wanted, atol=1e-4, rtol=1e-3)
    torch.testing.assert_close(partition, total)


def test_rules_that_do_not_exist_stay_finite():
    potentials = potentials_of([6, 4])
    rules = potentials.rules.clone()
    rules[1:] = IMPOSSIBLE  # of three labels no phrase of long parts can be made
    potentials.left_leaf[:, :, 2] = IMPOSSIBLE
    potentials = RulePotentials(**{**vars(potentials), "rules": rules})
    wanted, total = by_autograd(potentials)
    marginals, partition = inside_outside(potentials)
    torch.testing.assert_close(marginals, wanted)
    torch.testing.assert_close(partition, total)

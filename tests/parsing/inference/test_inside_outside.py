"""The written-out gradient against autograd through the recursion as it stands in books."""

import pytest
import torch

from gfnem.parsing import NeuralPCFG, Sentences
from gfnem.parsing.inference.inside import inside, log_partition, span_marginals
from gfnem.parsing.inference.potentials import IMPOSSIBLE, GivenPotentials


def plain(tables, lengths, extra):
    """`(batch,)` log partition, span by span in log space; `tables` as `Potentials` has them."""
    root, rules, left, right, both, single = tables
    contexts, labels = rules.shape[:2]
    size = labels // max(contexts - 1, 1)
    totals = []
    for row, n in enumerate(lengths.tolist()):
        chart = {}
        for width in range(2, n + 1):
            for i in range(n - width + 1):
                j = i + width
                value = both[row, i]
                if width > 2:
                    groups = []
                    for group in range(labels // size):
                        of = slice(group * size, (group + 1) * size)
                        ways = [
                            (left[i, row, of] + chart[i + 1, j][group]).logsumexp(2),
                            (right[j - 1, row, of] + chart[i, j - 1][group]).logsumexp(2),
                        ]
                        if width > 3:
                            cuts = range(i + 2, j - 1)
                            first = torch.stack([chart[i, k][group] for k in cuts])
                            second = torch.stack([chart[k, j][group] for k in cuts])
                            pairs = (first[:, :, None] + second[:, None]).logsumexp(0)
                            ways.append((rules[:, of] + pairs).logsumexp((2, 3)).T)
                        groups.append(torch.stack(ways).logsumexp(0))
                    value = torch.cat(groups).T
                chart[i, j] = value + extra[row, i, j]
        totals.append(single[row] if n == 1 else (root + chart[0, n][-1]).logsumexp(0))
    return torch.stack(totals)


def tables_of(potentials):
    parts = potentials.root, potentials.rules, *potentials.leaf_tables
    return [part.detach().clone() for part in (*parts, potentials.both_leaves, potentials.single)]


def by_autograd(total, tables, lengths):
    """Log partition, span marginals, and gradients in all tables."""
    batch, n = len(lengths), int(lengths.max())
    extra = tables[0].new_zeros(batch, n, n + 1, len(tables[0]), requires_grad=True)
    tables = [table.requires_grad_() for table in tables]
    value = total(tables, lengths, extra)
    parts = torch.autograd.grad(value.sum(), [extra, *tables], materialize_grads=True)
    return value.detach(), *parts


def ours(tables, lengths, extra):
    potentials = GivenPotentials(*tables, lengths)
    return log_partition(potentials, inside(potentials, extra))


def potentials_of(lengths, labels=4, classes=1, preterminals=5, words=30, sharp=3.0):
    torch.manual_seed(sum(lengths))
    model = NeuralPCFG(words, labels, preterminals, 8, parent_classes=classes).double()
    for parameter in model.parameters():
        parameter.data *= sharp
    x = Sentences(torch.randint(words, (len(lengths), max(lengths))), torch.tensor(lengths))
    with torch.no_grad():
        return model.potentials(x)


def same(potentials, **tolerance):
    tables, lengths = tables_of(potentials), potentials.lengths
    found, expected = by_autograd(ours, tables, lengths), by_autograd(plain, tables, lengths)
    for mine, theirs in zip(found, expected, strict=True):
        assert mine.isfinite().all()
        torch.testing.assert_close(mine, theirs, **tolerance)
    torch.testing.assert_close(span_marginals(potentials), expected[1], **tolerance)
    return expected[1]


@pytest.mark.parametrize("classes", [1, 2, 4])
@pytest.mark.parametrize("lengths", [[1], [2, 1], [3, 2, 1], [4], [5, 5, 3], [12, 1, 7, 2]])
def test_marginals_partition_and_gradients(lengths, classes):
    marginals = same(potentials_of(lengths, classes=classes))
    nodes = torch.tensor(lengths).double() - 1
    torch.testing.assert_close(marginals.sum((1, 2, 3)), nodes)


@pytest.mark.parametrize("classes", [1, 2])
def test_a_long_sentence_in_single_precision(classes):
    potentials = potentials_of([60, 41], classes=classes, sharp=6.0 if classes == 1 else 2.0)
    single = [table.float() for table in tables_of(potentials)]
    found = by_autograd(ours, single, potentials.lengths)
    expected = by_autograd(ours, [table.double() for table in single], potentials.lengths)
    for mine, exact in zip(found, expected, strict=True):
        assert mine.isfinite().all()
        torch.testing.assert_close(mine.double(), exact, atol=1e-2, rtol=2e-2)


@pytest.mark.parametrize("classes", [1, 2])
def test_rules_that_do_not_exist_stay_finite(classes):
    potentials = potentials_of([6, 4], classes=classes)
    tables = tables_of(potentials)
    tables[1][:, 1:] = IMPOSSIBLE  # of three labels no phrase of long parts can be made
    tables[2][:, :, 2] = IMPOSSIBLE
    same(GivenPotentials(*tables, potentials.lengths))


def test_the_graph_may_be_gone_through_twice():
    potentials = potentials_of([5, 3], classes=2)
    tables = [table.requires_grad_() for table in tables_of(potentials)]
    total = log_partition(GivenPotentials(*tables, potentials.lengths)).sum()
    first = torch.autograd.grad(total, tables[1:3], retain_graph=True)
    second = torch.autograd.grad(total, tables[1:3])
    for a, b in zip(first, second, strict=True):
        assert torch.equal(a, b)

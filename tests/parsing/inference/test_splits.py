"""Weights of splits and their gradient, against sums over all pairs of labels."""

import torch

from gfnem.parsing.inference.splits import Splits, split_weights


def case(labels: int = 3):
    """Values, rules and nodes in two groups, of 5, 4 and 7 words."""
    torch.manual_seed(0)
    logs = torch.randn(40, labels, dtype=torch.float64, requires_grad=True)
    rules = torch.rand(4, labels**2, dtype=torch.float64, requires_grad=True)
    rows = torch.randint(40, (2, 3, 5))
    return logs, rules, rows, torch.tensor([3, 0, 3]), [(2, 5), (1, 7)]


def splits(rows, entries, groups):
    names, start = [], 0
    for count, widest in groups:
        left, right = rows[:, start : start + count]
        names += [left[:, : widest - 3].flatten(), right[:, 1 : widest - 2].flatten()]
        start += count
    return Splits(torch.cat(names), entries, groups)


def weigh(logs, rules, rows, entries, groups):
    labels = logs.shape[1]
    peaks = logs.detach().amax(1)
    columns = rules.detach().unflatten(1, (labels, labels)).mT.flatten(1)
    values = (logs - peaks[:, None]).exp()
    return split_weights(values, peaks, rules, columns, splits(rows, entries, groups))


def listed(logs, rules, rows, entries, groups):
    """As `weigh`, split after split and pair after pair."""
    labels, found, start = logs.shape[1], torch.zeros(3, 4, dtype=torch.float64), 0
    for count, widest in groups:
        for node in range(start, start + count):
            own = rules[entries[node]].view(labels, labels).log()
            for split in range(widest - 3):
                left, right = logs[rows[0, node, split]], logs[rows[1, node, split + 1]]
                both = left[:, None] + own + right
                found[node, split] = both.flatten().logsumexp(0)
        start += count
    return found


def test_weights_and_gradients_equal_sums_over_pairs():
    logs, rules, *rest = case()
    found, joints = weigh(logs, rules, *rest)
    expected = listed(logs, rules, *rest)
    assert not joints
    torch.testing.assert_close(found, expected)
    weights = torch.rand_like(found)
    ours = torch.autograd.grad((found * weights).sum(), (logs, rules))
    theirs = torch.autograd.grad((expected * weights).sum(), (logs, rules))
    torch.testing.assert_close(ours, theirs)


def test_without_gradient_it_says_what_the_right_child_may_be():
    logs, rules, *rest = case()
    with torch.no_grad():
        found, (first, second) = weigh(logs, rules, *rest)
    assert first.shape == (2, 2, 3) and second.shape == (1, 4, 3)
    starts = splits(*rest).starts()
    assert [part.tolist() for part in starts] == [[0, 2, 4], [0, 2, 8]]
    torch.testing.assert_close(found, weigh(logs, rules, *rest)[0].detach())
    rows, entries = rest[0], rest[1]
    share = (second / second.sum(2, keepdim=True))[0]
    own = rules[entries[2]].view(3, 3)
    for split in range(4):
        left, right = logs[rows[0, 2, split]].exp(), logs[rows[1, 2, split + 1]].exp()
        expected = (left @ own) * right
        torch.testing.assert_close(share[split], (expected / expected.sum()).detach())


def test_what_weighs_nothing_has_no_gradient():
    logs, rules, *rest = case()
    with torch.no_grad():
        rules[0] = 0  # of the second node
    found, _ = weigh(logs, rules, *rest)
    assert (found[1, :2] <= -1e3).all() and found.isfinite().all()
    for gradient in torch.autograd.grad(found.sum(), (logs, rules)):
        assert gradient.isfinite().all()

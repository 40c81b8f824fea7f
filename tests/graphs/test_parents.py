"""Sums over the sets of parents that a layer permits, and draws of them, against listing."""

import torch

from gfnem.graphs.dags import parent_sets
from gfnem.graphs.parents import draw_parents, log_shares, partial_sums

N = 7  # two blocks of nodes


def some_scores():
    generator = torch.Generator().manual_seed(0)
    scores = 2 * torch.randn(1, N, 2**N, generator=generator, dtype=torch.float64)
    masks = torch.arange(2**N)
    own = (masks >> torch.arange(N)[:, None] & 1).bool()
    return scores.masked_fill(own, -1e30)


def permitted(placed: int, last: int):
    masks = torch.arange(2**N)
    return ((masks & ~placed) == 0) & (((masks & last) > 0) | ((masks == 0) & (placed == 0)))


def test_shares_and_draws_are_those_of_the_sets_that_are_permitted():
    torch.manual_seed(0)
    scores, count = some_scores(), 4000
    sums = partial_sums(scores)
    for node, placed, last in ((6, 0b0101011, 0b0100010), (0, 0b1111110, 0b1000000), (3, 0, 0)):
        weights = scores[0, node].masked_fill(~permitted(placed, last), -torch.inf)
        parts = [torch.full((1, count), part) for part in (node, placed, last)]
        share = log_shares(sums[-1], *(part[..., None].expand(-1, -1, N) for part in parts[1:]))
        assert torch.allclose(share[0, :, node], weights.logsumexp(0))
        p = weights.softmax(0)
        seen = torch.bincount(draw_parents(sums, *parts)[0], minlength=2**N) / count
        assert ((seen - p).abs() < 5 * (p * (1 - p) / count).sqrt() + 5 / count).all()
        assert (seen[p == 0] == 0).all()


def test_sums_in_blocks_are_sums_over_subsets():
    scores = some_scores()
    last = partial_sums(scores)[-1][0, 2]
    members = parent_sets(N).members()
    for mask in (0b1, 0b1011, 0b1111011):
        inside = ~(members & ~(mask >> torch.arange(N) & 1).bool()).any(1)
        masks = parent_sets(N).masks[inside]
        assert torch.allclose(last[mask], scores[0, 2, masks].logsumexp(0))

"""Sums over gaps against loops over them."""

import torch

from gfnem.parsing.policies.gap_mixing import GapMixing

FARTHEST = 16


def test_each_gap_sees_gated_sums_of_the_others_by_distance():
    torch.manual_seed(0)
    mixing = GapMixing(16).double()
    torch.nn.init.normal_(mixing.distance)
    gaps, counts = torch.randn(3, 20, 16, dtype=torch.float64), torch.tensor([20, 1, 7])
    found = mixing(gaps, counts)
    value, gate = mixing.read(gaps).chunk(2, 2)
    gated = value * gate.sigmoid()
    for row, count in enumerate(counts.tolist()):
        for here in range(20):
            seen = torch.zeros(8, 2, dtype=torch.float64)
            for there in range(count):
                apart = min(max(there - here, -FARTHEST), FARTHEST) + FARTHEST
                seen += mixing.distance[:, apart, None] * gated[row, there].view(8, 2)
            torch.testing.assert_close(found[row, here], mixing.write(seen.flatten()))


def test_at_first_half_of_the_heads_see_each_side_and_none_sees_itself():
    seen = GapMixing(8).distance != 0
    assert not seen[:, FARTHEST].any()
    assert seen[::2, :FARTHEST].all() and not seen[::2, FARTHEST:].any()
    assert seen[1::2, FARTHEST + 1 :].all() and not seen[1::2, :FARTHEST].any()

"""Where a checkerboard's signal is, by exact sums over all completions of all partial rows."""

import itertools

import torch

from gfnem.energies import Points
from gfnem.energies.codes import to_bits
from gfnem.energies.point_sets import SETS


def test_a_bit_is_even_until_the_other_three_leading_ones_are_written():
    """Of a uniform order's steps exactly one tells anything: the last of four bits."""
    bits, variables = 3, 6
    coding = Points("checkerboard", bits=bits, points=10, held_out=10).coding
    table = SETS["checkerboard"]().table(coding.grid).flatten()
    code = torch.arange(2**bits)
    pairs = torch.cartesian_prod(code, code)
    rows = torch.stack([to_bits(pairs[:, axis], bits) for axis in (0, 1)], 2).flatten(1)
    p = torch.zeros((2,) * variables, dtype=torch.double)
    p[tuple(rows.T)] = table
    leading = set(range(4))  # the two coarsest bits of either coordinate
    for size in range(variables):
        for written in itertools.combinations(range(variables), size):
            for bit in set(range(variables)) - set(written):
                others = [v for v in range(variables) if v not in (*written, bit)]
                both = p.sum(others) if others else p  # the axes left are in rising order
                both = both.movedim(sorted((*written, bit)).index(bit), -1)
                share = both[..., 1] / both.sum(-1)
                told = bit in leading and leading - {bit} <= set(written)
                if told:
                    assert ((share < 1e-9) | (share > 1 - 1e-9)).all()
                else:  # of what can come about
                    assert torch.allclose(share[~share.isnan()], torch.tensor(0.5).double())

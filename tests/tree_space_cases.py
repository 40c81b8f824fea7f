"""Cases that every space of trees is held against."""

from math import comb

import torch

from gfnem.parsing.policies.topdown import TopDownPolicy
from gfnem.parsing.spaces.topdown import TopDownSpace
from gfnem.parsing.text.sentences import Sentences
from gfnem.testing import LatentSpaceTestCase

LABELS, WORDS = 2, 6


LENGTHS = (1, 2, 3, 4)


def catalan(n: int) -> int:
    return comb(2 * n, n) // (n + 1)


def shake(module: torch.nn.Module, seed: int = 0) -> torch.nn.Module:
    """Random weights everywhere, also where a policy starts at zero."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.4)
    return module.eval()


class TreeSpaceCase(LatentSpaceTestCase):
    frequency_samples = 1000

    def make_x(self):
        generator = torch.Generator().manual_seed(1)
        rows = [torch.randint(WORDS, (n,), generator=generator).tolist() for n in LENGTHS]
        return Sentences.from_lists(rows)

    def count_objects(self, row):
        n = LENGTHS[row]
        return catalan(n - 1) * LABELS ** (n - 1)


class TestTopDown(TreeSpaceCase):
    def make_space(self):
        return TopDownSpace(LABELS)

    def make_policy(self):
        return shake(TopDownPolicy(WORDS, LABELS, dim=8))

    def count_trajectories(self, row):
        return self.count_objects(row)

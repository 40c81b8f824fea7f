"""Words that come twice, whose rules are made once, against rules made for every place."""

import pytest
import torch

from gfnem.fixed_shapes import shapes_fixed
from gfnem.parsing.inference.bracketing import bracketing_log_joint
from gfnem.parsing.inference.draws import sample_trees, score_trees
from gfnem.parsing.inference.inside import inside, log_partition
from gfnem.parsing.inference.rule_potentials import RulePotentials

LENGTHS, WORDS, N, T = (7, 1, 4, 2, 7), 4, 6, 5


def tables(contexts):
    """Weights of a grammar, words by kind, and which kind each word of a batch is."""
    generator = torch.Generator().manual_seed(contexts)

    def random(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64).requires_grad_()

    kinds = torch.randint(WORDS, (len(LENGTHS), max(LENGTHS)), generator=generator)
    rules = random(contexts, N, N + T, N + T)
    return random(N + T), rules, random(WORDS, contexts, T), kinds


def figures(leaves, kinds, told):
    """All that rules with words go into, and its gradient, where kinds are told or not."""
    root, rules, emissions = leaves
    known = kinds if told else None
    lengths = torch.tensor(LENGTHS)
    potentials = RulePotentials.from_tables(root, rules, emissions[kinds], lengths, known)
    torch.manual_seed(0)
    trees, _ = sample_trees(potentials.detach(), inside(potentials).detach(), 3)
    symbol, row = torch.arange(N).repeat(2), torch.tensor([0, 4]).repeat_interleave(N)
    word = torch.arange(2 * N) % 7
    found = [
        log_partition(potentials),
        bracketing_log_joint(potentials, trees),
        score_trees(potentials, inside(potentials).detach(), trees),
        potentials.edge_rules(symbol, row, word, 6 - word),
        potentials.both_leaves,
        *(part for table in potentials.leaf_weights for part in table),
    ]
    total = sum(part.sum() for part in found if part.requires_grad)
    return found, torch.autograd.grad(total, leaves)


@pytest.mark.parametrize("contexts", [1, 3])
@pytest.mark.parametrize("fixed", [False, True])
def test_kinds_of_words_change_nothing(contexts, fixed):
    *leaves, kinds = tables(contexts)
    with shapes_fixed(fixed):
        told, not_told = (figures(leaves, kinds, told) for told in (True, False))
    for mine, theirs in zip((*told[0], *told[1]), (*not_told[0], *not_told[1]), strict=True):
        torch.testing.assert_close(mine, theirs)


def test_rules_with_words_are_made_once_for_each_kind():
    root, rules, emissions, kinds = tables(1)
    lengths = torch.tensor(LENGTHS)
    potentials = RulePotentials.from_tables(root, rules, emissions[kinds], lengths, kinds)
    (first, _), place = potentials.leaf_rows
    assert len(first[0]) == len(kinds.unique()) < kinds.numel()
    some = potentials.some(torch.tensor([3, 2]))
    assert len(some.leaf_rows[0][0][0]) == len(kinds[[3, 2], :4].unique())
    assert place.shape == (kinds.numel(),)
    torch.testing.assert_close(some.both_leaves[1], potentials.both_leaves[2, :3])


@pytest.mark.parametrize("told", [False, True])
def test_sentences_of_one_word_have_no_neighbours(told):
    root, rules, emissions, kinds = tables(1)
    kinds = kinds[:, :1]
    known = kinds if told else None
    lengths = torch.ones(len(kinds), dtype=torch.long)
    potentials = RulePotentials.from_tables(root, rules, emissions[kinds], lengths, known)
    assert potentials.both_leaves.shape == (len(kinds), 0, 1, N)
    words = (root[N:] + emissions[kinds[:, 0], 0]).logsumexp(-1)
    torch.testing.assert_close(log_partition(potentials), words)

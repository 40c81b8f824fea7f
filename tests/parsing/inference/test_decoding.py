import random

import pytest
import torch
from brute import all_trees, keys, random_tables

from gfnem.parsing.inference.decoding import (
    CROSSING,
    crossing,
    max_span_tree,
    minimum_risk,
    span_counts,
)
from gfnem.parsing.inference.draws import sample_trees
from gfnem.parsing.inference.inside import inside, span_marginals
from gfnem.parsing.inference.rule_potentials import RulePotentials


@pytest.mark.parametrize("length", [1, 2, 3, 5, 7])
def test_best_tree_of_all(length):
    scores = torch.randn(1, 8, 9, generator=torch.Generator().manual_seed(length))
    trees = all_trees(length, 1)
    sums = scores[0][trees.left[0], trees.right[0]].sum(-1)
    # Padded to eight words, beside a sentence that fills the width.
    best = max_span_tree(scores.expand(2, -1, -1), torch.tensor([length, 8]))
    assert keys(best) == [keys(trees)[int(sums.argmax())]]
    assert not best.split[0, :, length - 1 :].any()


def test_labels_are_the_best_of_the_chosen_spans():
    spans = torch.rand(3, 6, 7, 5, generator=torch.Generator().manual_seed(0))
    lengths = torch.tensor([6, 1, 4])
    best, plain = minimum_risk(spans, lengths)[0], max_span_tree(spans.sum(3), lengths)
    row = torch.arange(3)[:, None, None]
    expected = spans.argmax(3)[row, best.left, best.right] * best.mask()
    assert torch.equal(best.label, expected) and expected.any()
    assert torch.equal(best.split, plain.split) and not plain.label.any()


def test_counts_weigh_every_tree():
    trees = all_trees(4, 2)
    generator = torch.Generator().manual_seed(0)
    weights = torch.rand(1, trees.samples, generator=generator)
    counts, labelled = span_counts(trees, weights), span_counts(trees, weights, labels=2)
    expected = torch.zeros(4, 5, 2)
    for sample in range(trees.samples):
        for left, right, label in trees.spans(0, sample):
            expected[left, right, label] += weights[0, sample]
    torch.testing.assert_close(labelled[0], expected)
    torch.testing.assert_close(counts, labelled.sum(-1))


def test_frequencies_of_samples_approach_exact_posteriors():
    lengths = (5, 1, 6)
    potentials = RulePotentials.from_tables(*random_tables(3, 3, lengths))
    generator = torch.Generator().manual_seed(0)
    trees, _ = sample_trees(potentials, inside(potentials), 4000, generator=generator)
    exact = span_marginals(potentials).float()
    counts = span_counts(trees, labels=3)
    assert (counts - exact).abs().max() < 0.04  # four standard errors of a fair coin
    assert counts.sum((1, 2, 3)).tolist() == pytest.approx([4, 0, 5], rel=1e-4)


def test_spans_that_cross_a_pause():
    rng = random.Random(0)
    for _ in range(50):
        length = rng.randint(1, 8)
        cuts = sorted(rng.sample(range(1, length), rng.randint(0, length - 1)))
        parts = list(zip([0, *cuts], [*cuts, length], strict=True))
        pauses = torch.zeros(2, 8, dtype=torch.bool)
        pauses[0, [cut - 1 for cut in cuts]] = True
        found = crossing(pauses, torch.tensor([length, 8]))
        assert not found[1].any()
        for left in range(length):
            for right in range(left + 1, length + 1):
                within = any(start <= left and right <= end for start, end in parts)
                whole = left in [start for start, _ in parts] and right in [end for _, end in parts]
                assert bool(found[0, left, right]) == (not within and not whole)


def test_spans_that_cross_a_pause_count_less():
    spans = torch.rand(1, 6, 7, 2, generator=torch.Generator().manual_seed(3))
    lengths, pauses = torch.tensor([6]), torch.zeros(1, 6, dtype=torch.bool)
    trees = all_trees(6, 1)
    chosen = set()
    for cuts in ([], [1], [3], [1, 3], [0, 1, 4]):
        pauses[:], pauses[0, cuts] = False, True
        counts = torch.where(crossing(pauses, lengths), CROSSING, 1.0) * spans.sum(3)
        sums = counts[0][trees.left[0], trees.right[0]].sum(-1)
        best, probable = minimum_risk(spans, lengths, pauses)
        assert torch.equal(best.split[0, 0], trees.split[0, int(sums.argmax())])
        assert torch.equal(probable, spans.sum(3))
        chosen.add(tuple(best.split.flatten().tolist()))
    assert len(chosen) > 2

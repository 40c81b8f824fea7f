"""Rules of its own for each sentence: everything is as with each sentence alone."""

import pytest
import torch

from gfnem.parsing.inference.bracketing import bracketing_log_joint
from gfnem.parsing.inference.by_sentence import SentencePotentials
from gfnem.parsing.inference.draws import sample_trees, score_trees
from gfnem.parsing.inference.expansion import expanded
from gfnem.parsing.inference.inside import inside, log_partition, span_marginals
from gfnem.parsing.inference.log_joint import tree_log_joint
from gfnem.parsing.inference.viterbi import viterbi

LABELS, PRETERMINALS, LENGTHS = 3, 4, (6, 1, 4, 2)


def potentials(seed=0) -> SentencePotentials:
    generator = torch.Generator().manual_seed(seed)
    batch, symbols, n = len(LENGTHS), LABELS + PRETERMINALS, max(LENGTHS)

    def numbers(*shape):
        drawn = torch.randn(*shape, generator=generator, dtype=torch.float64) * 2
        return drawn.requires_grad_()

    tables = numbers(batch, symbols), numbers(batch, LABELS, symbols, symbols)
    words = numbers(batch, n, PRETERMINALS)
    return SentencePotentials.from_tables(*tables, words, torch.tensor(LENGTHS))


def trees(made, samples=5):
    torch.manual_seed(1)
    with torch.no_grad():
        return sample_trees(made.detach(), inside(made.detach()), samples)[0]


FUNCTIONS = {
    "inside": lambda made, z: log_partition(made),
    "log_joint": lambda made, z: tree_log_joint(made, z).sum(2),
    "bracketing": lambda made, z: bracketing_log_joint(made, z),
    "profiles": lambda made, z: made.word_profiles().sum((1, 2)),
    "score": lambda made, z: score_trees(made, inside(made), z).sum(2),
    "marginals": lambda made, z: span_marginals(made).square().sum((1, 2, 3)),
    "expanded": lambda made, z: (
        expanded(made, inside(made).squeeze(3)).clamp(-99).sum((1, 2, 3, 4))
    ),
    "viterbi": lambda made, z: viterbi(made)[1],
    "levels": lambda made, z: made.word_levels().sum(1),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_as_with_each_sentence_alone(name):
    made = potentials()
    z = trees(made)
    together = FUNCTIONS[name](made, z)
    alone = [FUNCTIONS[name](made.alone(row), z[row : row + 1]) for row in range(len(LENGTHS))]
    assert torch.allclose(together, torch.cat(alone), atol=1e-8)
    if together.requires_grad:
        inputs = made.start, made.productions, made.words
        of = lambda value: torch.autograd.grad(value.sum(), inputs, allow_unused=True)  # noqa: E731
        for one, other in zip(of(together), of(torch.cat(alone)), strict=True):
            if one is None or other is None:  # no table that the other has a use for
                assert not any(part is not None and part.abs().any() for part in (one, other))
                continue
            assert torch.allclose(one, other, atol=1e-8)


def test_the_best_trees_are_those_of_each_sentence():
    made = potentials(2)
    best, score = viterbi(made)
    assert torch.allclose(tree_log_joint(made, best).sum(2)[:, 0], score)


def test_draws_are_of_the_posterior_and_of_bottom_up_rules():
    made = potentials(3).detach()
    z = trees(made)
    exact = tree_log_joint(made, z).sum(2) - log_partition(made)[:, None]
    assert torch.allclose(score_trees(made, inside(made), z).sum(2), exact)
    row = torch.tensor([2, 0])
    first, second = torch.tensor([1, 2]), torch.tensor([0, 1])
    for label, found in enumerate(made.heads(row, first, second).T):
        assert torch.equal(found, made.rule(torch.full_like(row, label), row, first, second))


def test_spans_count_beside_rules():
    made = potentials(4)
    extra = torch.randn(len(LENGTHS), max(LENGTHS), max(LENGTHS) + 1, LABELS, dtype=torch.float64)
    whole = inside(made, extra)
    for row in range(len(LENGTHS)):
        alone = inside(made.alone(row), extra[row : row + 1])
        assert torch.allclose(whole[row], alone[0], atol=1e-8)


def test_tables_that_do_not_fit_are_refused():
    made = potentials()
    with pytest.raises(ValueError, match="do not fit"):
        SentencePotentials.from_tables(made.start[:2], made.productions, made.words, made.lengths)

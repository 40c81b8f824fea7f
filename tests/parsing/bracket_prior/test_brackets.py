"""Brackets and the binary trees that agree with them; energies of shapes; their training."""

import random
from dataclasses import replace

import pytest
import torch
from brute import all_trees, keys, spans_of
from sharp_energy import sharp_energy

from gfnem.errors import UserError
from gfnem.mcmc import metropolis
from gfnem.parsing.bracket_prior.brackets import Brackets, agreeing, all_bracketings
from gfnem.parsing.bracket_prior.energy import BracketEnergy
from gfnem.parsing.bracket_prior.training import (
    PriorTraining,
    log_likelihood,
    right_branching,
    uniform,
)
from gfnem.parsing.spaces.moves import TreeMoves
from gfnem.parsing.text.sentences import Sentences
from gfnem.parsing.trees.trees import Trees


def some_trees(lengths, samples=3) -> Trees:
    torch.manual_seed(3)
    return TreeMoves(2).initial(Sentences.from_lists([[1] * n for n in lengths]), samples)


def random_brackets(n: int, rng: random.Random) -> set:
    """The spans of a random tree over `n` words: those of a binary one, some left out."""
    shapes = spans_of(all_trees(n, 1))
    return {span for span in rng.choice(shapes) if rng.random() < 0.5} | {(0, n)}


@pytest.mark.parametrize("n", [2, 3, 5, 7])
def test_all_shapes_are_listed_once(n):
    shapes = all_bracketings(n)
    assert sorted(keys(shapes)) == sorted(keys(all_trees(n, 1)))
    assert shapes.left.shape[1] == {2: 1, 3: 2, 5: 14, 7: 132}[n]


@pytest.mark.parametrize("n", [3, 5, 7])
def test_trees_that_agree_are_those_that_hold_every_bracket(n):
    rng = random.Random(n)
    gold = [random_brackets(n, rng) for _ in range(20)]
    brackets = Brackets.from_spans(gold, [n] * 20)
    shapes = spans_of(all_bracketings(n))
    expected = torch.tensor([[own <= spans for spans in shapes] for own in gold])
    assert torch.equal(agreeing(brackets), expected)
    counts = brackets.log_counts[:, 0, n].exp()
    torch.testing.assert_close(counts, expected.sum(1).float(), rtol=1e-4, atol=1e-4)


def test_binarising_is_uniform_over_the_trees_that_agree():
    torch.manual_seed(0)
    gold = [{(0, 6), (1, 3)}, {(0, 2)}, {(0, 5)}]
    brackets = Brackets.from_spans(gold, [6, 2, 5])
    draws = 4000
    drawn = brackets.binarised(torch.arange(3).repeat_interleave(draws))
    assert torch.equal(drawn.lengths[:, 0], brackets.lengths.repeat_interleave(draws))
    for row, n in ((0, 6), (2, 5)):
        own = drawn[row * draws : (row + 1) * draws].resized()
        names = keys(own.map(lambda part: part.transpose(0, 1)))
        allowed = agreeing(brackets[torch.tensor([row])])[0]
        expected = [key for key, ok in zip(keys(all_bracketings(n)), allowed, strict=True) if ok]
        counts = torch.tensor([names.count(key) for key in expected])
        assert counts.sum() == draws and len(expected) == 14
        share = draws / len(expected)
        assert ((counts - share) ** 2 / share).sum() < 34.5  # 99.9 %, 13 degrees of freedom


@torch.no_grad()
def naive(energy: BracketEnergy, left: int, right: int, split: dict) -> tuple:
    """A subtree's vector and energy, node by node."""
    if right - left == 1:
        return energy.word[0], 0.0
    middle = split[left, right]
    first, below = naive(energy, left, middle, split)
    second, beside = naive(energy, middle, right, split)
    a, b, c, new = energy.join(torch.cat([first, second])).chunk(4)
    total = a.exp() + b.exp() + c.exp()
    state = (a.exp() * first + b.exp() * second + c.exp() * new.tanh()) / total
    return state, below + beside + float(energy.score(state))


def test_energy_equals_a_recursion_tree_by_tree():
    energy, lengths = sharp_energy(), [7, 1, 2, 12, 3]
    trees = some_trees(lengths)
    together = energy(trees).detach()
    for row, n in enumerate(lengths):
        for sample in range(3):
            parts = (p[row, sample, : n - 1].tolist() for p in
                     (trees.left, trees.right, trees.split))  # fmt: skip
            split = {(i, j): k for i, j, k in zip(*parts, strict=True)}
            expected = naive(energy, 0, n, split)[1]
            assert float(together[row, sample]) == pytest.approx(expected, abs=1e-3)


def test_padding_batch_and_labels_do_not_matter():
    energy, lengths = sharp_energy(), [7, 1, 2, 12, 3]
    trees = some_trees(lengths)
    together = energy(trees)
    gradient = torch.autograd.grad(together.sum(), list(energy.parameters()))
    apart = []
    for row in range(len(lengths)):
        alone = trees[row : row + 1].resized()
        alone = replace(alone, label=torch.zeros_like(alone.label))
        apart.append(energy(alone)[0])
    torch.testing.assert_close(torch.stack(apart), together, rtol=1e-4, atol=1e-4)
    alone = torch.autograd.grad(torch.stack(apart).sum(), list(energy.parameters()))
    for ours, theirs in zip(gradient, alone, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-3)
    assert not together[1].any()  # a word alone has no shape


@pytest.mark.slow
def test_rotations_lead_to_the_energys_distribution():
    """Chi-square of chains that all start from one tree."""
    energy = sharp_energy()
    shapes = all_bracketings(5)
    with torch.no_grad():
        exact = (-energy(shapes))[0].softmax(0)
    assert exact.max() > 2 / 14 and exact.min() < 0.5 / 14
    chains = 6000
    start = shapes.take(torch.zeros(1, chains, dtype=torch.long))
    x = Sentences.from_lists([[1] * 5])
    torch.manual_seed(0)
    z, _, _ = metropolis(TreeMoves(1, 1.0), lambda z: -energy(z), x, start, 60)
    place = {key: at for at, key in enumerate(keys(shapes))}
    counts = torch.bincount(torch.tensor([place[key] for key in keys(z)]), minlength=14)
    assert ((counts - chains * exact) ** 2 / (chains * exact)).sum() < 34.5  # 99.9 %


@pytest.mark.slow
def test_contrast_learns_a_known_distribution():
    """From draws of another energy's distributions over the shapes of 5 and of 6 words."""
    other = sharp_energy()
    with torch.no_grad():
        truth = {n: (-other(all_bracketings(n)))[0].softmax(0) for n in (5, 6)}
    draws = 3000
    spans = {n: spans_of(all_bracketings(n)) for n in truth}
    data = Brackets.from_spans(
        [spans[n][at] for n in truth for at in truth[n].multinomial(draws, True).tolist()],
        [n for n in truth for _ in range(draws)],
    )
    energy = BracketEnergy(16)
    updates = 200
    contrast = PriorTraining(energy, data, 160, moves=5, penalty=1e-4, rate=1e-2, updates=updates)
    for _ in range(updates):
        contrast.update()
    for n, p in truth.items():
        with torch.no_grad():
            learned = (-energy(all_bracketings(n)))[0].softmax(0)
        before = float((p - 1 / len(p)).abs().sum() / 2)
        # what the shares of so many draws are off by on the mean
        noise = float((2 * p * (1 - p) / (torch.pi * draws)).sqrt().sum() / 2)
        assert float((learned - p).abs().sum() / 2) < 3 * noise
        assert before > 0.25


def test_likelihood_of_brackets():
    gold = [{(0, 4), (1, 3)}, {(0, 3)}, {(0, 4)}]
    brackets = Brackets.from_spans(gold, [4, 3, 4])
    energy = sharp_energy()
    value = log_likelihood(lambda z: -energy(z), brackets).exp()
    with torch.no_grad():
        p = (-energy(all_bracketings(4)))[0].softmax(0)
    held = torch.tensor([(1, 3) in spans for spans in spans_of(all_bracketings(4))])
    assert float(value[0]) == pytest.approx(float(p[held].sum()), abs=1e-5)
    torch.testing.assert_close(value[1:], torch.ones(2))  # every shape agrees
    assert float(log_likelihood(uniform, brackets)[0].exp()) == pytest.approx(2 / 5)


def test_the_baseline_is_fitted():
    """Three of four trees right-branching: of the two shapes of three words, exactly that share."""
    brackets = Brackets.from_spans([{(1, 3)}, {(1, 3)}, {(1, 3)}, {(0, 2)}], [3] * 4)
    value = log_likelihood(right_branching(brackets), brackets).exp()
    torch.testing.assert_close(value, torch.tensor([0.75, 0.75, 0.75, 0.25]), atol=1e-3, rtol=0)


def test_saved_and_loaded(tmp_path):
    energy, trees = sharp_energy(), some_trees([6, 3])
    energy.save(tmp_path / "prior.pt")
    assert torch.equal(BracketEnergy.load(tmp_path / "prior.pt")(trees), energy(trees))
    torch.save({"kind": "gfnem prior over tree shapes"}, tmp_path / "half.pt")
    with pytest.raises(UserError, match=r"half.pt: a damaged prior"):
        BracketEnergy.load(tmp_path / "half.pt")

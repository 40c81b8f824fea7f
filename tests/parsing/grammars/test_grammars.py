"""Grammars as generative models: the shipped test case, and what they sample."""

import pytest
import torch
from brute import all_trees, keys

from gfnem.parsing import NeuralPCFG, Sentences, SimplePCFG, TabularGrammar, TopDownSpace
from gfnem.parsing.inference.bracketing import bracketing_log_joint
from gfnem.parsing.inference.draws import sample_trees
from gfnem.parsing.inference.inside import inside
from gfnem.testing import TargetTestCase

WORDS, LABELS = 6, 2

TOY = """
S -> NP VP [0.7] | 'go' [0.1] | VP 'now' NP [0.2]
NP -> 'dogs' [0.85] | NP PP [0.15]
PP -> 'with' NP [1.0]
VP -> V NP [0.8] | V [0.2]
V -> 'see' [0.5] | 'saw' [0.5]
"""


class GrammarCase(TargetTestCase):
    def make_x(self):
        return Sentences.from_lists([[1, 2, 3, 4], [5], [3, 1]])

    def make_latents(self, x):
        target = self.make_target()
        with torch.no_grad():
            potentials = target.potentials(x)
            return sample_trees(potentials, inside(potentials), 30)[0]

    def enumerate_latents(self, x):
        return all_trees(int(x.lengths[0]), self.make_target().nonterminals)

    def take_latent(self, z, row):
        return z[row : row + 1].resized()


class TestNeuralPCFG(GrammarCase):
    frequency_samples = 4000

    def make_target(self):
        torch.manual_seed(2)
        return NeuralPCFG(WORDS, LABELS, 3, dim=8)


class TestSimplePCFG(GrammarCase):
    frequency_samples = 4000

    def make_target(self):
        torch.manual_seed(2)
        return SimplePCFG(WORDS, LABELS, 3, dim=8)


class TestSimplePCFGOfLowRank(GrammarCase):
    def make_target(self):
        torch.manual_seed(2)
        return SimplePCFG(WORDS, 3, 3, rank=LABELS, dim=8)


class TestTabularGrammar(GrammarCase):
    @pytest.fixture(autouse=True)
    def _grammar(self, tmp_path):
        self.path = tmp_path / "toy.pcfg"
        self.path.write_text(TOY)

    def make_target(self):
        return TabularGrammar(str(self.path))

    def make_x(self):
        words = self.make_target().vocabulary
        rows = (["dogs", "see", "dogs"], ["go"], ["see", "dogs", "now", "dogs"], ["dogs", "saw"])
        return Sentences.from_lists([[words.index(word) for word in row] for row in rows])


@pytest.mark.slow
def test_sentences_of_a_converted_grammar_come_as_often_as_it_says(tmp_path):
    path = tmp_path / "toy.pcfg"
    path.write_text(TOY)
    model = TabularGrammar(str(path))
    torch.manual_seed(0)
    x, z = model.sample(20_000, max_length=40)
    sentences = [
        tuple(row[:n]) for row, n in zip(x.tokens.tolist(), x.lengths.tolist(), strict=True)
    ]
    assert torch.isfinite(model.log_joint(x, z)).all()
    assert (model.log_joint(x, z)[:, 0] <= model.log_marginal(x) + 1e-4).all()
    kinds = sorted(set(sentences), key=sentences.count, reverse=True)[:12]
    exact = model.log_marginal(Sentences.from_lists(kinds)).exp()
    for kind, probability in zip(kinds, exact.tolist(), strict=True):
        # longer sentences than 40 are so rare that being without them does not show
        error = 4 * (probability * (1 - probability) / 20_000) ** 0.5 + 0.002
        assert abs(sentences.count(kind) / 20_000 - probability) < error, kind


def test_sampled_trees_are_complete_and_in_preorder():
    torch.manual_seed(0)
    model = NeuralPCFG(WORDS, 3, 4, dim=8)
    x, z = model.sample(200, max_length=9)
    space = TopDownSpace(3)
    assert int(x.lengths.max()) <= 9
    state = space.final_state(x, z)
    assert space.is_final(state).all()
    first, second = z.child_index()
    for row in range(len(x)):
        n = int(x.lengths[row])
        spans = {(left, right) for left, right, _ in z.spans(row)}
        assert len(spans) == n - 1 and (n == 1 or (0, n) in spans)
        for node in range(n - 1):
            for child, left, right in (
                (first, z.left, z.split), (second, z.split, z.right)
            ):  # fmt: skip
                at = int(child[row, 0, node])
                if at >= 0:
                    assert int(z.left[row, 0, at]) == int(left[row, 0, node])
                    assert int(z.right[row, 0, at]) == int(right[row, 0, node])


def test_climbing_bracketings_is_climbing_the_marginal():
    """The posterior mean of the bracketing's gradient is the gradient of log p(x)."""
    torch.manual_seed(0)
    model = NeuralPCFG(WORDS, LABELS, 3, dim=8).double()
    x = Sentences.from_lists([[1, 2, 3, 1, 5]])
    trees = all_trees(5, LABELS)
    assert len(set(keys(trees))) == 14 * LABELS**4
    weight = model.log_joint(x, trees).detach().softmax(1)
    collapsed = (weight * model.collapsed_log_joint(x, trees)).sum()
    parameters = [p for p in model.parameters() if p is not model.start]
    ours = torch.autograd.grad(collapsed, parameters)
    exact = torch.autograd.grad(model.log_marginal(x).sum(), parameters)
    for a, b in zip(ours, exact, strict=True):
        assert torch.allclose(a, b, atol=1e-9)
    plain = model.log_joint(x, trees)
    assert (bracketing_log_joint(model.potentials(x), trees) > plain).all()


def test_tables_of_a_fixed_grammar_are_kept_until_it_changes():
    model = NeuralPCFG(6, 2, 3, dim=8).requires_grad_(False)
    with torch.inference_mode():  # as in validation: such tensors must not be met in training
        inside = model._fixed_tables()
        assert model._fixed_tables() is not inside
    first = model._fixed_tables()
    assert model._fixed_tables() is first and not first[0].is_inference()
    with torch.no_grad():
        next(model.parameters()).add_(1.0)
    assert model._fixed_tables() is not first
    assert model.double()._fixed_tables()[0].dtype == torch.float64


@pytest.mark.parametrize(
    "text, ends",
    [
        ("S -> A S [0.9999] | A A [0.0001]\nA -> 'a' [1.0]\n", 1.0),
        ("S -> S S [0.49] | 'a' [0.51]\n", 1.0),
        ("S -> S S [0.51] | 'a' [0.49]\n", 49 / 51),
        ("S -> S T [0.51] | 'a' [0.49]\nT -> S T [0.51] | 'b' [0.49]\n", 49 / 51),
    ],
    ids=["long", "short", "not all end", "two symbols"],
)
def test_derivations_end_as_often_as_they_do(tmp_path, text, ends):
    """Where sentences are long, too: with two children and one leaf it is `z = p z z + 1 - p`."""
    (tmp_path / "toy.pcfg").write_text(text)
    root, _, _ = TabularGrammar(tmp_path / "toy.pcfg").production_probabilities()
    assert float(root.sum()) == pytest.approx(ends, abs=1e-5)

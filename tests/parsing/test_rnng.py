"""The recurrent generator: scored all at once, and step by step straight from the definition."""

import itertools

import pytest
import torch
from brute import all_trees, keys

from gfnem.parsing import RNNG, Sentences, TopDownPolicy, TopDownSpace, Trees
from gfnem.parsing.rnng import Stack
from gfnem.testing import TargetTestCase

WORDS = 4
FIELDS = ("left", "right", "split", "label")


def make_model(words=WORDS, scale=3.0, closing=0.0, dim=6):
    """Weights large enough that stacks matter."""
    torch.manual_seed(3)
    model = RNNG(words, dim=dim)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn_like(parameter) * scale / dim**0.5)
        model.close_net.bias.fill_(closing)
        model.word_net.weight *= 2
    return model


def actions(trees: Trees, sample: int) -> str:
    """One tree of a batch of one sentence as S(hift) and R(educe)."""
    nodes = {
        (int(i), int(j)): int(k)
        for i, j, k in zip(
            trees.left[0, sample], trees.right[0, sample], trees.split[0, sample], strict=True
        )
    }

    def walk(i, j):
        return "S" if j - i == 1 else walk(i, nodes[i, j]) + walk(nodes[i, j], j) + "R"

    return walk(0, int(trees.lengths[0]))


@torch.no_grad()
def step_by_step(model, tokens, trees: Trees, sample: int) -> float:
    """`log p(x, z)`, one choice after the other."""
    stack, row, total = Stack(model, 1, len(tokens)), torch.zeros(1, dtype=torch.long), 0.0
    for action in [*actions(trees, sample), "END"]:
        state = stack.state(row)[0]
        if stack.size[0] > 0:
            close = model.close_logit(state, stack.size[0] == 1).sigmoid()
            total += float((1 - close if action == "S" else close).log())
        if action == "S":
            word = tokens[int(stack.read[0])]
            total += float(model.word_logits(state).log_softmax(0)[word])
            stack.shift(row, torch.tensor([word]))
        elif action == "R":
            stack.reduce(row)
    assert int(stack.size[0]) == 1
    found = [part[0].tolist() for part in stack.nodes()]
    assert found == [part[0, sample].tolist() for part in (trees.left, trees.right, trees.split)]
    return total


@pytest.mark.parametrize("length", [1, 2, 3, 5])
def test_all_at_once_equals_step_by_step(length):
    model = make_model()
    tokens = torch.randint(WORDS, (length,)).tolist()
    trees = all_trees(length, 1)
    together = model.log_joint(Sentences.from_lists([tokens]), trees)[0]
    apart = [step_by_step(model, tokens, trees, sample) for sample in range(trees.samples)]
    torch.testing.assert_close(together.detach(), torch.tensor(apart), rtol=0, atol=2e-5)
    assert length < 3 or together.std() > 0.1  # trees do differ


def test_all_derivations_sum_to_one():
    model = make_model(words=2, scale=1.5, closing=2.0)
    terms = []
    for length in range(1, 8):
        x = Sentences.from_lists(list(itertools.product(range(2), repeat=length)))
        trees = all_trees(length, 1)
        parts = (getattr(trees, name).expand(len(x), -1, -1) for name in FIELDS)
        with torch.no_grad():
            terms.append(float(model.log_joint(x, Trees(*parts, x.lengths)).double().exp().sum()))
    assert terms[1] > 0.05 and terms[6] < 1e-4, terms
    assert abs(sum(terms) - 1) < 1e-4, terms


class TestRNNG(TargetTestCase):
    frequency_samples = 3000

    def make_target(self):
        return make_model(scale=2.0, closing=1.0)

    def make_x(self):
        return Sentences.from_lists([[1, 2, 3, 0, 2, 1], [2], [3, 1], [0, 0, 1, 2]])

    def make_latents(self, x):
        policy = TopDownPolicy(WORDS, nonterminals=1, dim=4)
        return policy.sample(policy.encode(x), x, TopDownSpace(1), 20).latent

"""The recurrent generator: scored all at once, and step by step straight from the definition."""

import itertools

import pytest
import torch
from brute import all_trees

from gfnem.objectives import VarGrad
from gfnem.parsing import (
    RNNG,
    Sentences,
    ShiftReducePolicy,
    ShiftReduceSpace,
    TopDownPolicy,
    TopDownSpace,
    Trees,
)
from gfnem.parsing.grammars.rnng import Stack
from gfnem.posterior import Posterior
from gfnem.sampling import Exploration
from gfnem.testing import LatentSpaceTestCase, TargetTestCase

WORDS = 4
FIELDS = ("left", "right", "split", "label")


def make_model(words=WORDS, scale=3.0, closing=0.0, dim=6, memory=None):
    """Weights large enough that stacks matter."""
    torch.manual_seed(3)
    model = RNNG(words, dim, dropout=0.0, memory=memory)
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

    return walk(0, int(trees.lengths[0, 0]))


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


@pytest.mark.parametrize("memory", [None, 1, 2, 9])
@pytest.mark.parametrize("length", [1, 2, 3, 5])
def test_all_at_once_equals_step_by_step(length, memory):
    model = make_model(memory=memory)
    tokens = torch.randint(WORDS, (length,)).tolist()
    trees = all_trees(length, 1)
    together = model.log_joint(Sentences.from_lists([tokens]), trees)[0]
    apart = [step_by_step(model, tokens, trees, sample) for sample in range(trees.samples)]
    torch.testing.assert_close(together.detach(), torch.tensor(apart), rtol=0, atol=2e-5)
    assert length < 3 or together.std() > 0.1  # trees do differ


def test_a_narrow_memory_knows_the_topmost_items_alone():
    x, trees = Sentences.from_lists([[1, 2, 3, 0, 2]]), all_trees(5, 1)
    found = {
        memory: make_model(memory=memory).log_joint(x, trees).detach() for memory in (None, 1, 2, 5)
    }
    torch.testing.assert_close(found[5], found[None])  # no stack is higher than the sentence long
    for memory in (1, 2):
        assert (found[memory] - found[None]).abs().max() > 0.1
    stack, rows = Stack(make_model(memory=2), 2, 4), torch.arange(2)
    for words in ([0, 3], [1, 1], [2, 2]):
        stack.shift(rows, torch.tensor(words))
    torch.testing.assert_close(*stack.state(rows))
    stack.reduce(rows)  # now the word that tells them apart is the second from the top
    assert (stack.state(rows)[0] - stack.state(rows)[1]).abs().max() > 0.01


@pytest.mark.parametrize("memory", [None, 1])
def test_all_derivations_sum_to_one(memory):
    model = make_model(words=2, scale=1.5, closing=2.0, memory=memory)
    terms = []
    for length in range(1, 8):
        x = Sentences.from_lists(list(itertools.product(range(2), repeat=length)))
        trees = all_trees(length, 1)
        trees = trees[torch.zeros(len(x), dtype=torch.long)]
        with torch.no_grad():
            terms.append(float(model.log_joint(x, trees).double().exp().sum()))
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


@pytest.mark.parametrize("length", [1, 2])
def test_dreams_are_no_longer_than_asked_for(length):
    x, z = make_model(closing=1.0).sample(50, length)
    assert x.max_length == length and z.left.shape == (50, 1, length - 1)


def test_dropout_is_for_the_m_step_alone():
    model = RNNG(WORDS, 8, dropout=0.5)
    x, z = model.sample(8, 10)
    assert not torch.equal(model.log_joint(x, z), model.log_joint(x, z))
    with torch.no_grad():
        fixed = model.log_joint(x, z)
        torch.testing.assert_close(model.log_joint(x, z), fixed, rtol=0, atol=0)
    torch.testing.assert_close(model.eval().log_joint(x, z).detach(), fixed)


@pytest.mark.slow
@pytest.mark.parametrize("space", [TopDownSpace(1), ShiftReduceSpace()], ids=["down", "shift"])
def test_the_sampler_becomes_the_posterior(space):
    model = make_model(scale=2.0, closing=1.0)
    sentences = [[1, 2, 3, 0], [3, 1, 0], [0, 2], [2, 1, 3, 2, 0]]
    if isinstance(space, TopDownSpace):  # its odds of a split depend on the span alone: from five
        x, policy = (
            Sentences.from_lists(sentences[:3]),
            TopDownPolicy(WORDS, 1, dim=16, dropout=0),
        )  # words on
    else:  # not every distribution is such
        x, policy = Sentences.from_lists(sentences), ShiftReducePolicy(WORDS, 12, dim=16)
    before = distances(policy, space, model, x)
    optimizer = torch.optim.Adam(policy.parameters(), betas=(0.9, 0.99))
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-2, 200, pct_start=0.1)
    for _ in range(200):
        context = policy.encode(x, model.given(x))
        drawn = policy.sample(context, x, space, 32, Exploration(epsilon=0.05))
        scores = policy.score(context, space, drawn)
        with torch.no_grad():
            log_joint = model.log_joint(x, drawn.latent)
        policy.zero_grad()
        VarGrad()(scores, log_joint).mean().backward()
        optimizer.step()
        schedule.step()
    after = distances(policy, space, model, x)
    assert max(after) <= 0.02, (before, after)
    assert max(before) > 0.1  # there was something to learn


@torch.no_grad()
def distances(policy, space, model, x) -> list[float]:
    """Total variation between sampler and posterior for each sentence, all trees listed."""
    found = []
    for row in range(len(x)):
        one = x[torch.tensor([row])]
        trees = all_trees(int(one.lengths[0]), 1)
        log_q = Posterior(model, space, policy, one).log_prob(trees)[0]
        assert abs(float(log_q.exp().sum()) - 1) < 1e-4
        found.append(float((log_q.exp() - model.log_joint(one, trees)[0].softmax(0)).abs().sum()))
    return [distance / 2 for distance in found]


class TestShiftReduceSpace(LatentSpaceTestCase):
    def make_space(self):
        return ShiftReduceSpace()

    def make_x(self):
        return Sentences.from_lists([[1, 2, 3, 0, 1], [2], [3, 1], [0, 1, 2]])

    def count_objects(self, row):
        return (14, 1, 1, 2)[row]

    count_trajectories = count_objects

    def make_policy(self):
        torch.manual_seed(0)
        return unlike_the_prior(ShiftReducePolicy(WORDS, dim=8))


class TestGuidedShiftReduce(TestShiftReduceSpace):
    """The same with the generator's choices in it."""

    memory = None

    def make_policy(self):
        torch.manual_seed(0)
        model = make_model(scale=1.5, memory=self.memory)
        policy = unlike_the_prior(ShiftReducePolicy(WORDS, 12, dim=8))
        encode = policy.encode
        policy.encode = lambda x: encode(x, model.given(x))
        return policy


class TestShiftReduceGuidedByANarrowMemory(TestGuidedShiftReduce):
    memory = 1


def unlike_the_prior(policy):
    torch.nn.init.normal_(policy.value.weight)
    return policy


def test_without_look_ahead_the_policy_is_the_prior_on_the_way_to_the_sentence():
    model, policy = make_model(), ShiftReducePolicy(WORDS, 12, dim=8)
    x = Sentences.from_lists([[1, 2, 3, 0]])
    trees = all_trees(4, 1)
    log_q = Posterior(model, ShiftReduceSpace(), policy, x).log_prob(trees)[0]
    stack, row = Stack(model, 1, 4), torch.zeros(1, dtype=torch.long)
    for sample in range(trees.samples):
        stack, total = Stack(model, 1, 4), 0.0
        for action in actions(trees, sample):
            if stack.size[0] > 1 and stack.read[0] < 4:
                close = model.close_logit(stack.state(row)[0], torch.tensor(False)).sigmoid()
                total += float((1 - close if action == "S" else close).log().detach())
            if action == "S":
                stack.shift(row, x.tokens[0, stack.read])
            else:
                stack.reduce(row)
        assert abs(total - float(log_q[sample])) < 1e-5

"""Rewards on trees: exact inference with them against all trees, and samplers that learn them."""

import pytest
import torch
from brute import all_trees, keys
from sharp_grammar import LABELS, SENTENCES, WORDS, SharpPCFG, compare, e_train

from gfnem.lightning import GFlowNetEM
from gfnem.objectives import BalancedVarGrad, VarGrad
from gfnem.parsing import (
    RNNG,
    NeuralParentPCFG,
    NeuralPCFG,
    Sentences,
    ShiftReducePolicy,
    ShiftReduceSpace,
    SpanReward,
    TopDownPolicy,
    TopDownSpace,
    TreeReward,
    Trees,
)
from gfnem.parsing.inference.inside import uniform_inside
from gfnem.parsing.inference.log_joint import span_scores
from gfnem.recipes import exact
from gfnem.reward import Rewarded
from gfnem.schedules import Anneal
from gfnem.testing import RewardTestCase


class ByTable(SpanReward):
    """Spans are worth what a fixed random table says of their words."""

    def table(self, x):
        n = x.max_length
        end = torch.arange(n + 1, device=x.tokens.device)
        start = end[:-1, None]
        return torch.sin(1.7 * start + 2.9 * end + x.tokens[:, :1, None].float())

    def spans(self, x):
        return self.table(x)


class BlackBox(TreeReward):
    """The same, of which nobody knows that it is a sum, and the square of it."""

    def __init__(self, weight=1.0, power=1):
        super().__init__(weight)
        self.power = power

    def forward(self, x, z):
        return span_scores(ByTable().table(x), z).sum(2) ** self.power


def sharp(kind=NeuralPCFG):
    torch.manual_seed(2)
    return (SharpPCFG if kind is NeuralPCFG else kind)(WORDS, LABELS, 3, dim=8)


X = Sentences.from_lists([SENTENCES[row] for row in range(4)])


class TestAdditive(RewardTestCase):
    def make_model(self):
        return sharp()

    def make_reward(self):
        return ByTable(1.5)

    def make_x(self):
        return Sentences.from_lists([[1, 2, 3, 4], [5], [3, 1]])

    def make_space(self):
        return TopDownSpace(LABELS)

    def make_latents(self, x):
        return self.make_model().sample_posterior(x, 30)

    def enumerate_latents(self, x):
        return all_trees(int(x.lengths[0]), LABELS)

    def take_latent(self, z, row):
        return z[row : row + 1].resized()


class TestBlackBox(TestAdditive):
    def make_reward(self):
        return BlackBox(1.5, 2)


class TestAdditiveParents(TestAdditive):
    def make_model(self):
        return sharp(NeuralParentPCFG)


@pytest.mark.parametrize("kind", [NeuralPCFG, NeuralParentPCFG])
@pytest.mark.parametrize("row", range(4))
@torch.no_grad()
def test_exact_inference_agrees_with_all_trees(kind, row):
    x, weight = X[row : row + 1], 1.5
    grammar, reward = sharp(kind), ByTable(weight)
    trees = all_trees(int(x.lengths[0]), LABELS)
    joint = grammar.log_joint(x, trees)[0]
    table = reward.table(x)[0]
    worth = torch.tensor([sum(table[i, j] for i, j, _ in trees.spans(0, k))
                          for k in range(trees.samples)])  # fmt: skip
    total = joint + weight * worth
    model = Rewarded(grammar, reward)
    given = model.given(x)
    torch.testing.assert_close(given.log_joint(trees)[0], total)
    torch.testing.assert_close(model.log_joint(x, trees)[0], total)
    torch.testing.assert_close(model.log_marginal(x)[0], total.logsumexp(0))
    assert keys(given.best_trees())[0] == keys(trees)[int(total.argmax())]
    posterior = total.softmax(0)
    expected = torch.zeros_like(given.span_marginals()[0])
    place = trees.left[0], trees.right[0], trees.label[0]
    expected.index_put_(place, posterior[:, None].expand_as(place[0]), accumulate=True)
    torch.testing.assert_close(given.span_marginals()[0], expected, atol=1e-5, rtol=1e-4)
    splits = [tuple(split) for split in trees.split[0].tolist()]
    collapsed = given.collapsed_log_joint(trees)[0]
    for split in set(splits):
        same = torch.tensor([other == split for other in splits])
        torch.testing.assert_close(collapsed[same][0], total[same].logsumexp(0))
    torch.manual_seed(0)
    drawn = keys(model.sample_posterior(x, 20_000))
    often = torch.tensor([drawn.count(name) for name in keys(trees)]) / len(drawn)
    assert (often - posterior).abs().sum() / 2 < 0.01 + 0.5 * (len(posterior) / 20_000) ** 0.5
    box = Rewarded(grammar, BlackBox(weight))
    torch.testing.assert_close(box.log_joint(x, trees)[0], total)
    assert not box.offers("log_marginal") and model.offers("log_marginal")


def test_the_m_step_climbs_the_model_and_the_reward_only_weighs_trees():
    """The gradient of the exact `log p~(x)` is that of `log p(x, z)`, over the rewarded trees."""
    grammar, x = sharp(), X[1:2]
    trees = all_trees(4, LABELS)
    model = Rewarded(grammar, ByTable(2.0))
    weight = model.log_joint(x, trees)[0].softmax(0).detach()
    expected = torch.autograd.grad((weight * grammar.log_joint(x, trees)[0]).sum(),
                                   list(grammar.parameters()), allow_unused=True)  # fmt: skip
    found = torch.autograd.grad(model.log_marginal(x).sum(), list(grammar.parameters()),
                                allow_unused=True)  # fmt: skip
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-4)


@torch.no_grad()
def test_uniform_splits_of_all_bracketings():
    table = ByTable().table(X[3:4])
    found = uniform_inside(table)[0]

    def brute(i, j):
        if j - i < 2:
            return torch.tensor(1.0)
        mean = sum(brute(i, k) * brute(k, j) for k in range(i + 1, j)) / (j - i - 1)
        return table[0, i, j].exp() * mean

    for i in range(5):
        for j in range(i + 2, 6):
            torch.testing.assert_close(found[i, j].exp(), brute(i, j))


@pytest.mark.parametrize("kind", [NeuralPCFG, NeuralParentPCFG])
@torch.no_grad()
def test_flows_of_partial_trees_are_those_of_single_states(kind):
    """Scored as a whole and state by state alike, spans included."""
    model = Rewarded(sharp(kind), ByTable(1.5))
    contexts = model.model.contexts
    torch.manual_seed(0)
    policy, space = (
        TopDownPolicy(WORDS, LABELS, dim=8, contexts=contexts).eval(),
        TopDownSpace(LABELS),
    )
    torch.nn.init.normal_(policy.value.out.weight, std=0.3)
    context = policy.encode(X, model.given(X))
    drawn = policy.sample(context, X, space, 3)
    scores = policy.score(context, space, drawn, flows=True)
    states = space.states(X, drawn.latent)
    for time, state in enumerate(states):
        flow = policy(context, state).log_flow
        shown = ~space.is_final(state) if time else torch.ones_like(flow, dtype=torch.bool)
        torch.testing.assert_close(
            flow[shown], scores.log_flow[:, :, time][shown], atol=1e-4, rtol=1e-4
        )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("space", "policy", "reward", "sentences", "updates", "objective"),
    [
        (TopDownSpace(LABELS), TopDownPolicy, ByTable(1.5), (0, 1, 2), 200, VarGrad()),
        (TopDownSpace(LABELS), TopDownPolicy, ByTable(1.5), (0, 1, 2), 250, BalancedVarGrad()),
        (TopDownSpace(LABELS), TopDownPolicy, BlackBox(0.5, 2), (0, 1, 2), 250, VarGrad()),
    ],
    ids=["additive", "balance", "black-box"],
)
def test_the_sampler_becomes_the_rewarded_posterior(
    space, policy, reward, sentences, updates, objective
):
    torch.manual_seed(0)
    model = Rewarded(SharpPCFG(WORDS, LABELS, 3, dim=16), reward)
    x = Sentences.from_lists([SENTENCES[row] for row in sentences])
    policy = policy(WORDS, LABELS, dim=32).eval()
    e_train(policy, space, model, x, objective, updates)
    for row in range(len(x)):
        result = compare(policy, space, model, x, row)
        assert result["distance"] <= 0.02, result
        assert abs(result["exact"]) < 1e-4, result


def test_exact_training_with_a_reward_prefers_rewarded_trees():
    """A grammar on its own brackets as the reward says, once it was trained with it."""

    class Left(SpanReward):
        def spans(self, x):
            spans = torch.zeros(len(x), x.max_length, x.max_length + 1)
            spans[:, 0] = 1.0
            return spans

    x = Sentences.from_lists([[1, 2, 3, 4], [4, 2, 1, 3]] * 4)
    share = {}
    for weight in (0.0, 6.0):
        torch.manual_seed(1)
        grammar = NeuralPCFG(6, LABELS, 3, dim=8)
        module = GFlowNetEM(
            grammar, TopDownSpace(LABELS), TopDownPolicy(6, LABELS, dim=8), exact(),
            reward=Left(weight),
        )  # fmt: skip
        optimizer = torch.optim.Adam(grammar.parameters(), 0.03)
        for _ in range(60):
            for _, loss in module.em.update(x):
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
        share[weight] = float(grammar.span_marginals(x)[:, 0, 3].sum(1).mean())
    assert share[6.0] > 0.9 > share[0.0]


def test_an_rnng_is_rewarded_by_its_own_policy():
    torch.manual_seed(0)
    model = RNNG(WORDS, dim=8)
    policy = ShiftReducePolicy(WORDS, stack_size=16, dim=8)
    module = GFlowNetEM(model, ShiftReduceSpace(), policy, reward=BlackBox(2.0)).eval()
    with torch.no_grad():
        posterior = module.posterior(X)
        z, log_weights = posterior.log_weights(8)
        alone = posterior.model_weights(z, log_weights)
        torch.testing.assert_close(log_weights - alone, 2 * BlackBox()(X, z), atol=1e-4, rtol=1e-4)


def test_weights_move_with_the_updates():
    model = Rewarded(sharp(), ByTable(Anneal(2.0, 0.0, 10)))
    trees = all_trees(4, LABELS)
    bare = model.model.log_joint(X[1:2], trees)
    worth = ByTable()(X[1:2], trees)
    for m_updates, weight in ((0, 2.0), (5, 1.0), (10, 0.0), (99, 0.0)):
        model.on_step(m_updates)
        torch.testing.assert_close(model.log_joint(X[1:2], trees), bare + weight * worth)
    with pytest.raises(ValueError, match="reward="):
        GFlowNetEM(model, TopDownSpace(LABELS), TopDownPolicy(WORDS, LABELS, dim=8))
    assert isinstance(trees, Trees)

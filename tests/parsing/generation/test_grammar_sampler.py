"""Sentence and tree together: exact against every tree of every sentence."""

from collections import Counter
from functools import cache
from math import sqrt

import pytest
import torch
from brute import all_trees
from tiny_sentences import GRAMMAR

from gfnem.batch import Batch
from gfnem.em import EM
from gfnem.objectives import BackwardLikelihood, MaximumLikelihood, TrajectoryBalance, VarGrad
from gfnem.parsing.generation import (
    Copied,
    GrammarSampler,
    GrammarTarget,
    SentenceSpace,
    Strings,
    sentence_sampler,
)
from gfnem.parsing.generation.figures import figures
from gfnem.parsing.generation.run import as_parser
from gfnem.parsing.generation.split_balance import SplitBalance
from gfnem.parsing.generation.strings import all_sentences, nothing
from gfnem.parsing.inference.draws import score_choices
from gfnem.parsing.text.sentences import Sentences
from gfnem.rates import Descent, Rates
from gfnem.running.trained import Trained
from gfnem.sampling import Exploration
from gfnem.schedules import Anneal
from gfnem.sources import Free, Own, Released
from gfnem.space import Trajectories
from gfnem.testing import PolicyTestCase

WORDS, LONGEST, LABELS = 3, 4, 2
SPACE = SentenceSpace(WORDS, LONGEST, 2)


@pytest.fixture
def grammar_file(tmp_path):
    path = tmp_path / "tiny.pcfg"
    path.write_text(GRAMMAR)
    return str(path)


def make(parser="learned", seed=0):
    torch.manual_seed(seed)
    policy = GrammarSampler(WORDS, LONGEST, 2, LABELS, 3, 8, parser, 8, spread=1.5)
    if policy.parser is not None:  # its look-ahead starts at 0
        torch.nn.init.normal_(policy.parser.value.out.weight)
    return policy


class TestGrammarSampler(PolicyTestCase):
    def make_policy(self):
        return make()

    def make_target(self):
        return Copied(1.0, WORDS, LONGEST, 2)

    def make_space(self):
        return SPACE

    def make_x(self):
        return nothing(LONGEST)

    def make_objectives(self):
        return TrajectoryBalance(), VarGrad()


@cache
@torch.no_grad()
def every_derivation(parser):
    """A sampler, all sentences, and of each all trees: `(trees, log P_F, log P_B)`."""
    policy, x, found = make(parser), all_sentences(WORDS, 2, LONGEST), []
    for length in range(2, LONGEST + 1):  # sentences come by length
        some, trees = x[x.lengths == length], all_trees(length, LABELS)
        first = torch.zeros(len(some), dtype=torch.long)
        free, choices = nothing(LONGEST)[first], trees.resized(LONGEST - 1)[first]
        z = Strings.of(some, LONGEST, trees.samples)
        scores = policy.score(free, SPACE, Trajectories(z, choices=choices))
        pairs = zip(scores.log_pf.sum(2), scores.log_pb.sum(2), strict=True)
        found += [(trees, log_pf, log_pb) for log_pf, log_pb in pairs]
    return policy, x, found


@torch.no_grad()
@pytest.mark.parametrize("parser", ["learned", "exact"])
def test_derivations_and_parses_sum_to_one(parser):
    policy, x, found = every_derivation(parser)
    total = torch.cat([log_pf for _, log_pf, _ in found]).double().logsumexp(0)
    assert float(total) == pytest.approx(0.0, abs=1e-5)
    for row, (_, log_pf, log_pb) in enumerate(found):
        assert float(log_pb.logsumexp(0)) == pytest.approx(0.0, abs=1e-5)
        exact = policy.log_sentence(x[row : row + 1])[0]
        assert float(log_pf.logsumexp(0)) == pytest.approx(float(exact), abs=1e-4)
        if parser == "exact":
            torch.testing.assert_close(log_pb, log_pf - exact, atol=1e-4, rtol=0)


@torch.no_grad()
def test_it_draws_what_it_says():
    policy, x, found = every_derivation("learned")
    count = 8_000
    z = policy.sample(policy.encode(nothing(LONGEST)), nothing(LONGEST), SPACE, count).latent
    drawn = Counter(map(tuple, z.tokens[0].tolist()))
    for row, (_, log_pf, _) in enumerate(found):
        p = float(log_pf.exp().sum())
        key = tuple(x.tokens[row].tolist())
        if int((x.tokens == x.tokens[row]).all(1).sum()) > 1:  # 0 is a word, and padding
            continue
        assert abs(drawn[key] / count - p) <= 5 * sqrt(p / count) + 5 / count


@torch.no_grad()
def test_trees_are_drawn_by_the_parser():
    policy, count = make(), 4000
    x = all_sentences(WORDS, 2, LONGEST)[-1:]
    z = Strings.of(x, LONGEST, count)
    free = policy.encode(nothing(LONGEST))
    traced = policy.retrace(free, nothing(LONGEST), SPACE, z)
    trees = all_trees(LONGEST, LABELS)
    scores = policy.score(
        free, SPACE, Trajectories(Strings.of(x, LONGEST, trees.samples), choices=trees)
    )
    expected = scores.log_pb.sum(2)[0].exp()
    drawn = Counter(tuple(traced.choices.spans(0, place)) for place in range(count))
    listed = Counter()
    for place in range(trees.samples):
        listed[tuple(trees.spans(0, place))] += float(expected[place])
    for name, p in listed.items():
        assert abs(drawn[name] / count - p) <= 5 * sqrt(p / count) + 5 / count


def test_the_objective_is_the_balance_of_tree_and_sentence():
    policy = make()
    with torch.no_grad():
        policy.level.fill_(0.7)
    free = policy.encode(nothing(LONGEST))
    found = policy.sample(free, nothing(LONGEST), SPACE, 30)
    target = TestGrammarSampler().make_target()
    log_r = target.log_joint(nothing(LONGEST), found.latent)
    loss = TrajectoryBalance()(policy.score(free, SPACE, found), log_r)
    by_hand = []
    for at in range(30):
        n = int(found.latent.lengths[0, at])
        x = Strings(found.latent.tokens[:, at : at + 1], found.latent.lengths[:, at : at + 1])
        x = x.sentences()
        tree = found.choices.map(lambda tensor, at=at: tensor[:, at : at + 1]).resized(n - 1)
        weights = policy.grammar.length_weights(LONGEST)[1:].sum().log()
        log_pf = policy.grammar.log_joint(x, tree)[0, 0] - weights
        posterior = policy.parser.encode(x, policy.grammar.given(x))
        log_pb = score_choices(posterior, tree).sum()
        by_hand.append(float((0.7 + log_pf - log_r[0, at] - log_pb).detach()) ** 2)
    assert float(loss.detach()[0]) == pytest.approx(sum(by_hand) / 30, rel=1e-3)


def split(policy, imitation=0.0, parsing=0.0):
    """The loss, and the draws that it looked at: 12 of the sampler's and 6 of data."""
    own, data = Free(Own(12)), Released(Own(1))
    phase = SplitBalance(own, data, 1 / 3, 1.0, parsing, imitation)
    em = EM(Copied(1.0, WORDS, LONGEST, 2), SPACE, policy, [phase])
    batch = Batch(em, all_sentences(WORDS, 2, LONGEST)[:6])
    return phase(batch), [batch.draw(own), batch.draw(data)]


@pytest.mark.parametrize("imitation", [0.0, 0.5])
def test_with_an_exact_parser_two_balances_are_one(imitation):
    policy = make("exact")
    loss, draws = split(policy, imitation)
    balance = sum(
        TrajectoryBalance()(part.scores(), part.log_joint).mean() * share
        for part, share in zip(draws, (2 / 3, 1 / 3), strict=True)
    )
    surprise = -policy.log_sentence(draws[1].z.sentences()).mean()
    balance = balance + imitation / 3 * surprise
    torch.testing.assert_close(loss, balance, atol=1e-4, rtol=1e-4)
    parameters = list(policy.parameters())
    pairs = (torch.autograd.grad(part, parameters, retain_graph=True) for part in (loss, balance))
    for one, other in zip(*pairs, strict=True):
        torch.testing.assert_close(one, other, atol=2e-3, rtol=2e-3)


@pytest.mark.parametrize(
    "lengths, recursion", [([4, 2, 4, 3], None), ([20, 3, 9, 10, 5], None), ([12, 3, 5], 2)]
)
def test_sentences_and_trees_are_weighed_by_length_as_one_by_one(lengths, recursion):
    torch.manual_seed(1)
    policy = GrammarSampler(WORDS, 20, 2, 4, 3, 8, "learned", 8, recursion=recursion)
    torch.nn.init.normal_(policy.parser.value.out.weight)
    x = Sentences.from_lists([[(n * 7 + at) % WORDS for at in range(n)] for n in lengths])
    trees = policy.grammar.sample_posterior(x, 1)
    whole, log_p, log_pb = policy.apart(x, trees)
    torch.testing.assert_close(whole, policy.log_sentence(x))
    for row in range(len(x)):
        one = x[row : row + 1]
        torch.testing.assert_close(whole[row : row + 1], policy.log_sentence(one))
        tree = trees[row : row + 1].resized(one.max_length - 1)
        given = policy.grammar.given(one)
        apart = given.log_joint(tree)[0, 0] - given.log_marginal()[0]
        torch.testing.assert_close(log_p[row, 0], apart, atol=1e-4, rtol=1e-4)
        by_parser = score_choices(policy.parses(one), tree).sum()
        torch.testing.assert_close(log_pb[row, 0], by_parser, atol=1e-4, rtol=1e-4)


def test_two_balances_move_the_parser_by_the_trees_of_its_sampler_alone():
    policy = make()
    split(policy, 1.0, 1.0)[0].backward()
    for part in (policy.parser, policy.grammar):
        assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in part.parameters())
    policy = make()
    phase = SplitBalance(Released(Own(1)), None)
    em = EM(Copied(1.0, WORDS, LONGEST, 2), SPACE, policy, [phase])
    phase(Batch(em, all_sentences(WORDS, 2, LONGEST)[:6])).backward()
    assert all(p.grad is not None for p in policy.grammar.parameters())


def test_who_learns_from_what():
    """The backward likelihood moves the parser alone, imitation the grammar alone."""
    policy = make()
    free = policy.encode(nothing(LONGEST))
    found = policy.sample(free, nothing(LONGEST), SPACE, 30)
    for objective, moved, still in (
        (BackwardLikelihood(), policy.parser, policy.grammar),
        (MaximumLikelihood(), policy.grammar, policy.parser),
    ):
        policy.zero_grad()
        scores = policy.score(free, SPACE, found)
        objective(scores, torch.zeros(1, 30)).mean().backward()
        assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in moved.parameters())
        assert not any(p.grad is not None and p.grad.abs().sum() > 0 for p in still.parameters())


@torch.no_grad()
def test_what_is_observed_is_left_alone():
    policy = make()
    x = all_sentences(WORDS, 2, LONGEST)[5:9]
    found = policy.sample(x, x, SPACE, 2)
    assert found.latent.lengths[:, 0].tolist() == x.lengths.tolist()
    assert policy.score(x, SPACE, found).log_pf.shape == (4, 2, 0)


@torch.no_grad()
def test_exploration_reaches_what_it_hardly_writes():
    policy = make()
    x = nothing(LONGEST)
    plain = policy.sample(x, x, SPACE, 3000).latent
    flat = policy.sample(x, x, SPACE, 3000, Exploration(epsilon=1.0)).latent
    kinds = [len({tuple(row) for row in z.tokens[0].tolist()}) for z in (plain, flat)]
    assert kinds[1] >= kinds[0]


@torch.no_grad()
def test_as_a_parser_the_run_is_one_joint_model():
    policy = make()
    run = Trained(TestGrammarSampler().make_target(), SPACE, policy, metadata={})
    parser = as_parser(run)
    x = all_sentences(WORDS, 2, 3)[-3:]
    trees = all_trees(3, LABELS)
    for row in range(3):
        one = x[row : row + 1]
        total = parser.model.log_joint(one, trees).logsumexp(1)
        torch.testing.assert_close(total, parser.model.log_marginal(one), atol=1e-4, rtol=0)
    _, weights = parser.posterior(x).log_weights(5)
    exact = parser.model.log_marginal(x)[:, None].expand(-1, 5)
    torch.testing.assert_close(weights, exact, atol=1e-3, rtol=0)


def test_settings_that_contradict_are_refused():
    with pytest.raises(ValueError, match="parser is learned or exact"):
        GrammarSampler(3, 4, 1, parser="none")
    with pytest.raises(ValueError, match="1 or 2 words"):
        GrammarSampler(3, 4, 3)
    with pytest.raises(ValueError, match="5 words at least and 4 at most"):
        SentenceSpace(3, 4, 5)


@pytest.mark.slow
def test_training_reaches_the_reward(grammar_file):
    """Total variation and log Z of a small world, and the parser beside the posterior."""
    torch.manual_seed(0)
    target = GrammarTarget(grammar_file, None, 0.01, 3, 2)
    space = SentenceSpace(4, 3, 2)
    policy = GrammarSampler(4, 3, 2, 6, 6, 16, "learned", 16, spread=1.0)
    every = all_sentences(4, 2, 3)
    follows = target.log_reward(every).softmax(0)
    em = EM(target, space, policy, sentence_sampler(samples=64, collapse=True))
    rates = Rates(
        policy=Anneal(3e-2, 2e-3, 30, "exponential"), log_z=Anneal(0.1, 3e-3, 30, "exponential")
    )
    descent = Descent(em, rates)
    for _ in range(30):
        descent.update(every[torch.multinomial(follows, 64, True)])
    found = figures(Trained(target, space, policy))
    assert found["total_variation"] < 0.1 and abs(found["kl"]) < 0.08, found
    assert abs(found["log_z_bound"] - found["log_z"]) < 0.02
    assert abs(found["parser_kl"]) < 0.1


def test_two_balances_contradict_an_objective_of_ones_own():
    for settings in ({"objective": VarGrad()}, {"replay": 4}, {"share": 0.0, "imitation": 1.0}):
        with pytest.raises(ValueError, match="collapse is a loss by itself"):
            sentence_sampler(collapse=True, **settings).phases()

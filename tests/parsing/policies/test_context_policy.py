"""The top-down policy of parent-conditioned grammars, against every tree of short sentences."""

import itertools
from collections import Counter

import pytest
import torch
from brute import all_trees, keys
from flow_objectives import OBJECTIVES, objective_loss
from sharp_grammar import LABELS, SENTENCES, WORDS, compare, e_train
from statistics_of_chains import chi_square
from tree_space_cases import TestTopDown as TopDownCase
from tree_space_cases import shake

from gfnem.batched import Batched
from gfnem.objectives import VarGrad
from gfnem.parsing import NeuralParentPCFG, NeuralPCFG, Sentences, TopDownPolicy, TopDownSpace
from gfnem.parsing.inference.choices import RuleChoices
from gfnem.parsing.inference.draws import score_choices
from gfnem.parsing.inference.expansion import expanded
from gfnem.parsing.inference.inside import inside
from gfnem.parsing.inference.rule_potentials import RulePotentials
from gfnem.refinement import refine
from gfnem.sampling import Exploration
from gfnem.space import Trajectories
from gfnem.testing import enumerate_trajectories

SPACE = TopDownSpace(LABELS)


class SharpParentPCFG(NeuralParentPCFG):
    """Rule probabilities far from uniform and far from each other under different parents."""

    def tables(self):
        root, rules, emissions = super().tables()
        return (
            (root * 4).log_softmax(0),
            (rules * 8).flatten(2).log_softmax(2).view_as(rules),
            (emissions * 6).log_softmax(2),
        )


def model() -> SharpParentPCFG:
    torch.manual_seed(0)
    return SharpParentPCFG(WORDS, LABELS, 3, dim=16)


def policy(**settings) -> TopDownPolicy:
    return TopDownPolicy(WORDS, LABELS, contexts=LABELS + 1, **settings).eval()


@pytest.mark.slow
def test_the_sampler_becomes_the_posterior():
    grammar, sampler = model(), policy(dim=32)
    x = Sentences.from_lists(SENTENCES)
    before = compare(sampler, SPACE, grammar, x, 3)["distance"]
    e_train(sampler, SPACE, grammar, x, VarGrad(), 300)
    for row in range(len(x)):
        result = compare(sampler, SPACE, grammar, x, row)
        assert result["distance"] <= 0.02, result
        assert abs(result["vargrad_log_z"]) <= 0.01, result
        assert abs(result["exact"]) < 1e-4, result
    assert before > 0.05


def test_inside_values_are_the_posterior():
    grammar, sampler = model().double(), policy(dim=8)
    x = Sentences.from_lists([[7, 3, 2, 6]])
    with torch.no_grad():
        potentials, trees = grammar.potentials(x), all_trees(4, LABELS)
        exact = RuleChoices.from_chart(potentials, inside(potentials))
        log_q = sampler.score(exact, SPACE, Trajectories(trees)).log_pf.sum(2)
        posterior = grammar.log_joint(x, trees) - grammar.log_marginal(x)[:, None]
        assert torch.allclose(log_q, posterior, atol=1e-8)
        assert torch.allclose(sampler.log_z(exact), grammar.log_marginal(x))


class Indifferent(NeuralParentPCFG):
    """The same rules under every parent: a context-free grammar in disguise."""

    def tables(self):
        root, rules, emissions = super().tables()
        return root, (rules[:1] * 4).expand_as(rules), emissions[:1].expand_as(emissions)


def test_a_fresh_policy_knows_what_does_not_depend_on_the_parent():
    torch.manual_seed(0)
    grammar = Indifferent(WORDS, LABELS, 3, dim=16).double()
    x = Sentences.from_lists([[7, 3, 2, 6], [1, 5], [4, 3, 3, 2]])
    with torch.no_grad():
        chart = inside(grammar.potentials(x).context_free())
        both = inside(grammar.potentials(x))
        assert torch.allclose(chart.expand_as(both).exp(), both.exp(), atol=1e-12)
        sampler = policy(dim=8).double()
        context = sampler.encode(x, grammar.given(x))
        assert torch.allclose(sampler.log_z(context), grammar.log_marginal(x))


def test_the_average_weighs_parents_by_how_often_they_are_met():
    # S -> A B | B A; A and B emit words or make two Cs, which differ below them
    floor = -1e4
    labels, leaf = 4, 4  # S A B C, and one preterminal
    rules = torch.full((labels + 1, labels, labels + 1, labels + 1), floor).double()
    rules[:, 0, 1, 2], rules[:, 0, 2, 1] = torch.tensor([0.5, 0.5]).double().log()
    rules[:, 1, 3, 3] = 0.0  # A has two Cs
    rules[:, 2, 3, leaf] = 0.0  # B has one, and a word
    rules[:, 3, leaf, leaf] = torch.tensor([0, 0.2, 0.8, 0, 0]).double().clamp(min=1e-9).log()
    root = torch.tensor([0.0] + [floor] * labels).double()
    words = torch.zeros(1, 2, labels + 1, 1).double()
    potentials = RulePotentials.from_tables(root, rules, words, torch.tensor([2]))
    average = potentials.context_free().both_leaves[0, 0, 0, 3].exp()
    assert abs(float(average) - (2 * 0.2 + 1 * 0.8) / 3) < 1e-3


def test_two_and_three_words_have_their_inside_values():
    grammar = model().double()
    x = Sentences.from_lists([[7, 3, 2, 6, 1], [1, 5, 2], [4]])
    with torch.no_grad():
        potentials = grammar.potentials(x)
        chart = inside(potentials)
        for width, table in ((2, potentials.both_leaves), (3, potentials.three_words)):
            for row, left in [(0, 0), (0, 1), (0, 5 - width), (1, 0), (1, 3 - width)]:
                assert torch.allclose(table[row, left], chart[row, left, left + width])


@pytest.mark.parametrize("name", OBJECTIVES)
def test_inside_values_are_the_exact_flow(name):
    grammar, sampler = model().double(), policy(dim=8)
    x = Sentences.from_lists([[1, 2, 3], [7, 3, 2, 6], [5, 1], [4]])
    with torch.no_grad():
        potentials = grammar.potentials(x)
        chart = inside(potentials)
        drawn = Trajectories(enumerate_trajectories(SPACE, x).trajectories.latent)
        exact = RuleChoices.from_chart(potentials, chart)
        losses = objective_loss(OBJECTIVES[name], sampler, exact, SPACE, grammar, x, drawn)
        assert losses.max() < 1e-8
        wrong = RuleChoices.from_chart(potentials, chart + 0.3 * torch.randn_like(chart))
        losses = objective_loss(OBJECTIVES[name], sampler, wrong, SPACE, grammar, x, drawn)
        assert (losses[:2] > 1e-3).all()


class TestSampler(TopDownCase):
    """Sampling, scores and flows with the grammar's weights, by the shipped test case."""

    def make_policy(self):
        sampler = shake(policy(dim=8))
        torch.manual_seed(3)
        grammar = NeuralParentPCFG(6, LABELS, 3, dim=8)
        encode = sampler.encode
        sampler.encode = lambda x, given=None: encode(x, given or grammar.given(x))
        return sampler


class TestSamplerOfClasses(TopDownCase):
    """The same with a class of parents for two labels each."""

    frequency_samples = 3000  # of 320 trees

    def make_space(self):
        return TopDownSpace(4)

    def count_objects(self, row):
        nodes = row  # the sentences have 1, 2, 3, 4 words
        return super().count_objects(row) * 2**nodes

    def make_policy(self):
        sampler = shake(TopDownPolicy(WORDS, 4, dim=8, contexts=3).eval())
        torch.manual_seed(3)
        grammar = NeuralPCFG(6, 4, 3, dim=8, parent_classes=2)
        encode = sampler.encode
        sampler.encode = lambda x, given=None: encode(x, grammar.given(x))
        return sampler


def test_flows_of_trees_and_of_single_states_agree():
    grammar, sampler = model(), shake(policy(dim=8))
    x = Sentences.from_lists([[1, 2, 3], [7, 3, 2, 6], [5, 1], [4]])
    with torch.no_grad():
        context = sampler.encode(x, grammar.given(x))
        drawn = sampler.sample(context, x, SPACE, 20)
        states = SPACE.states(x, drawn.latent)
        steps = Batched.cat(states)

        def unfold(tensor):
            return tensor.unflatten(1, (len(states), 20)).transpose(1, 2)

        flow = unfold(sampler(context, steps).log_flow)
        scores = sampler.score(context, SPACE, drawn, True)
        real = torch.cat([torch.ones_like(scores.mask[:, :, :1]), scores.mask], 2)
        assert torch.allclose(scores.log_flow[real], flow[real], atol=1e-4)
        ahead = sampler.score(context, SPACE, drawn, True, True).log_flow
        partial = unfold(grammar.partial_log_joint(x, steps))
        real[x.lengths == 1] = False  # nothing to choose, nothing to balance
        assert torch.allclose((ahead + partial)[real], flow[real], atol=1e-4)


def test_a_padded_batch_equals_one_by_one():
    grammar, sampler = model(), shake(policy(dim=8))
    x = Sentences.from_lists([[1, 2, 3, 4, 5], [2], [3, 1], [5, 5, 1]])
    with torch.no_grad():
        context = sampler.encode(x, grammar.given(x))
        drawn = sampler.sample(context, x, SPACE, 3)
        scores = sampler.score(context, SPACE, drawn)
        for row in range(len(x)):
            alone = x[torch.tensor([row])]
            latent = drawn.latent[row : row + 1].resized()
            own = sampler.encode(alone, grammar.given(alone))
            again = sampler.score(own, SPACE, Trajectories(latent)).log_pf.sum(2)[0]
            assert torch.allclose(again, scores.log_pf.sum(2)[row], atol=1e-4)
            assert torch.allclose(sampler.log_z(own), sampler.log_z(context)[row], atol=1e-4)


@pytest.mark.parametrize("temperature, epsilon", [(1.0, 0.0), (2.0, 0.0), (0.7, 0.2)])
def test_exploration_is_what_it_says(temperature, epsilon):
    """Behaviour probabilities of all trees sum to one, and trees come as often as they say."""
    grammar, sampler = model(), shake(policy(dim=8))
    x, count = Sentences.from_lists([[7, 3, 2, 6]]), 4000
    with torch.no_grad():
        context, trees = sampler.encode(x, grammar.given(x)), all_trees(4, LABELS)
        scores = score_choices(context, trees, temperature, epsilon).sum(2)[0].exp()
        assert scores.sum().item() == pytest.approx(1, abs=1e-4)
        torch.manual_seed(0)
        drawn = sampler.sample(context, x, SPACE, count, Exploration(temperature, epsilon))
    place = {key: at for at, key in enumerate(keys(trees))}
    found = torch.tensor([place[key] for key in keys(drawn.latent)])
    assert torch.allclose(drawn.log_behaviour[0].exp(), scores[found], atol=1e-4)
    seen = torch.bincount(found, minlength=len(place)) / count
    assert ((seen - scores).abs() < 4.5 * (scores / count).sqrt() + 1e-3).all()


@pytest.mark.slow
def test_refinement_reaches_the_posterior_of_a_parent_grammar():
    grammar, sampler = model(), shake(policy(dim=16), seed=1)
    x, chains = Sentences.from_lists([[7, 3, 2, 6]]), 800
    torch.manual_seed(0)
    with torch.no_grad():
        context, trees = sampler.encode(x, grammar.given(x)), all_trees(4, LABELS)
        log_joint = grammar.log_joint(x, trees)[0]
        start = trees.take(log_joint.argmin().expand(1, chains))
        z, _, accepted = refine(sampler, context, grammar.given(x), SPACE, start, 60, 1.0)
    assert 0 < accepted.mean() < 1
    exact = dict(zip(keys(trees), log_joint.softmax(0).tolist(), strict=True))
    statistic, quantile = chi_square(Counter(keys(z)), exact)
    assert statistic < quantile


def test_policy_and_grammar_must_agree_about_parents():
    x = Sentences.from_lists([[1, 2, 3]])
    with pytest.raises(ValueError, match="contexts"):
        TopDownPolicy(WORDS, LABELS, dim=8).encode(x, model().given(x))
    with pytest.raises(ValueError, match="contexts"):
        policy(dim=8).encode(x, NeuralPCFG(WORDS, LABELS, 3, dim=8).given(x))


def test_one_expansion_by_the_rules_under_each_parent():
    """`expanded` against its sum written out, and where the average is right, `inside`."""
    x = Sentences.from_lists([[7, 3, 2, 6, 1, 2], [1, 5], [4, 3, 3, 2], [2]])
    torch.manual_seed(0)
    same = Indifferent(WORDS, LABELS, 3, dim=16).double()
    with torch.no_grad():
        potentials = same.potentials(x)
        found = expanded(potentials, inside(potentials.context_free()).squeeze(3))
        assert torch.allclose(found.exp(), inside(potentials).exp(), atol=1e-12)
        potentials = model().double().potentials(x)
        chart = inside(potentials.context_free()).squeeze(3)
        found, exact = expanded(potentials, chart), inside(potentials)
    worth, rules = chart.exp(), potentials.rules.exp()
    by_left, by_right = (table.exp() for table in potentials.leaf_tables)
    for row, n in enumerate(x.lengths.tolist()):
        for i, j in itertools.combinations(range(n + 1), 2):
            if j - i < 3:
                continue
            splits = range(i + 2, j - 1)
            total = sum(
                torch.einsum("pabc,b,c->ap", rules, worth[row, i, k], worth[row, k, j])
                for k in splits
            )
            total = total + by_left[i, row] @ worth[row, i + 1, j]
            total = total + by_right[j - 1, row] @ worth[row, i, j - 1]
            assert torch.allclose(found[row, i, j], total.log().T)
    possible = exact > -1e3
    assert ((found < -1e3) == ~possible).all()
    error = (found - exact)[possible].abs().mean()
    assert error < (chart.unsqueeze(3) - exact)[possible].abs().mean() / 2


@pytest.mark.parametrize("kind", [NeuralPCFG, NeuralParentPCFG])
def test_gradients_do_not_depend_on_whether_trees_were_drawn_first(kind):
    """Drawing, without autograd, must not leave tables behind that have no gradient."""
    torch.manual_seed(0)
    grammar = kind(WORDS, LABELS, 3, dim=8)
    contexts = grammar.facts()["contexts"]
    sampler = shake(TopDownPolicy(WORDS, LABELS, dim=8, contexts=contexts).eval())
    x = Sentences.from_lists([[7, 3, 2, 6, 1], [1, 5, 2, 2]])
    given = grammar.given(x)
    drawn = sampler.sample(sampler.encode(x, given), x, SPACE, 3)
    parameters = [p for p in sampler.value.parameters() if p.requires_grad]
    found = []
    for first in (False, True):
        context = sampler.encode(x, given)
        if first:
            sampler.sample(context, x, SPACE, 3)
        total = sampler.score(context, SPACE, drawn).log_pf.sum()
        found.append(torch.autograd.grad(total, parameters))
    for alone, after in zip(*found, strict=True):
        torch.testing.assert_close(alone, after)

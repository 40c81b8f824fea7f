"""Where shapes are fixed, as on a GPU, trees are drawn and weighed in another way: both agree."""

import pytest
import torch
from brute import all_trees, keys

from gfnem.fixed_shapes import shapes_fixed
from gfnem.parsing import NeuralPCFG, RecursionPolicy, Substrings, TopDownPolicy
from gfnem.parsing.inference.bracketing import bracketing_log_joint
from gfnem.parsing.inference.draws import draw_trees, score_choices
from gfnem.parsing.inference.log_joint import tree_log_joint
from gfnem.parsing.text.sentences import Sentences

LENGTHS = (1, 2, 3, 4, 7, 9, 5, 2)


def sentences(lengths=LENGTHS, seed=0):
    torch.manual_seed(seed)
    lengths = torch.tensor(lengths)
    tokens = torch.randint(1, 40, (len(lengths), int(lengths.max())))
    return Sentences(tokens * (torch.arange(tokens.shape[1]) < lengths[:, None]), lengths)


def parts(policy=TopDownPolicy, labels=5, x=None, **settings):
    """A grammar, a policy that is none of its own, and sentences."""
    torch.manual_seed(1)
    x = sentences() if x is None else x
    model = NeuralPCFG(40, labels, 7, dim=16)
    if policy is TopDownPolicy:
        settings = {"vocab_size": 40, "dim": 16, **settings}
    made = policy(nonterminals=labels, **settings)
    made.serve(model)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape))
    return model, made.eval(), x


def gradients(value, modules):
    parameters = [p for module in modules for p in module.parameters()]
    return torch.autograd.grad(value.square().sum(), parameters, allow_unused=True)


def both_ways(function):
    """What a function returns where sizes depend on the data, and where they do not."""
    found = []
    for fixed in (False, True):
        with shapes_fixed(fixed):
            found.append(function())
    return found


@pytest.mark.parametrize(
    ("temperature", "epsilon"), [(1.0, 0.0), (1.3, 0.1), (torch.tensor(1.3), torch.tensor(0.1))]
)
@pytest.mark.parametrize("policy", [TopDownPolicy, RecursionPolicy])
def test_scores_of_choices_and_their_gradients(policy, temperature, epsilon):
    model, policy, x = parts(policy)
    trees = draw_trees(policy.encode(x, model.given(x)), 6, 1.5, 0.3)[0]

    def scored():
        scores = score_choices(policy.encode(x, model.given(x)), trees, temperature, epsilon)
        return scores, gradients(scores, [policy])

    (one, its), (other, others) = both_ways(scored)
    torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)
    assert any(gradient is not None and gradient.abs().max() > 0 for gradient in its)
    for mine, yours in zip(its, others, strict=True):
        torch.testing.assert_close(mine, yours, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("weigh", [tree_log_joint, bracketing_log_joint])
@pytest.mark.parametrize("lengths", [LENGTHS, (1, 1), (2, 1), (3, 2, 1)])
def test_log_joints_and_their_gradients(weigh, lengths):
    model, policy, x = parts(x=sentences(lengths))
    trees = draw_trees(policy.encode(x, model.given(x)), 6, 1.5, 0.3)[0]

    def weighed():
        weight = weigh(model.potentials(x), trees)
        return weight, gradients(weight, [model])

    (one, its), (other, others) = both_ways(weighed)
    torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)
    for mine, yours in zip(its, others, strict=True):
        assert (mine is None) == (yours is None) or float((mine or yours).abs().max()) == 0
        if mine is not None and yours is not None:
            torch.testing.assert_close(mine, yours, rtol=1e-4, atol=1e-4)


def test_a_bracketing_that_cannot_be_labelled_is_impossible_and_its_gradient_finite():
    model, policy, x = parts()
    trees = draw_trees(policy.encode(x, model.given(x)), 3)[0]
    with torch.no_grad():  # no rule has a phrase on the left
        model.rule_net.bias.view(12, 12)[:5] = -1e6
    one, other = both_ways(lambda: bracketing_log_joint(model.potentials(x), trees))
    torch.testing.assert_close(one.clamp(min=-1e3), other.clamp(min=-1e3), rtol=1e-4, atol=1e-4)
    assert all(g is None or g.isfinite().all() for g in gradients(other.clamp(min=-1e3), [model]))


@pytest.mark.parametrize("epsilon", [0.0, 0.2])
def test_trees_are_drawn_in_proportion_to_their_probability(epsilon):
    model, policy, x = parts(labels=2, x=sentences((4, 3)))
    with shapes_fixed(), torch.no_grad():
        choices = policy.encode(x, model.given(x))
        drawn, log_behaviour = draw_trees(choices, 6000, 1.2, epsilon)
        scores = score_choices(choices, drawn, 1.2, epsilon).sum(2)
    torch.testing.assert_close(scores, log_behaviour, rtol=1e-5, atol=1e-5)
    row = policy.encode(x[[0]], model.given(x[[0]]))
    every = all_trees(4, 2)
    chance = score_choices(row, every, 1.2, epsilon).sum(2)[0].exp().detach()
    assert float(chance.sum()) == pytest.approx(1, abs=1e-4)
    names = {name: at for at, name in enumerate(keys(every))}
    counts = torch.bincount(
        torch.tensor([names[name] for name in keys(drawn)]), minlength=len(names)
    )
    assert float((counts / 6000 - chance).abs().sum() / 2) < 0.05


def test_spans_count_besides():
    model, policy, x = parts()
    spans = torch.randn(len(x), x.max_length, x.max_length + 1)
    trees = draw_trees(policy.encode(x, model.given(x)), 6)[0]

    def weighed():
        given = model.tilted(x, spans)
        scores = score_choices(policy.encode(x, given), trees)
        return scores, given.log_joint(trees), given.collapsed_log_joint(trees)

    for one, other in zip(*both_ways(weighed), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)


def test_fences_do_not_see_past_a_sentence():
    _, policy, x = parts(dropout=0.0)
    one, other = both_ways(lambda: policy.encoder.fences(x))
    inside = torch.arange(one.shape[1]) <= x.lengths[:, None]
    torch.testing.assert_close(one[inside], other[inside], rtol=1e-5, atol=1e-6)


def test_a_reward_keeps_how_far_it_counts_off_the_device():
    reward = Substrings(longest=3)
    assert "longest" not in dict(reward.named_buffers())
    again = Substrings(longest=5)
    again.load_state_dict(reward.state_dict())
    assert int(again.table.longest) == 3

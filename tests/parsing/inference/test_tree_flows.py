"""Flows and partial joints of both tree spaces; what every objective does with them."""

from itertools import pairwise

import pytest
import torch
from flow_objectives import OBJECTIVES, objective_loss
from sharp_grammar import LABELS, WORDS, SharpPCFG, compare

from gfnem.batched import Batched
from gfnem.enumeration import enumerate_trajectories, keys_of
from gfnem.parsing import ForestPolicy, ForestSpace, Sentences, TopDownPolicy, TopDownSpace
from gfnem.parsing.inference.choices import RuleChoices
from gfnem.parsing.inference.inside import inside
from gfnem.parsing.inference.log_joint import tree_log_joint
from gfnem.sampling import Exploration
from gfnem.space import Trajectories

SPACES = [TopDownSpace(LABELS), ForestSpace(LABELS)]


def sentences() -> Sentences:
    return Sentences.from_lists([[1, 2, 3], [7, 3, 2, 6], [5, 1], [4]])


def model() -> SharpPCFG:
    torch.manual_seed(0)
    return SharpPCFG(WORDS, LABELS, 3, dim=16)


@pytest.mark.parametrize("space", SPACES, ids=["down", "up"])
def test_partial_log_joint_is_that_of_the_rules_used(space):
    """From nothing to the whole joint; each step adds its own rule, whatever the order."""
    grammar, x = model(), sentences()
    with torch.no_grad():
        for row in range(len(x)):
            one = x[torch.tensor([row])]
            found = enumerate_trajectories(space, one).trajectories
            partial = torch.stack([grammar.partial_log_joint(one, s) for s in found.states], 2)
            joint = grammar.log_joint(one, found.latent)
            assert torch.allclose(partial[:, :, -1], joint, atol=1e-5)
            if one.max_length == 1:
                continue
            assert (partial[:, :, 0] == 0).all()
            rules = tree_log_joint(grammar.potentials(one), found.latent)
            gains = partial.diff(dim=2)
            if not space.unique_trajectory:  # the root's label comes with the last merge
                gains = torch.cat([gains, rules[:, :, :1]], 2)
                gains[:, :, -2] -= rules[:, :, 0]
            assert torch.allclose(gains.sort(2).values, rules.sort(2).values, atol=1e-5)


def test_states_of_whole_trees_are_those_of_the_search():
    space, x = SPACES[0], sentences()
    found = enumerate_trajectories(space, x).trajectories
    states = space.states(x, found.latent)
    assert len(states) == len(found.states)
    shape = found.actions.shape[:2]
    for state, expected in zip(states, found.states, strict=True):
        assert keys_of(state, shape) == keys_of(expected, shape)


@pytest.mark.parametrize("prior", [True, False])
def test_top_down_flows_of_trees_and_of_single_states_agree(prior):
    grammar, x, space = model(), sentences(), SPACES[0]
    policy = TopDownPolicy(WORDS, LABELS, dim=8, use_prior=prior).eval()
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter.normal_(std=0.5)
        context = policy.encode(x, grammar.given(x))
        trees = policy.sample(context, x, space, 20).latent
        scores = policy.score(context, space, policy.retrace(context, x, space, trees), True)
        states = space.states(x, trees)
        flow = policy(context, Batched.cat(states)).log_flow
        flow = flow.unflatten(1, (len(states), 20)).transpose(1, 2)
        real = torch.cat([torch.ones_like(scores.mask[:, :, :1]), scores.mask], 2)
        assert torch.allclose(scores.log_flow[real], flow[real], atol=1e-4)
        assert torch.allclose(scores.log_flow[:, :, 0], scores.log_z[:, None], atol=1e-4)
        if prior:  # what is left out is what the target adds
            ahead = policy.score(
                context, space, policy.retrace(context, x, space, trees), True, True
            ).log_flow
            partial = torch.stack([grammar.partial_log_joint(x, s) for s in states], 2)
            real[x.lengths == 1] = False  # nothing to choose, nothing to balance
            assert torch.allclose((ahead + partial)[real], flow[real], atol=1e-4)


@pytest.mark.parametrize("name", OBJECTIVES)
def test_inside_values_are_the_exact_flow_top_down(name):
    """All trees of all sentences: no loss at the inside chart, and some beside it."""
    grammar, x, space = model(), sentences(), SPACES[0]
    policy = TopDownPolicy(WORDS, LABELS, dim=8).eval()
    with torch.no_grad():
        potentials = grammar.potentials(x)
        values = inside(potentials)
        trees = enumerate_trajectories(space, x).trajectories.latent
        drawn = Trajectories(trees)
        exact = RuleChoices.from_chart(potentials, values)
        losses = objective_loss(OBJECTIVES[name], policy, exact, space, grammar, x, drawn)
        assert losses.max() < 1e-8
        wrong = RuleChoices.from_chart(potentials, values + 0.3 * torch.randn_like(values))
        losses = objective_loss(OBJECTIVES[name], policy, wrong, space, grammar, x, drawn)
        assert (losses[:2] > 1e-3).all()


@pytest.mark.parametrize("name", OBJECTIVES)
def test_no_loss_at_the_forests_flows_by_brute_force(name):
    """A random backward policy; flows and P_F added up over all trajectories of four words."""
    grammar, space = model().double(), SPACES[1]
    x = Sentences.from_lists([[7, 3, 2, 6]])
    policy = ForestPolicy(WORDS, LABELS, dim=8).double()
    objective = OBJECTIVES[name]
    with torch.no_grad():
        paths = enumerate_trajectories(space, x).trajectories
        scores = policy.score(policy.encode(x), space, paths)
        log_joint = grammar.log_joint(x, paths.latent)
        weight = log_joint + scores.log_pb.sum(2)
        names = [keys_of(state, weight.shape)[0] for state in paths.states]
        flow, edge = {}, {}
        for sample, mass in enumerate(weight[0].exp().tolist()):
            for t, now in enumerate(names):
                flow[now[sample]] = flow.get(now[sample], 0.0) + mass
                if t + 1 < len(names):
                    pair = now[sample], names[t + 1][sample]
                    edge[pair] = edge.get(pair, 0.0) + mass
        flows = torch.tensor([[flow[key] for key in now] for now in names]).double().log()
        edges = [[edge[p] for p in zip(*pair, strict=True)] for pair in pairwise(names)]
        scores.log_flow = flows.T[None]
        scores.log_pf = torch.tensor(edges).double().log().T[None] - scores.log_flow[:, :, :-1]
        partial = None
        if objective.forward_looking:
            partial = torch.stack([grammar.partial_log_joint(x, s) for s in paths.states], 2)
            scores.log_flow = scores.log_flow - partial
        assert objective(scores, log_joint, partial).max() < 1e-8
        scores.log_flow = scores.log_flow + 0.3 * torch.randn_like(scores.log_flow)
        assert objective(scores, log_joint, partial).min() > 1e-3


def train(policy, space, grammar, x, objective, updates, peak):
    total, rest = [], []
    for name, parameter in policy.named_parameters():
        group = total if name.split(".")[0] in ("total", "word_score", "flow") else rest
        group.append(parameter)
    optimizer = torch.optim.Adam([{"params": rest}, {"params": total}], betas=(0.9, 0.99))
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, [peak, 5 * peak], updates, pct_start=0.1
    )
    explore = Exploration(epsilon=0.05 if space.unique_trajectory else 0.5)
    for _ in range(updates):
        context = policy.encode(x, grammar.given(x))
        drawn = policy.sample(context, x, space, 32, explore)
        loss = objective_loss(objective, policy, context, space, grammar, x, drawn).mean()
        policy.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()


# with the grammar's weights the policies' flows hold the partial joint already, so that looking
# forward is the same thing: for forests, which take long, one form of each and few words will do
@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "space"),
    [(name, SPACES[0]) for name in OBJECTIVES] + [("db", SPACES[1]), ("subtb", SPACES[1])],
)
def test_the_sampler_becomes_the_posterior(name, space):
    grammar = model()
    if space.unique_trajectory:
        policy, updates = TopDownPolicy(WORDS, LABELS, dim=32).eval(), 200
        x = Sentences.from_lists([[1, 2, 3], [7, 3, 2, 6]])
    else:
        policy, updates = ForestPolicy(WORDS, LABELS, dim=32).eval(), 320
        x = Sentences.from_lists([[7, 3, 2]])
    before = compare(policy, space, grammar, x, len(x) - 1)["distance"]
    train(policy, space, grammar, x, OBJECTIVES[name], updates, 1e-2)
    for row in range(len(x)):
        result = compare(policy, space, grammar, x, row)
        assert result["distance"] <= 0.02, result
        assert abs(result["learned_log_z"]) <= 0.02, result
    assert before > 0.05

import pytest
import torch
from toy import BitPolicy, BitSpace

from gfnem.enumeration import enumerate_trajectories
from gfnem.policy import Policy, Step
from gfnem.sampling import Exploration, backward_rollout, draw, log_probability, rollout


class Ones(BitPolicy):
    """Wants ones, however badly."""

    def forward(self, context, state):
        weights = torch.zeros(*state.value.shape[:2], 2 * state.value.shape[2])
        weights[..., 1::2] = 3.0
        return Step(weights)


def test_log_probability_normalises_permitted_entries_only():
    weights = torch.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]], requires_grad=True)
    allowed = torch.tensor([[True, False, True], [False, False, False]])
    value = log_probability(weights, allowed)
    expected = torch.tensor([1.0, 3.0]).softmax(0)
    assert torch.allclose(value[0].exp(), torch.tensor([expected[0], 0.0, expected[1]]))
    assert torch.isfinite(value[1]).all()
    value[0, 0].backward()
    assert torch.isfinite(weights.grad).all() and weights.grad[0, 1] == 0


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_what_is_not_permitted_may_weigh_anything_but_nan(dtype):
    values = [[-torch.inf, 0.5, 1e30, -1e4], [-torch.inf, -torch.inf, 3.0, 2.0]]
    weights = torch.tensor(values, dtype=dtype, requires_grad=True)
    allowed = torch.tensor([[False, True, False, True], [False, False, True, True]])
    value = log_probability(weights, allowed)
    plain = torch.where(allowed, weights, -torch.inf).log_softmax(1)
    assert torch.equal(value[allowed], plain[allowed]) and (value[~allowed].exp() == 0).all()
    value[allowed].sum().backward()
    assert torch.isfinite(weights.grad).all() and (weights.grad[~allowed] == 0).all()


@pytest.mark.parametrize("exploration", [Exploration(), Exploration(2.0), Exploration(0.5, 0.3)])
def test_draw_follows_the_mixture_it_claims(exploration):
    torch.manual_seed(0)
    weights = torch.tensor([0.0, 1.0, 2.0, 9.0])
    allowed = torch.tensor([True, True, True, False])
    tempered = (weights[:3] / exploration.temperature).softmax(0)
    expected = (1 - exploration.epsilon) * tempered + exploration.epsilon / 3
    count = 20_000
    action, log_drawn = draw(weights.expand(1, count, 4), allowed.expand(1, count, 4), exploration)
    assert torch.allclose(log_drawn.exp(), expected[action], atol=1e-6)
    frequency = action.flatten().bincount(minlength=4) / count
    bound = 5 * (expected * (1 - expected) / count).sqrt()
    assert frequency[3] == 0 and ((frequency[:3] - expected).abs() <= bound).all()


@pytest.mark.parametrize("arguments", [(0.0,), (-1.0,), (1.0, 1.5), (1.0, -0.1)])
def test_exploration_must_make_sense(arguments):
    with pytest.raises(ValueError):
        Exploration(*arguments)


def test_draw_survives_rows_without_an_action():
    allowed = torch.zeros(2, 3, 4, dtype=torch.bool)
    for epsilon in (0.0, 0.5, 1.0):
        action, _ = draw(torch.zeros(2, 3, 4), allowed, Exploration(epsilon=epsilon))
        assert action.shape == (2, 3) and (action >= 0).all()


def test_rollouts_pad_at_the_end_and_back_ones_at_the_start():
    torch.manual_seed(0)
    x, space, policy = torch.tensor([1, 0, 2]), BitSpace(), BitPolicy()
    forth = rollout(policy, x, x, space, 5)
    assert forth.mask[:, 0].tolist() == [[True] * 3, [True, True, False], [False] * 3]
    assert len(forth.states) == 4 and forth.actions.shape == (3, 5, 3)
    back = backward_rollout(policy, x, x, space, forth.latent)
    assert back.mask[:, 0].tolist() == [[True] * 3, [False, True, True], [False] * 3]
    assert torch.equal(back.latent, forth.latent)
    assert space.is_initial(back.states[0]).all() and space.is_final(back.states[-1]).all()
    for paths in (forth, back):
        for t in range(3):  # stored actions lead from each stored state to the next
            child = space.step(paths.states[t], paths.actions[:, :, t])
            moved = paths.mask[:, :, t]
            same = (child.value == paths.states[t + 1].value).all(2)
            assert same[moved].all()
            parent = space.unstep(paths.states[t + 1], paths.backward_actions[:, :, t])
            assert (parent.value == paths.states[t].value).all(2)[moved].all()
    assert torch.equal(forth.log_behaviour[2], torch.zeros(5))


def test_a_batch_without_any_step():
    x, space, policy = torch.tensor([2, 2]), BitSpace(), BitPolicy()
    for paths in (
        policy.sample(x, x, space, 3),
        policy.retrace(x, x, space, torch.zeros(2, 3, 0, dtype=torch.long)),
    ):
        assert paths.actions.shape == (2, 3, 0) and paths.log_behaviour.shape == (2, 3)
        scores = policy.score(x, space, paths, flows=True)
        assert scores.log_pf.shape == (2, 3, 0) and scores.log_flow.shape == (2, 3, 1)


def test_temperature_and_epsilon_reach_every_step():
    torch.manual_seed(0)
    x, space = torch.tensor([1]), BitSpace()
    policy = Ones()
    ones = {
        name: rollout(policy, x, x, space, 4000, exploration).latent.float().mean()
        for name, exploration in {
            "on policy": None,
            "flat": Exploration(3.0),
            "uniform": Exploration(1.0, 1.0),
        }.items()
    }
    expected = {
        "on policy": torch.tensor(3.0).sigmoid(),
        "flat": torch.tensor(1.0).sigmoid(),
        "uniform": torch.tensor(0.5),
    }
    for name, value in ones.items():
        assert abs(value - expected[name]) < 0.025, name


def test_scores_do_not_depend_on_the_other_samples():
    torch.manual_seed(0)
    x, space, policy = torch.tensor([1, 0]), BitSpace(), BitPolicy(scale=3.0)
    paths = policy.sample(x, x, space, 6)
    scores = policy.score(x, space, paths, flows=True)
    every = enumerate_trajectories(space, x).trajectories
    listed = policy.score(x, space, every, flows=True)
    for row in range(2):
        for sample in range(6):
            hits = (every.actions[row] == paths.actions[row, sample]) | ~every.mask[row]
            index = int(hits.all(1).nonzero()[0])
            length = int(paths.mask[row, sample].sum())
            assert torch.allclose(listed.log_pf[row, index], scores.log_pf[row, sample], atol=1e-5)
            assert torch.allclose(listed.log_pb[row, index], scores.log_pb[row, sample], atol=1e-5)
            assert torch.allclose(
                listed.log_flow[row, index, : length + 1],
                scores.log_flow[row, sample, : length + 1],
                atol=1e-5,
            )


def test_sampling_makes_no_graph_and_scoring_does():
    x, space, policy = torch.tensor([1]), BitSpace(), BitPolicy()
    paths = policy.sample(policy.encode(x), x, space, 2)
    assert not paths.log_behaviour.requires_grad
    scores = Policy.score(policy, x, space, paths)
    scores.log_pf.sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in policy.network.parameters())
    assert scores.log_flow is None

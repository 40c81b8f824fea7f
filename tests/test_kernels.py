"""Kernels as matrices: what is listed is what the chains really do."""

import pytest
import torch
from toy import BitModel, BitPolicy, BitSpace

from gfnem.enumeration import enumerate_states, keys_of
from gfnem.kernels import back_and_forth_kernel, metropolis_kernel, spectral_gap
from gfnem.refinement import refine

X = torch.tensor([1])


@pytest.fixture
def world():
    torch.manual_seed(0)
    space, policy, model = BitSpace(), BitPolicy(scale=1.5).eval(), BitModel()
    graph = enumerate_states(space, X)
    with torch.no_grad():
        log_pf, log_pb, _ = graph.scores(policy, policy.encode(X))
        log_reward = model.log_joint(X, graph.latents())[0]
    return space, policy, model, graph, log_pf[0].double(), log_pb[0].double(), log_reward.double()


@pytest.mark.parametrize("back", [1, 2, 3, 7])
def test_a_kernel_is_reversible(world, back):
    *_, graph, log_pf, log_pb, log_reward = world
    kernel = back_and_forth_kernel(graph, log_pf, log_pb, log_reward, back)
    target = log_reward.softmax(0)
    assert torch.allclose(kernel.sum(1), torch.ones_like(target)) and (kernel >= -1e-12).all()
    flow = target[:, None] * kernel
    assert torch.allclose(flow, flow.T, atol=1e-7)
    assert 0 < spectral_gap(kernel, log_reward) < 1


@pytest.mark.parametrize("back", [1, 2, 3])
def test_chains_move_as_the_kernel_says(world, back):
    space, policy, model, graph, log_pf, log_pb, log_reward = world
    kernel = back_and_forth_kernel(graph, log_pf, log_pb, log_reward, back)
    count, start = 20_000, 3
    z = graph.latents()[:, start : start + 1].expand(-1, count, -1)
    torch.manual_seed(1)
    with torch.no_grad():
        moved, _, _ = refine(policy, policy.encode(X), model.given(X), space, z, 1, back)
    names = keys_of(graph.latents(), torch.Size((1, len(graph.ends))))[0]
    seen = [names.index(key) for key in keys_of(moved, torch.Size((1, count)))[0]]
    share = torch.bincount(torch.tensor(seen), minlength=len(names)) / count
    assert torch.allclose(share.double(), kernel[start], atol=5 * 0.5 / count**0.5)


def test_with_the_right_policy_going_all_the_way_back_forgets_everything(world):
    *_, graph, _, log_pb, log_reward = world
    log_pf = graph.choices(graph.log_flow(log_reward, log_pb), log_pb)
    gaps = [
        spectral_gap(
            back_and_forth_kernel(graph, log_pf, log_pb, log_reward, back), log_reward
        ).item()
        for back in (1, 2, 3)
    ]
    assert gaps[0] < gaps[1] < gaps[2] and gaps[2] == pytest.approx(1, abs=1e-6)


def test_metropolis(world):
    *_, log_reward = world
    proposal = torch.rand(8, 8, dtype=torch.double)
    proposal = proposal / proposal.sum(1, keepdim=True)
    proposal[0, 5] = 0  # a move that is never proposed back
    kernel = metropolis_kernel(proposal, log_reward)
    flow = log_reward.softmax(0)[:, None] * kernel
    assert torch.allclose(flow, flow.T) and kernel[5, 0] == 0
    two = metropolis_kernel(torch.tensor([[0.0, 1.0], [1.0, 0.0]]), torch.tensor([0.0, 0.0]))
    assert two.tolist() == [[0, 1], [1, 0]] and spectral_gap(two, torch.zeros(2)) == 0


def test_too_many_pairs_are_refused(world, monkeypatch):
    *_, graph, log_pf, log_pb, log_reward = world
    monkeypatch.setattr("gfnem.kernels._PAIRS", 10)
    with pytest.raises(ValueError, match="pairs of ways"):
        back_and_forth_kernel(graph, log_pf, log_pb, log_reward, 2)

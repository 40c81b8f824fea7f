"""Soft RL: the identities with GFlowNet losses, and what it samples where it is not corrected."""

import pytest
import torch
from every_trajectory import EveryTrajectory
from toy import BitSpace

from gfnem.objectives import (
    DetailedBalance,
    TrajectoryBalance,
    detailed_balance,
    trajectory_balance,
)
from gfnem.policy import Scores
from gfnem.sampling import log_probability
from gfnem.soft_rl import SoftRL, path_consistency, soft_q


@pytest.fixture
def every():
    return EveryTrajectory(BitSpace(), torch.tensor([1]))


def test_corrected_path_consistency_is_trajectory_balance(every):
    log_pf, log_pb = (part[:, None] for part in every.steps())
    reward, log_z = every.rewards()[:, None], torch.full((len(log_pf),), 1.3).double()
    earned = log_pb.clone()
    earned[..., -1] += reward
    theirs = path_consistency(log_pf, earned, log_z)
    assert torch.allclose(theirs, trajectory_balance(log_pf, log_pb, reward, log_z), atol=1e-10)


def test_corrected_soft_q_is_detailed_balance(every):
    flow = torch.randn(len(every.graph)).double()
    log_pf, log_pb = (part[:, None] for part in every.steps())
    reward = every.rewards()[:, None]
    forward = log_probability(every.tables[0], every.masks[0])
    q = torch.where(every.masks[0], flow[:, None] + forward, -torch.inf)
    earned = log_pb.clone()
    earned[..., -1] += reward
    last = torch.zeros_like(earned)
    last[..., -1] = 1
    after = q[every.number[:, 1:]][:, None]
    taken = q[every.number[:, :-1], every.actions][:, None]
    theirs = soft_q(taken, earned, after, last)
    ours = detailed_balance(
        log_pf, log_pb, reward, flow[every.number][:, None], every.mask[:, None]
    )
    assert torch.allclose(theirs, ours, atol=1e-10)


def test_without_the_correction_it_is_zero_at_the_soft_optimum(every):
    graph = every.graph
    value = graph.soft_values(every.log_reward)
    with torch.no_grad():
        every.tables[0][graph.parent, graph.action] = graph.choices(value)
    log_pf, log_pb = (part[:, None] for part in every.steps())
    scores = Scores(
        log_pf, log_pb, every.mask[:, None], value[:1].expand(len(log_pf)),
        value[every.number][:, None],
    )  # fmt: skip
    for objective in (TrajectoryBalance(), DetailedBalance()):
        soft = SoftRL(objective)
        assert soft.needs_flow == objective.needs_flow
        reward = every.rewards()[:, None]
        assert soft(scores, reward).abs().max() < 1e-20
        assert objective(scores, reward).abs().max() > 0.1  # each structure has 6 trajectories
    log_count = graph.log_counts()[graph.ends]
    assert value[0].item() == pytest.approx((every.log_reward + log_count).logsumexp(0).item())

"""What GFlowNet losses and the divergences of variational inference have in common, exactly.

Expectations are sums over every trajectory, or over every pair, of a space with 48 of them.
"""

import pytest
import torch
from every_trajectory import EveryTrajectory
from toy import BitSpace

from gfnem.hierarchical import HierarchicalVI, hierarchical
from gfnem.objectives import detailed_balance, trajectory_balance, vargrad
from gfnem.policy import Scores


@pytest.fixture
def every():
    return EveryTrajectory(BitSpace(), torch.tensor([1]))


def divergences(every):
    """KL(P_F || P_B R / Z) and KL(P_B R / Z || P_F), as functions of both tables."""
    log_pf, log_target = every.steps()[0].sum(1), every.log_target()
    reverse = (log_pf.exp() * (log_pf - log_target)).sum()
    forward = (log_target.exp() * (log_target - log_pf)).sum()
    return reverse, forward


def expected(every, losses, weight):
    """The gradients of a sum of losses under weights that are not differentiated."""
    return every.gradients((weight.detach() * losses).sum())


def one_by_one(every):
    """The trajectories as `(trajectories, 1, steps)`, each alone."""
    log_pf, log_pb = every.steps()
    return log_pf[:, None], log_pb[:, None], every.rewards()[:, None]


def in_pairs(every):
    """All ordered pairs `(pairs, 2, steps)`, and the log probability of each under P_F."""
    log_pf, log_pb = every.steps()
    pairs = torch.cartesian_prod(*[torch.arange(len(log_pf))] * 2)
    return log_pf[pairs], log_pb[pairs], every.rewards()[pairs], pairs


def close(one, other):
    assert torch.allclose(one, other, atol=1e-10), (one - other).abs().max()


def differ(one, other):
    assert (one - other).abs().max() > 1e-2


@pytest.mark.parametrize("log_z", [-3.0, 0.0, 5.0])
def test_trajectory_balance_on_policy_is_twice_the_reverse_kl_for_any_log_z(every, log_z):
    log_pf = every.steps()[0].sum(1)
    losses = trajectory_balance(*one_by_one(every), torch.full((len(log_pf),), log_z))
    ours = expected(every, losses, log_pf.exp())
    theirs = every.gradients(divergences(every)[0])
    close(ours[0], 2 * theirs[0])
    for divergence in divergences(every):  # of P_B it is no such thing
        differ(ours[1], 2 * every.gradients(divergence)[1])


@pytest.mark.parametrize("log_z", [-3.0, 0.0, 5.0])
def test_trajectory_balance_backwards_is_twice_the_forward_kl_for_any_log_z(every, log_z):
    log_target = every.log_target()
    losses = trajectory_balance(*one_by_one(every), torch.full((len(log_target),), log_z))
    ours = expected(every, losses, log_target.exp())
    theirs = every.gradients(divergences(every)[1])
    close(ours[1], 2 * theirs[1])
    for divergence in divergences(every):
        differ(ours[0], 2 * every.gradients(divergence)[0])


def test_off_policy_it_is_neither_and_log_z_matters(every):
    weight = torch.full((len(every.mask),), 1 / len(every.mask), dtype=torch.double)
    gradients = [
        expected(every, trajectory_balance(*one_by_one(every), torch.full_like(weight, z)), weight)
        for z in (0.0, 5.0)
    ]
    for policy in (0, 1):
        differ(gradients[0][policy], gradients[1][policy])
        for divergence in divergences(every):
            differ(gradients[0][policy], 2 * every.gradients(divergence)[policy])


def test_vargrad_on_policy_is_the_reverse_kl_too(every):
    log_pf, log_pb, reward, _ = in_pairs(every)
    weight = log_pf.sum((1, 2)).exp()
    ours = expected(every, vargrad(log_pf, log_pb, reward), weight)
    close(ours[0], 2 * every.gradients(divergences(every)[0])[0])


@pytest.mark.parametrize("baseline", ["none", "batch", "leave-one-out"])
def test_the_expected_gradient_of_the_reverse_kl(every, baseline):
    log_pf, log_pb, reward, _ = in_pairs(every)
    weight = log_pf.sum((1, 2)).exp()
    ours = expected(every, hierarchical(log_pf, log_pb, reward, baseline=baseline), weight)
    theirs = every.gradients(divergences(every)[0])
    if baseline == "batch":  # a mean that the sample itself is in takes a share of it off
        theirs[0] = theirs[0] / 2
    close(ours[0], theirs[0])
    close(ours[1], theirs[1])


def test_vargrad_is_the_leave_one_out_estimator_draw_by_draw(every):
    # of P_F: the two gradients are the same for each pair, and so is their noise
    log_pf, log_pb, reward, _ = (
        part if part.dim() < 2 else part[7:900:149] for part in in_pairs(every)
    )
    for ours, theirs in zip(
        vargrad(log_pf, log_pb, reward), hierarchical(log_pf, log_pb, reward), strict=True
    ):
        close(every.gradients(ours)[0], 2 * every.gradients(theirs)[0])


def test_the_value_is_the_negative_elbo(every):
    log_pf, log_pb, reward, _ = in_pairs(every)
    value = (log_pf.sum((1, 2)).exp() * hierarchical(log_pf, log_pb, reward)).sum()
    expected_value = divergences(every)[0] - every.log_reward.logsumexp(0)
    close(value, expected_value)


@pytest.mark.parametrize("baseline", ["none", "batch", "leave-one-out"])
@pytest.mark.parametrize("forward, backward", [("forward", "forward"), ("forward", "reverse")])
def test_many_weighted_samples_give_the_other_divergences(every, forward, backward, baseline):
    # all trajectories at once, drawn uniformly: self-normalised weights are then exact
    log_pf, log_pb = every.steps()
    drawn = torch.zeros(1, len(log_pf), dtype=torch.double)
    loss = hierarchical(
        log_pf[None], log_pb[None], every.rewards()[None], drawn, forward, backward, baseline
    )
    ours = every.gradients(loss.sum())
    reverse, ahead = (every.gradients(divergence) for divergence in divergences(every))
    if baseline != "leave-one-out":  # which leaves each trajectory out of its own expectation
        close(ours[0], ahead[0])
        close(ours[1], {"forward": ahead, "reverse": reverse}[backward][1])


def test_at_the_optimum_balance_has_no_noise_and_the_score_function_has(every):
    with torch.no_grad():  # P_F that goes by flows under the table of P_B
        graph = every.graph
        mask = every.masks[1]
        log_pb = every.tables[1].masked_fill(~mask, -torch.inf).log_softmax(1)
        log_pb = log_pb[graph.child, graph.backward_action]
        flow = graph.log_flow(every.log_reward, log_pb)
        every.tables[0][graph.parent, graph.action] = graph.choices(flow, log_pb)
    log_pf, log_pb, reward, _ = in_pairs(every)
    log_z = every.log_reward.logsumexp(0)

    def noise(losses):  # of some pairs: the gradient of one draw, the mean of which is 0
        return max(every.gradients(loss)[0].abs().max().item() for loss in losses[5:500:99])

    assert noise(trajectory_balance(*one_by_one(every), log_z.expand(len(every.mask)))) < 1e-10
    assert noise(vargrad(log_pf, log_pb, reward)) < 1e-10
    assert noise(hierarchical(log_pf, log_pb, reward)) < 1e-10
    assert noise(hierarchical(log_pf, log_pb, reward, baseline="none")) > 1e-2
    assert float(divergences(every)[0].detach()) == pytest.approx(0, abs=1e-10)


def test_detailed_balance_is_zero_where_flows_balance(every):
    graph = every.graph
    with torch.no_grad():
        log_pb = every.tables[1].masked_fill(~every.masks[1], -torch.inf).log_softmax(1)
        log_pb = log_pb[graph.child, graph.backward_action]
        flow = graph.log_flow(every.log_reward, log_pb)
        every.tables[0][graph.parent, graph.action] = graph.choices(flow, log_pb)
    pf, pb, reward = one_by_one(every)
    loss = detailed_balance(pf, pb, reward, flow[every.number][:, None], every.mask[:, None])
    assert loss.abs().max() < 1e-20


def test_words_that_are_none_are_refused():
    with pytest.raises(ValueError, match="baseline is one of none, batch, leave-one-out"):
        HierarchicalVI(baseline="some")
    zeros = torch.zeros(1, 2, 1)
    scores = Scores(zeros, zeros, zeros.bool())
    assert HierarchicalVI()(scores, torch.zeros(1, 2)).item() == 0

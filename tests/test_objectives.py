import dataclasses
import itertools
import math
from collections import defaultdict

import pytest
import torch
from toy import BitModel, BitPolicy, BitSpace, strings

from gfnem import objectives
from gfnem.enumeration import enumerate_trajectories, keys_of
from gfnem.objectives import (
    BalancedVarGrad,
    DetailedBalance,
    ReverseKL,
    SubTrajectoryBalance,
    TrajectoryBalance,
    VarGrad,
)
from gfnem.policy import Scores

X = torch.tensor([0, 1])


def right_aligned(tensor: torch.Tensor, mask: torch.Tensor, extra: int = 0) -> torch.Tensor:
    """Moves each row's padding from the end of the time axis to its start."""
    shift = (~mask).sum(2)
    time = torch.arange(tensor.shape[2]) - shift[..., None]
    moved = tensor.gather(2, time.clamp(min=0))
    return torch.where(time >= 0, moved, moved if extra else torch.zeros_like(moved))


@pytest.fixture
def balanced():
    """Exact flows of a random target under a random backward policy, by brute force."""
    torch.manual_seed(0)
    model, space, policy = BitModel().double(), BitSpace(), BitPolicy(scale=3.0).double()
    found = enumerate_trajectories(space, X)
    paths = found.trajectories
    with torch.no_grad():
        log_pb = policy.score(X, space, paths).log_pb
        log_reward = model.log_joint(X, paths.latent) + torch.tensor([[3.0], [-7.0]])
    partial = [model.partial_log_joint(X, state).detach() for state in paths.states]
    keys = [keys_of(state, found.valid.shape) for state in paths.states]
    steps = paths.mask.shape[2]
    log_pf = torch.zeros_like(log_pb)
    log_flow = torch.randn(*found.valid.shape, steps + 1).double()  # rubbish past the ends
    for row in range(len(X)):
        flow, edge = defaultdict(float), defaultdict(float)
        for sample in found.valid[row].nonzero()[:, 0].tolist():
            weight = math.exp(log_reward[row, sample] + log_pb[row, sample].sum())
            length = int(paths.mask[row, sample].sum())
            for t in range(length + 1):
                flow[keys[t][row][sample]] += weight
            for t in range(length):
                edge[keys[t][row][sample], keys[t + 1][row][sample]] += weight
        for sample in range(found.valid.shape[1]):
            length = int(paths.mask[row, sample].sum())
            for t in range(length + 1):
                here = keys[t][row][sample]
                log_flow[row, sample, t] = math.log(flow[here])
                if t < length:
                    ratio = edge[here, keys[t + 1][row][sample]] / flow[here]
                    log_pf[row, sample, t] = math.log(ratio)
    mask = paths.mask
    log_z = log_flow[:, 0, 0]
    scores = Scores(log_pf, log_pb, mask, log_z, log_flow)
    return scores, log_reward, torch.stack(partial, 2)


def aligned(scores, partial, where):
    """The same trajectories, padded at the end (as drawn) or at the start (as retraced)."""
    if where == "end":
        return scores, partial
    mask = scores.mask
    states = torch.cat([torch.ones_like(mask[:, :, :1]), mask], 2)
    moved = Scores(
        right_aligned(scores.log_pf, mask),
        right_aligned(scores.log_pb, mask),
        right_aligned(mask, mask),
        scores.log_z,
        right_aligned(scores.log_flow, states, 1),
    )
    return moved, right_aligned(partial, states, 1)


BALANCING = [
    TrajectoryBalance(),
    TrajectoryBalance(centred=True),
    VarGrad(),
    DetailedBalance(),
    DetailedBalance(forward_looking=True),
    SubTrajectoryBalance(),
    SubTrajectoryBalance(decay=1.5),
    SubTrajectoryBalance(forward_looking=True),
    BalancedVarGrad(local=0.5),
    BalancedVarGrad(evidence=2.0),
]


def name_of(objective):
    return "-".join([type(objective).__name__, *map(str, objective.spec()["init_args"].values())])


@pytest.mark.parametrize("where", ["end", "start"])
@pytest.mark.parametrize("objective", BALANCING, ids=name_of)
def test_zero_exactly_at_the_balanced_flow(balanced, objective, where):
    scores, log_reward, partial = balanced
    if objective.forward_looking:
        scores.log_flow = scores.log_flow - partial
    scores, partial = aligned(scores, partial, where)
    partial = partial if objective.forward_looking else None
    loss = objective(scores, log_reward, partial)
    assert loss.shape == (2,) and loss.abs().max() < 1e-20
    # ... and nowhere near it
    step = scores.mask[:, :, 1].nonzero()[0]
    for field in ("log_pf", "log_pb"):
        off = Scores(**vars(scores))
        changed = getattr(scores, field).clone()
        changed[step[0], step[1], 1] += 0.5
        setattr(off, field, changed)
        assert objective(off, log_reward, partial)[step[0]] > 1e-4
    assert (objective(scores, log_reward + torch.randn_like(log_reward), partial) > 1e-3).all()


def test_centred_balance_is_vargrad_beside_a_level(rubbish):
    """The policy's gradient is VarGrad's wherever log Z is; only log Z is drawn to its place."""
    scores, log_reward = rubbish[0], rubbish[1]
    log_pf = scores.log_pf.clone().requires_grad_()
    log_z = torch.tensor([40.0, -30.0, 5.0], dtype=log_pf.dtype, requires_grad=True)
    moved = dataclasses.replace(scores, log_pf=log_pf, log_z=log_z)
    loss = TrajectoryBalance(centred=True)(moved, log_reward)
    own, level = torch.autograd.grad(loss.sum(), [log_pf, log_z], retain_graph=True)
    plain = VarGrad()(moved, log_reward)
    assert torch.allclose(own, torch.autograd.grad(plain.sum(), log_pf)[0])
    best = -objectives.log_ratio(scores.log_pf, scores.log_pb, log_reward).mean(1)
    assert torch.equal(level.sign(), (log_z - best).sign()) and level.abs().max() <= 0.01
    settled = dataclasses.replace(moved, log_z=best)
    assert torch.allclose(TrajectoryBalance(centred=True)(settled, log_reward), plain)


def test_vargrad_centres_each_x_apart(balanced):
    """Two `x` of very different `Z`, both balanced: nothing to learn, no loss.

    Centred over the batch, the difference of their `log Z` would look like an error.
    """
    scores, log_reward, _ = balanced
    ratio = objectives.log_ratio(scores.log_pf, scores.log_pb, log_reward)
    assert ratio.var() > 10  # what batch-wise centring would report
    assert objectives.vargrad(scores.log_pf, scores.log_pb, log_reward).max() < 1e-20
    shifted = log_reward + torch.tensor([[100.0], [-100.0]])
    noise = torch.randn_like(scores.log_pf)
    one = objectives.vargrad(scores.log_pf + noise, scores.log_pb, log_reward)
    other = objectives.vargrad(scores.log_pf + noise, scores.log_pb, shifted)
    assert torch.allclose(one, other)


@pytest.fixture(params=["end", "start"])
def rubbish(request):
    """Random scores of three rows of lengths 3, 1 and 0."""
    torch.manual_seed(1)
    lengths = torch.tensor([3, 1, 0])[:, None].expand(3, 4)
    time = torch.arange(3)
    mask = time < lengths[..., None]
    if request.param == "start":
        mask = mask.flip(2)
    log_pf = torch.randn(3, 4, 3).double().masked_fill(~mask, 0.0)
    log_pb = torch.randn(3, 4, 3).double().masked_fill(~mask, 0.0)
    flow, partial = torch.randn(2, 3, 4, 4).double()
    scores = Scores(log_pf, log_pb, mask, torch.randn(3).double(), flow)
    return scores, torch.randn(3, 4).double(), partial, request.param


def chains(scores, log_reward, partial, where):
    """Plain lists of each trajectory: levels of its states and ratios of its steps."""
    for row, sample in itertools.product(range(3), range(4)):
        length = int(scores.mask[row, sample].sum())
        first = 0 if where == "end" else 3 - length
        flow = (scores.log_flow + (0 if partial is None else partial))[row, sample]
        flow = [float(f) for f in flow[first : first + length + 1]]
        flow[-1] = float(log_reward[row, sample])
        steps = range(first, first + length)
        ratio = [float((scores.log_pf - scores.log_pb)[row, sample, t]) for t in steps]
        yield row, flow, ratio


@pytest.mark.parametrize("credit", [False, True])
def test_detailed_balance_by_loops(rubbish, credit):
    scores, log_reward, partial, where = rubbish
    partial = partial if credit else None
    expected = [0.0] * 3
    for row, flow, ratio in chains(scores, log_reward, partial, where):
        terms = [(flow[t] + r - flow[t + 1]) ** 2 for t, r in enumerate(ratio)]
        expected[row] += sum(terms) / max(len(terms), 1) / 4
    loss = DetailedBalance(credit)(scores, log_reward, partial)
    assert torch.allclose(loss, torch.tensor(expected).double())


@pytest.mark.parametrize("credit", [False, True])
@pytest.mark.parametrize("decay", [0.5, 1.0, 2.0])
def test_sub_trajectory_balance_by_loops(rubbish, credit, decay):
    scores, log_reward, partial, where = rubbish
    partial = partial if credit else None
    expected = [0.0] * 3
    for row, flow, ratio in chains(scores, log_reward, partial, where):
        total = weights = 0.0
        for i, j in itertools.combinations(range(len(flow)), 2):
            residual = flow[i] + sum(ratio[i:j]) - flow[j]
            total += decay ** (j - i) * residual**2
            weights += decay ** (j - i)
        expected[row] += total / max(weights, 1e-300) / 4
    loss = SubTrajectoryBalance(decay, credit)(scores, log_reward, partial)
    assert torch.allclose(loss, torch.tensor(expected).double())


def test_trajectory_objectives_by_loops(rubbish):
    scores, log_reward, _, where = rubbish
    ratios = defaultdict(list)
    for row, flow, ratio in chains(scores, log_reward, None, where):
        ratios[row].append(sum(ratio) - flow[-1])
    for row in range(3):
        balance = sum((float(scores.log_z[row]) + r) ** 2 for r in ratios[row]) / 4
        assert TrajectoryBalance()(scores, log_reward)[row].item() == pytest.approx(balance)
        pairs = itertools.combinations(ratios[row], 2)
        variance = sum((a - b) ** 2 for a, b in pairs) / (4 * 3)  # all pairs: unbiased variance
        assert VarGrad()(scores, log_reward)[row].item() == pytest.approx(variance)
        mean = sum(ratios[row]) / 4
        assert ReverseKL()(scores, log_reward)[row].item() == pytest.approx(mean)


def test_balanced_vargrad_adds_detailed_balance_where_there_are_flows(balanced):
    scores, log_reward, _ = balanced
    scores.log_pf = scores.log_pf * 1.5
    plain, local = VarGrad()(scores, log_reward), DetailedBalance()(scores, log_reward)
    assert plain.min() > 0 and local.min() > 0
    assert torch.allclose(BalancedVarGrad(2.0)(scores, log_reward), plain + 2 * local)
    scores.log_flow = None
    assert torch.equal(BalancedVarGrad(2.0)(scores, log_reward), plain)


def test_log_z_follows_the_mean_weight_of_what_was_drawn_from(rubbish):
    scores, log_reward = rubbish[0], rubbish[1]
    log_z = torch.tensor([40.0, -30.0, 5.0], dtype=scores.log_pf.dtype, requires_grad=True)
    strayed = scores.log_pf.sum(2) + torch.randn_like(log_reward)
    for behaviour in (None, strayed):
        scores = dataclasses.replace(scores, log_z=log_z, log_behaviour=behaviour)
        more = BalancedVarGrad(evidence=0.5)(scores, log_reward)
        more = more - BalancedVarGrad()(scores, log_reward)
        log_q = scores.log_pf.sum(2) if behaviour is None else behaviour
        weights = (log_reward + scores.log_pb.sum(2) - log_q).exp()
        assert torch.allclose(more, (log_z - weights.mean(1).log()).square() / 2)


def test_root_of_the_variance(balanced):
    """The variance near its minimum, the standard deviation far from it."""
    scores, log_reward = balanced[:2]
    for scale in (1e-2, 1e3):
        shaken = log_reward + scale * torch.randn_like(log_reward)
        variance = VarGrad()(scores, shaken)
        wanted = variance / 2 if scale < 1 else variance.sqrt()
        torch.testing.assert_close(
            VarGrad(pseudo_huber=True)(scores, shaken), wanted, rtol=1e-2, atol=1e-7
        )


def test_balance_far_off_counts_by_its_size(balanced):
    """With `pseudo_huber` a large residual counts by its size, a small one by its square."""
    scores, log_reward, _ = balanced
    huber = BalancedVarGrad(1.0, pseudo_huber=True)
    root = VarGrad(pseudo_huber=True)
    for scale in (1e-2, 1e3):
        shaken = log_reward + scale * torch.randn_like(log_reward)
        last = scores.mask.long().sum(2, keepdim=True)
        flow = scores.log_flow.clone()
        before = (
            scores.log_pf
            + flow[:, :, :-1]
            - scores.log_pb
            - flow[:, :, 1:].scatter(2, last - 1, shaken[..., None])
        )
        before = before.masked_fill(~scores.mask, 0.0)
        each = before.square() / 2 if scale < 1 else before.abs()
        wanted = (each.sum(2) / scores.mask.sum(2)).mean(1)
        found = huber(scores, shaken) - root(scores, shaken)
        torch.testing.assert_close(found, wanted, rtol=2e-2, atol=1e-4)


@pytest.mark.parametrize("objective", [VarGrad(), ReverseKL()])
def test_one_sample_is_not_enough(objective):
    none = torch.zeros(2, 1, 3)
    with pytest.raises(ValueError, match="at least 2"):
        objective(Scores(none, none, none.bool()), torch.zeros(2, 1))


def test_vargrad_gradient_is_twice_the_reverse_kl_one(balanced):
    """With a fixed backward policy they agree sample by sample (Richter et al. 2020, prop. 1)."""
    scores, log_reward, _ = balanced
    log_pf = torch.randn_like(scores.log_pf).requires_grad_()
    (one,) = torch.autograd.grad(
        objectives.vargrad(log_pf, scores.log_pb, log_reward).sum(), log_pf
    )
    (other,) = torch.autograd.grad(
        objectives.reverse_kl(log_pf, scores.log_pb, log_reward).sum(), log_pf
    )
    assert torch.allclose(one, 2 * other) and other.abs().max() > 1e-3


def exact_reverse_kl(policy, space, model, found):
    scores = policy.score(X, space, found.trajectories)
    log_pf, log_pb = scores.log_pf.sum(2), scores.log_pb.sum(2)
    log_joint = model.log_joint(X, found.trajectories.latent)
    return ((log_pf - log_pb - log_joint) * log_pf.exp() * found.valid).sum(1)


@pytest.mark.slow
def test_reverse_kl_gradient_is_that_of_the_enumerated_kl():
    """Forward and backward policies' gradients, in expectation; VarGrad's forward one is twice."""
    torch.manual_seed(0)
    model, space, policy = BitModel(fixed=True), BitSpace(), BitPolicy(hidden=8, scale=3.0)
    found = enumerate_trajectories(space, X)
    head = policy.network[-1].weight
    forward, backward = slice(0, 6), slice(6, 9)
    kl = exact_reverse_kl(policy, space, model, found).mean()
    (exact,) = torch.autograd.grad(kl, head)
    paths = policy.sample(X, X, space, 60_000)
    scores = policy.score(X, space, paths)
    log_joint = model.log_joint(X, paths.latent)
    (sampled,) = torch.autograd.grad(ReverseKL()(scores, log_joint).mean(), head)
    for rows in (forward, backward):
        scale = exact[rows].norm()
        assert scale > 0.05 and (sampled[rows] - exact[rows]).norm() < 0.1 * scale
    scores = policy.score(X, space, paths)
    scores.log_pb = scores.log_pb.detach()
    (variance,) = torch.autograd.grad(VarGrad()(scores, log_joint).mean(), head)
    assert (variance[forward] / 2 - exact[forward]).norm() < 0.1 * exact[forward].norm()


def test_forward_kl_is_weighted_maximum_likelihood():
    torch.manual_seed(0)
    log_pf = torch.randn(2, 3, 4).requires_grad_()
    log_weight = torch.randn(2, 3)
    loss = objectives.forward_kl(log_pf, log_weight.requires_grad_())
    for row in range(2):
        weights = [float(w) for w in log_weight[row].detach().exp()]
        paths = [float(p) for p in log_pf[row].detach().sum(1)]
        expected = -sum(w * p for w, p in zip(weights, paths, strict=True)) / sum(weights)
        assert loss[row].item() == pytest.approx(expected, rel=1e-5)
    loss.sum().backward()
    assert log_weight.grad is None  # the weights are no way to lower the loss


def total_variation(policy, space, model):
    """Largest distance, over the kinds in `X`, between sampler and exact posterior."""
    found = enumerate_trajectories(space, X)
    with torch.no_grad():
        probability = policy.score(X, space, found.trajectories).log_pf.sum(2).exp() * found.valid
    distances = []
    for row, kind in enumerate(X.tolist()):
        wanted, z = model.posterior(kind), strings(model.sizes[kind])[0]
        latent = found.trajectories.latent[row, :, : z.shape[1]]
        same = (latent[:, None] == z).all(2)
        got = (probability[row][:, None] * same).sum(0)
        distances.append(float((got - wanted).abs().sum() / 2))
    return max(distances)


CONVERGING = [*BALANCING[:5], *BALANCING[6:], ReverseKL()]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("objective", "ordered"),
    [(objective, False) for objective in CONVERGING] + [(VarGrad(), True), (ReverseKL(), True)],
    ids=lambda value: ("any-order", "one-path")[value] if value in (0, 1) else name_of(value),
)
def test_converges_to_the_exact_posterior(objective, ordered):
    torch.manual_seed(0)
    model, space, policy = BitModel(fixed=True), BitSpace(ordered=ordered), BitPolicy()
    assert total_variation(policy, space, model) > 0.25
    updates = 300
    optimizer = torch.optim.Adam(
        [
            {"params": policy.network.parameters(), "lr": 0.02},
            {"params": [policy.normaliser], "lr": 0.1},
        ]
    )
    decay = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, updates)
    for _ in range(updates):
        paths = policy.sample(X, X, space, 32)
        scores = policy.score(X, space, paths, flows=objective.needs_flow or objective.uses_flow)
        partial = None
        if objective.forward_looking:
            partial = torch.stack([model.partial_log_joint(X, s) for s in paths.states], 2)
        loss = objective(scores, model.log_joint(X, paths.latent), partial).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        decay.step()
    assert total_variation(policy, space, model) < 0.05
    if objective.needs_log_z:
        assert torch.allclose(policy.log_z(X), model.log_marginal(X), atol=0.05)


@pytest.mark.parametrize("decay", [2.0, 100.0])
def test_a_decay_above_1_does_not_overflow(decay):
    """Trajectories of 4 and 150 steps: as with decay^150 in float64 by hand, over the largest."""
    torch.manual_seed(0)
    steps, lengths = 150, torch.tensor([[150], [4]])
    mask = torch.arange(steps) < lengths[..., None]
    log_pf, log_pb = torch.randn(2, 2, 1, steps)
    log_reward, log_flow = torch.randn(2, 1), torch.randn(2, 1, steps + 1)
    found = objectives.sub_trajectory_balance(log_pf, log_pb, log_reward, log_flow, mask, decay)
    for row, length in enumerate((150, 4)):
        flow = [*log_flow[row, 0, :length].tolist(), float(log_reward[row, 0])]
        ratio = (log_pf - log_pb)[row, 0, :length].tolist()
        total = weights = 0.0
        for i, j in itertools.combinations(range(length + 1), 2):
            weight = decay ** (j - i - length)
            total += weight * (flow[i] + sum(ratio[i:j]) - flow[j]) ** 2
            weights += weight
        assert float(found[row]) == pytest.approx(total / weights, rel=1e-4)

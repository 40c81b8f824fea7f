"""Kernels on a small space, entry by entry: they leave the energy's distribution as it is."""

import itertools
import math

import pytest
import torch
from torch.autograd.functional import jacobian

from gfnem.em import EM
from gfnem.energies import (
    RBM,
    AssignmentSpace,
    BlockGibbs,
    BoltzmannMachine,
    DiscreteLangevin,
    Gibbs,
    GibbsWithGradients,
    MaskedPolicy,
    MLPEnergy,
    Pairwise,
    Torus,
)
from gfnem.energies.recipes import free_sampler
from gfnem.mcmc import ACCEPTANCES, metropolis
from gfnem.offers import NotOffered
from gfnem.rates import Descent, Rates
from gfnem.refinement import BackAndForth


def listed(variables, values=2):
    return torch.tensor(list(itertools.product(range(values), repeat=variables)))


def place(z, values):
    return (z * values ** torch.arange(z.shape[-1] - 1, -1, -1)).sum(-1)


def random(module, scale=0.7):
    torch.manual_seed(2)
    for parameter in module.parameters():
        parameter.data.normal_(0, scale)
    return module.double().requires_grad_(False)


def energy(values):
    return random(MLPEnergy(4, 2, hidden=4, layers=1) if values == 2 else Pairwise(3, 3))


def conditional(model, z, i):
    """`(states, values)` log p of each value of variable i given the others."""
    every = torch.stack([z.index_fill(1, torch.tensor([i]), v) for v in range(model.values)], 1)
    return model.score(model.features(every)).log_softmax(1)


def gradient_changes(model, z):
    """`(states, variables, values)` first-order changes of log p~, by the definition."""
    f = model.features(z)
    slope = torch.stack([jacobian(model.score, row) for row in f])
    changes = torch.zeros(*z.shape, model.values, dtype=f.dtype)
    for i in range(z.shape[1]):
        for v in range(model.values):
            new = model.features(z.index_fill(1, torch.tensor([i]), v))
            changes[:, i, v] = ((new - f) * slope).sum(1)
    return changes


def gibbs(model, z):
    """`(states, states)` proposal probabilities, by the definition."""
    q = torch.zeros(len(z), len(z), dtype=torch.double)
    for i in range(z.shape[1]):
        log_p = conditional(model, z, i)
        for v in range(model.values):
            to = place(z.index_fill(1, torch.tensor([i]), v), model.values)
            q[torch.arange(len(z)), to] += log_p[:, v].exp() / z.shape[1]
    return q


def gwg(model, z):
    change = gradient_changes(model, z) / 2
    change.scatter_(2, z.unsqueeze(2), -math.inf)
    p = change.flatten(1).softmax(1).view_as(change)
    q = torch.zeros(len(z), len(z), dtype=torch.double)
    for i in range(z.shape[1]):
        for v in range(model.values):
            to = place(z.index_fill(1, torch.tensor([i]), v), model.values)
            q[torch.arange(len(z)), to] += p[:, i, v]
    return q


def langevin(model, z, step=0.3):
    change = gradient_changes(model, z) / 2
    stays = torch.nn.functional.one_hot(z, model.values)
    log_p = (change - (1 - stays) / (2 * step)).log_softmax(2)
    return torch.stack(
        [sum(log_p[:, i, target[i]] for i in range(z.shape[1])).exp() for target in z],
        1,
    )


MOVES = {
    "gibbs": (Gibbs(), gibbs),
    "gwg": (GibbsWithGradients(), gwg),
    "langevin": (DiscreteLangevin(0.3), langevin),
}


def kernel(moves, model, x, z, q, acceptance, draws=500):
    """The transition matrix: proposals by `q`, accepted by the ratio that the code returns."""
    count, values = len(z), model.values
    log_p = model.score(model.features(z))
    ratio = torch.full((count, count), math.nan, dtype=torch.double)
    start = z.repeat(draws, 1)[None]
    new, log_ratio = moves.propose(x, start)
    pairs = torch.arange(count).repeat(draws), place(new[0], values)
    ratio[pairs] = log_ratio[0].double()
    seen = ~ratio.isnan()
    assert (q[~seen] < 0.04).all() and (q[seen] > 0).all(), "proposals are not those of the formula"
    # what was never drawn, by the definition
    back = torch.where(q > 0, q.log(), -math.inf)
    ratio = torch.where(seen, ratio, back.T - back)
    r = log_p[None] - log_p[:, None] + ratio
    accept = r.clamp(max=0).exp() if acceptance == "metropolis" else r.sigmoid()
    matrix = (q * accept.nan_to_num(0.0)).fill_diagonal_(0)
    return matrix + torch.diag(1 - matrix.sum(1)), log_p.softmax(0)


@pytest.mark.parametrize("acceptance", ACCEPTANCES)
@pytest.mark.parametrize("values", [2, 3])
@pytest.mark.parametrize("name", MOVES)
def test_kernels_leave_the_distribution(name, values, acceptance):
    model = energy(values)
    moves, formula = MOVES[name]
    x = torch.full((1, model.visible), -1)
    moves = moves.given(model.given(x))
    z = listed(model.visible, values)
    matrix, p = kernel(moves, model, x, z, formula(model, z), acceptance)
    assert (p @ matrix - p).abs().max() < 1e-12
    if name == "gibbs" and acceptance == "metropolis":
        assert (matrix - formula(model, z)).abs().max() < 1e-12, "Gibbs is always accepted"


def back_and_forth(policy, z, back, blocks, block):
    """Proposals that open the last blocks and write them again."""
    context = policy.encode(torch.full((1, z.shape[1]), -1))
    log_pf, _, _ = policy.steps(context, z[None])
    kept = (blocks - back) * block
    same = (z[:, None, :kept] == z[None, :, :kept]).all(2)
    return torch.where(same, log_pf[0, :, blocks - back :].sum(1).exp(), 0.0)


@pytest.mark.parametrize("acceptance", ACCEPTANCES)
@pytest.mark.parametrize(("block", "back"), [(1, 1), (1, 3), (1, 4), (2, 1), (2, 2)])
def test_back_and_forth_leaves_the_distribution(block, back, acceptance):
    model, policy = energy(2), random(MaskedPolicy(4, 2, block, hidden=8, layers=1))
    x, z = torch.full((1, 4), -1), listed(4)
    space = AssignmentSpace(4, 2, block, "fixed")
    moves = BackAndForth(policy, policy.encode(x), x, space, back)
    q = back_and_forth(policy, z, back, 4 // block, block)
    assert torch.allclose(q.sum(1), torch.ones(16, dtype=torch.double))
    matrix, p = kernel(moves, model, x, z, q, acceptance)
    assert (p @ matrix - p).abs().max() < 1e-12


def test_a_perfect_sampler_is_always_accepted():
    """The policy's logits are set to the energy's own conditionals."""
    model = Pairwise(3, 2)
    with torch.no_grad():
        model.bias.copy_(torch.tensor([0.3, -0.5, 0.2]))  # independent spins
    policy = MaskedPolicy(3, 2, hidden=4, layers=1)
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter.zero_()
        policy.stages[-1].bias[:6] = torch.stack([-model.bias, model.bias], 1).flatten()
    x = torch.full((1, 3), -1)
    space = AssignmentSpace(3, 2, order="fixed")
    for back in (1, 2, 1.0):
        moves = BackAndForth(policy, policy.encode(x), x, space, back)
        start = torch.randint(2, (1, 500, 3))
        _, _, accepted = metropolis(moves, lambda z: model.log_joint(x, z), x, start, 4)
        assert accepted.min() == 1


@pytest.mark.parametrize(
    "moves",
    [Gibbs(), GibbsWithGradients(), DiscreteLangevin(0.5)],
    ids=lambda moves: type(moves).__name__,
)
def test_what_is_observed_stays(moves):
    torch.manual_seed(0)
    model = random(MLPEnergy(4, 2, hidden=4)).float()
    x = torch.tensor([[1, -1, 0, -1], [0, 1, 1, 0]])
    moves = moves.given(model.given(x))
    start = moves.initial(x, 50)
    z, _, _ = metropolis(moves, lambda z: model.log_joint(x, z), x, start, 10)
    assert ((z == x[:, None]) | (x[:, None] < 0)).all() and (
        z[0, :, [1, 3]] != start[0, :, [1, 3]]
    ).any()


@pytest.mark.parametrize("seen", [(-1, -1, -1), (1, -1, 0)])
@pytest.mark.parametrize("collapsed", [False, True])
@pytest.mark.parametrize("kind", [lambda c: RBM(3, 2, c), lambda c: BoltzmannMachine(3, 2, 2, c)])
def test_block_gibbs_ends_in_the_distribution(kind, collapsed, seen):
    model, x = random(kind(collapsed)).float(), torch.tensor([seen])
    moves = model.moves().given(model.given(x))
    start = moves.initial(x, 10_000)
    z, _, accepted = metropolis(moves, lambda z: model.log_joint(x, z), x, start, 15)
    every, value = model.completed(x)
    found = (z[0, :, None] == every[0]).all(2).float().mean(0)
    assert found.sum() == pytest.approx(1.0), "what is observed or summed out stays"
    exact = value[0].softmax(0)
    assert accepted.min() == 1 and (found - exact).abs().sum() < 0.01 * 2 * len(exact) ** 0.5


def test_an_energy_without_layers_has_no_sweep():
    with pytest.raises(NotOffered, match="no layers"):
        BlockGibbs().given(MLPEnergy(3, 2).given(torch.full((1, 3), -1)))


def crossings(moves, model, x, z, steps):
    """How often the magnetisation of all chains changes its sign."""
    count = 0
    sign = (2 * z - 1).sum(2).sign()
    for _ in range(steps):
        z, _, _ = metropolis(moves, lambda z: model.log_joint(x, z), x, z, 1)
        now = (2 * z - 1).sum(2).sign()
        count += int((now * sign < 0).sum())
        sign = torch.where(now == 0, sign, now)
    return count


@pytest.mark.slow
def test_back_and_forth_crosses_between_wells():
    """A 4x4 lattice beyond the critical coupling: nearly all spins up, or nearly all down."""
    torch.manual_seed(0)
    model, x = Torus(16, coupling=0.3), torch.full((1, 16), -1)
    policy, space = MaskedPolicy(16, 2, hidden=64), AssignmentSpace(16, 2, order="fixed")
    descent = Descent(EM(model, space, policy, free_sampler(samples=128)), Rates(policy=2e-2))
    for _ in range(80):
        descent.update(x)
    start = torch.ones(1, 100, 16, dtype=torch.long)
    # each proposal takes a network call for each of 16 steps and one to score; Gibbs takes one call
    calls, chains = 17 * 20, BackAndForth(policy, policy.encode(x), x, space, 1.0)
    there = crossings(chains, model, x, start, calls // 17)
    gibbs = crossings(Gibbs().given(model.given(x)), model, x, start, calls)
    assert there > 10 * gibbs, (there, gibbs)

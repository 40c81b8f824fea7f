import copy

import pytest
import pytorch_lightning as pl
import torch
from toy import BitData, BitModel, BitPolicy, BitSpace, strings
from toy_training import fit, make

from gfnem.em import GFlowNetEM
from gfnem.enumeration import enumerate_trajectories
from gfnem.errors import UserError
from gfnem.esteps import E_STEPS
from gfnem.objectives import (
    DetailedBalance,
    ForwardKL,
    ReverseKL,
    SubTrajectoryBalance,
    TrajectoryBalance,
    VarGrad,
)
from gfnem.offers import NotOffered
from gfnem.running.training import _check_e_step
from gfnem.sampling import Exploration
from gfnem.schedules import AdaptiveThreshold, Alternating, Anneal, EveryUpdate
from gfnem.target import Target

pytestmark = pytest.mark.filterwarnings("ignore:.*num_workers.*", "ignore:.*GPU.*")


class SaveEachEpoch(pl.Callback):
    """Checkpoints at the ends of epochs, and a record of what every update did."""

    def __init__(self, folder=None):
        self.folder, self.history = folder, []

    def on_train_batch_end(self, trainer, module, *_):
        self.history.append(
            (int(module.e_updates), int(module.m_updates), float(module.average_loss()))
        )

    def on_train_epoch_end(self, trainer, module):
        if self.folder is not None:
            trainer.save_checkpoint(self.folder / f"{int(module.updates)}.ckpt")


def distance(module, kind=1, temperature=1.0):
    """Total variation between the sampler's and the exact posterior."""
    x = torch.tensor([kind])
    found = enumerate_trajectories(module.space, x)
    with torch.no_grad():
        scores = module.policy.score(x, module.space, found.trajectories)
    z = strings(module.model.sizes[kind])[0]
    same = (found.trajectories.latent[0][:, None] == z).all(2)
    got = (scores.log_pf.sum(2).exp().T * same).sum(0)
    wanted = (module.model.posterior(kind).log() / temperature).softmax(0)
    return float((got - wanted).abs().sum() / 2)


# -------------------------------------------------------------------- learning


@pytest.mark.slow
@pytest.mark.parametrize(
    "objective",
    [VarGrad(), DetailedBalance(forward_looking=True), SubTrajectoryBalance(forward_looking=True)],
)
def test_a_fixed_model_is_amortised_inference(objective):
    options = {"samples": 16, "policy_lr": 0.02, "max_updates": 150, "reward_temperature": 2.0}
    module = make(fixed=True, objective=objective, epsilon=0.05, **options)
    before = copy.deepcopy(module.model.state_dict())
    assert distance(module, temperature=2.0) > 0.15
    fit(module, BitData(interval=150))
    assert distance(module, temperature=2.0) < 0.05 < distance(module)
    for name, value in module.model.state_dict().items():
        assert torch.equal(value, before[name])


@pytest.mark.slow
def test_em_climbs_the_marginal_and_keeps_up():
    """Both steps together reach the best likelihood that any model can have."""
    kinds = (0,) * 6 + (1,) * 2
    module = make(samples=8, policy_lr=0.02, model_lr=0.05, max_updates=150)
    fit(module, BitData(interval=150, kinds=kinds))
    best = 0.75 * torch.tensor(0.75).log() + 0.25 * torch.tensor(0.25).log()
    reached = module.model.log_marginal(torch.tensor(kinds)).mean().detach()
    assert best - 0.02 < reached <= best + 1e-6
    assert distance(module) < 0.1


@pytest.mark.slow
@pytest.mark.parametrize(
    "e_step", ["wake-sleep", "reverse-kl", "iw", "exact", "exact-sampling", "mcmc"]
)
def test_every_rival_e_step_learns_the_model(e_step):
    """With rates alike they reach nearly what any model can reach on data of two kinds."""
    kinds = (0,) * 6 + (1,) * 2
    options = {"samples": 8, "policy_lr": 0.02, "model_lr": 0.05, "max_updates": 150}
    module = make(e_step=e_step, mcmc_steps=20, **options)
    fit(module, BitData(interval=150, kinds=kinds))
    best = 0.75 * torch.tensor(0.75).log() + 0.25 * torch.tensor(0.25).log()
    reached = module.model.log_marginal(torch.tensor(kinds)).mean().detach()
    assert best - 0.05 < reached <= best + 1e-6
    assert int(module.m_updates) == 150
    assert int(module.e_updates) == (150 if module.has_policy else 0)
    if module.has_policy:
        assert distance(module) < (0.25 if e_step == "wake-sleep" else 0.15)  # dreams alone: slower


@pytest.mark.slow
def test_refined_samples_count_equally_and_teach_the_model():
    kinds = (0,) * 6 + (1,) * 2
    options = {"samples": 8, "policy_lr": 1e-9, "model_lr": 0.05, "max_updates": 150}
    module = make(refine=10, **options)
    fit(module, BitData(interval=150, kinds=kinds))
    best = 0.75 * torch.tensor(0.75).log() + 0.25 * torch.tensor(0.25).log()
    reached = module.model.log_marginal(torch.tensor(kinds)).mean().detach()
    assert best - 0.05 < reached <= best + 1e-6


def test_rivals_choose_their_own_loss_and_draw_on_policy():
    assert isinstance(make(e_step="reverse-kl", objective=VarGrad()).objective, ReverseKL)
    assert isinstance(make(e_step="iw").objective, ForwardKL)
    assert make(e_step="iw", m_step="plain").m_step == "weighted"
    assert make(e_step="wake-sleep").sleep == 1.0 and make(e_step="wake-sleep", sleep=2).sleep == 2


def test_best_m_step_takes_the_likeliest_sample():
    module = make(m_step="best", samples=3)
    x, log_joint = torch.tensor([0, 1]), torch.tensor([[-1.0, -3.0, -2.0], [-5.0, -6.0, -4.5]])
    z = module.posterior(x).sample(3)
    picked, weight = module._m_samples(x, None, z, log_joint, torch.zeros(2, 3))
    assert torch.equal(picked, z[[0, 1], [0, 2]][:, None]) and weight == 1


def test_drawn_m_step_draws_by_the_weights():
    module = make(m_step="drawn", samples=3)
    log_joint, log_path = torch.tensor([[-1.0, -3.0, -2.0]]), torch.tensor([[0.5, 1.0, -1.0]])
    x = torch.zeros(20_000, dtype=torch.long)
    z = torch.arange(3)[None, :, None].expand(20_000, -1, 2)
    many = (tensor.expand(20_000, -1) for tensor in (log_joint, log_path))
    picked, weight = module._m_samples(x, None, z, *many)
    assert weight == 1 and picked.shape == (20_000, 1, 2)
    share = torch.bincount(picked[:, 0, 0], minlength=3) / 20_000
    torch.testing.assert_close(share, (log_joint + log_path).softmax(1)[0], atol=0.015, rtol=0)


@pytest.mark.parametrize("which", [0, 1], ids=["policy", "model"])
def test_learning_rates_follow_their_schedules(which):
    rates = []

    class Catch(pl.Callback):
        def on_train_batch_end(self, trainer, module, *_):
            rates.append(module.optimizers()[which].param_groups[0]["lr"])

    name = ("policy_lr", "model_lr")[which]
    module = make(**{name: Anneal(0.1, 0.0, 4)}, max_updates=6)
    fit(module, BitData(interval=6), Catch())
    assert rates == pytest.approx([0.1, 0.075, 0.05, 0.025, 0.0, 0.0])


def test_targets_are_told_of_the_m_updates(monkeypatch):
    told = []
    monkeypatch.setattr(BitModel, "on_step", lambda self, m_updates: told.append(m_updates))
    module = make(max_updates=3)
    fit(module, BitData(interval=3))
    assert told == [0, 1, 2]
    module.posterior(torch.tensor([0]))
    assert told[-1] == 3


def test_exact_step_needs_no_sampler():
    module = make(e_step="exact", model_lr=0.05, max_updates=60)
    before = copy.deepcopy(module.policy.state_dict())
    start = module.model.log_marginal(torch.tensor([0, 1])).mean()
    fit(module, BitData(interval=60, kinds=(0, 1)))
    assert module.model.log_marginal(torch.tensor([0, 1])).mean() > start + 0.1
    assert int(module.m_updates) == 60 and int(module.e_updates) == 0
    for name, value in module.policy.state_dict().items():
        assert torch.equal(value, before[name])


def test_exact_step_needs_an_exact_marginal(monkeypatch):
    monkeypatch.setattr(BitModel, "log_marginal", Target.log_marginal)
    with pytest.raises(NotOffered, match="BitModel offers no log_marginal"):
        fit(make(e_step="exact", max_updates=1), BitData())


def test_forward_looking_needs_partial_credit(monkeypatch):
    monkeypatch.setattr(BitModel, "partial_log_joint", Target.partial_log_joint)
    with pytest.raises(NotOffered, match="offers no partial_log_joint"):
        fit(make(objective=DetailedBalance(True), max_updates=1), BitData())


def m_step_gradient(m_step, samples=20_000, **options):
    """The model's gradient in a single update on x = (0, 1, 1, 2), and what it ought to be."""
    module = make(m_step=m_step, samples=samples, max_updates=1, clip=1e9, model_lr=0.0, **options)
    with torch.no_grad():
        module.policy.network[-1].weight *= 3
    x = torch.tensor([0, 1, 1, 2])
    policy = copy.deepcopy(module.policy)
    got = []

    class Catch(pl.Callback):
        def on_train_batch_end(self, trainer, module, *_):
            got.extend(p.grad.clone() for p in module.model.parameters())

    fit(module, BitData(batch_size=4, interval=1, kinds=tuple(x.tolist())), Catch())
    got = torch.cat([g.flatten() for g in got])
    model = module.model
    exact = torch.autograd.grad(-model.log_marginal(x).mean(), list(model.parameters()))
    exact = torch.cat([g.flatten() for g in exact])
    found = enumerate_trajectories(module.space, x)
    with torch.no_grad():
        chance = policy.score(x, module.space, found.trajectories).log_pf.sum(2).exp()
    expected = (chance * found.valid * model.log_joint(x, found.trajectories.latent)).sum(1)
    plain = torch.autograd.grad(-expected.mean(), list(model.parameters()))
    plain = torch.cat([g.flatten() for g in plain])
    return got, exact, plain


@pytest.mark.slow
@pytest.mark.parametrize("exploration", [{}, {"temperature": 2.0, "epsilon": 0.3}])
@pytest.mark.parametrize("ordered", [False, True])
def test_weighted_m_step_is_the_exact_gradient(exploration, ordered):
    got, exact, plain = m_step_gradient("weighted", ordered=ordered, **exploration)
    assert (got - exact).norm() < 0.08 * exact.norm()
    assert (plain - exact).norm() > 0.3 * exact.norm()  # the weights are what does it


@pytest.mark.slow
def test_plain_m_step_follows_the_sampler():
    got, _, plain = m_step_gradient("plain")
    assert (got - plain).norm() < 0.05 * plain.norm()


@pytest.mark.slow
def test_sleep_phase_trains_the_policy_on_dreams():
    """With nothing but dreams to learn from (a flat reward), the policy learns the posterior."""
    options = {"samples": 2, "policy_lr": 0.01, "max_updates": 120, "reward_temperature": 1e6}
    data = {"batch_size": 48, "interval": 120, "kinds": (1,) * 48}
    awake, asleep = make(scale=1.5, fixed=True, **options), None
    fit(awake, BitData(**data))
    asleep = make(scale=1.5, fixed=True, sleep=100.0, clip=100.0, **options)
    fit(asleep, BitData(**data))
    assert distance(asleep) < 0.15 < 0.3 < distance(awake)


# -------------------------------------------------------------------- timing


@pytest.mark.slow
def test_adaptive_threshold_trains_the_model_only_below_it():
    level = Anneal(0.6, 0.3, updates=30)
    module = make(
        timing=AdaptiveThreshold(level), policy_lr=0.02, average_decay=0.9, max_updates=120
    )
    callback = SaveEachEpoch()
    fit(module, BitData(interval=120), callback)
    done = 0
    verdicts = set()
    for update, (e_updates, m_updates, average) in enumerate(callback.history, 1):
        due = average < level(done)
        verdicts.add(due)
        assert m_updates == done + due and e_updates == update
        done = m_updates
    assert verdicts == {True, False}


def test_the_average_is_the_bias_corrected_one():
    losses = []

    class Listens(VarGrad):
        def __call__(self, scores, log_reward, log_partial=None):
            loss = super().__call__(scores, log_reward, log_partial)
            losses.append(float(loss.mean().detach()))
            return loss

    module = make(objective=Listens(), average_decay=0.8, max_updates=12)
    callback = SaveEachEpoch()
    fit(module, BitData(interval=12), callback)
    for t, (_, _, average) in enumerate(callback.history):
        weights = [0.8 ** (t - s) for s in range(t + 1)]
        seen = losses[: t + 1]
        expected = sum(w * x for w, x in zip(weights, seen, strict=True)) / sum(weights)
        assert average == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize(
    ("timing", "pattern"),
    [
        (Alternating(2, 3), 2 * ([(True, False)] * 2 + [(False, True)] * 3)),
        (EveryUpdate(e_every=5), 2 * ([(True, True)] + [(False, True)] * 4)),
        (EveryUpdate(m_every=5), 2 * ([(True, True)] + [(True, False)] * 4)),
    ],
    ids=["alternating", "rare-e", "rare-m"],
)
def test_an_update_touches_only_the_networks_whose_turn_it_is(timing, pattern):
    module = make(timing=timing, max_updates=10)
    changes = []

    class Watch(pl.Callback):
        def on_train_batch_start(self, trainer, module, *_):
            self.before = [copy.deepcopy(n.state_dict()) for n in (module.policy, module.model)]

        def on_train_batch_end(self, trainer, module, *_):
            changes.append(
                tuple(
                    any(not torch.equal(value, old[name]) for name, value in n.state_dict().items())
                    for n, old in zip((module.policy, module.model), self.before, strict=True)
                )
            )

    fit(module, BitData(interval=10), Watch())
    assert changes == pattern
    due = [sum(turns) for turns in zip(*pattern, strict=True)]
    assert [int(module.e_updates), int(module.m_updates)] == due


@pytest.mark.parametrize(("m_step", "scored"), [("plain", 3), ("weighted", 9)])
def test_samples_are_scored_where_somebody_asks(m_step, scored, monkeypatch):
    """Between E-steps a plain M-step takes its samples as they are."""
    module = make(timing=EveryUpdate(e_every=3), m_step=m_step, max_updates=9)
    calls = []
    score = module.policy.score
    monkeypatch.setattr(
        module.policy, "score", lambda *args, **more: (calls.append(1), score(*args, **more))[1]
    )
    fit(module, BitData(interval=9))
    assert len(calls) == scored and int(module.m_updates) == 9


@pytest.mark.parametrize("interval", [5, 50])
def test_training_stops_at_the_limit_of_updates(interval):
    module = make(max_updates=12)
    fit(module, BitData(interval=interval))
    assert int(module.updates) == 12


@pytest.mark.parametrize("interval", [5, 50])
def test_training_stops_at_the_limit_of_m_updates(interval):
    module = make(max_m_updates=7, timing=Alternating(2, 2))
    fit(module, BitData(interval=interval))
    assert int(module.m_updates) == 7 and int(module.updates) == 15


@pytest.mark.parametrize(
    ("e_step", "owner", "hook", "lacks"),
    [
        ("exact", BitModel, "log_marginal", "no exact log marginal"),
        ("exact-sampling", BitModel, "sample_posterior", "no exact posterior samples"),
        ("wake-sleep", BitModel, "sample", "no samples to dream of"),
        ("mcmc", BitSpace, "moves", "no local moves in BitSpace"),
    ],
)
def test_what_an_e_step_needs_is_checked_beforehand(monkeypatch, e_step, owner, hook, lacks):
    module = make(e_step=e_step)
    _check_e_step(module)
    base = next(c for c in owner.__mro__[1:] if hook in vars(c))
    monkeypatch.setattr(owner, hook, vars(base)[hook])
    with pytest.raises(UserError) as error:
        _check_e_step(module)
    assert f"e_step {e_step}: BitModel has {lacks}" in str(error.value)
    offered = str(error.value).split("trained with ")[1].split(", ")
    assert offered == [name for name in E_STEPS if name != e_step]


def test_mistaken_options_are_refused():
    for options in ({"e_step": "exakt"}, {"m_step": "heavy"}):
        with pytest.raises(ValueError, match="not '"):
            make(**options)


def test_explored_samples_carry_the_probability_they_were_drawn_with():
    """Recomputed by hand, step by step, from the policy's weights."""
    torch.manual_seed(0)
    x, space, policy = torch.tensor([1, 0]), BitSpace(), BitPolicy(scale=3.0)
    paths = policy.sample(x, x, space, 50, Exploration(2.0, 0.25))
    expected = torch.zeros(2, 50)
    for t in range(3):
        state = paths.states[t]
        weights = policy(x, state).forward.detach()
        mask = space.forward_mask(state)
        tempered = (weights / 2).exp() * mask
        tempered = tempered / tempered.sum(2, keepdim=True).clamp(min=1e-30)
        mixed = 0.75 * tempered + 0.25 * mask / mask.sum(2, keepdim=True).clamp(min=1)
        drawn = mixed.gather(2, paths.actions[:, :, t, None])[..., 0]
        expected += torch.where(paths.mask[:, :, t], drawn, 1.0).log()
    assert torch.allclose(paths.log_behaviour, expected, atol=1e-5)


# -------------------------------------------------------------------- validation and checkpoints


@pytest.mark.slow
def test_validation_reports_and_leaves_training_alone():
    held = BitData(interval=5, held=(0, 1, 1, 2))
    module = make(max_updates=10, eval_samples=400)
    trainer = fit(module, held)
    figures = {name: float(value) for name, value in trainer.callback_metrics.items()}
    x = torch.tensor([0, 1, 1, 2])
    exact = module.model.log_marginal(x).detach()
    assert figures["val_nll"] == pytest.approx(float(-exact.mean()), abs=1e-5)
    assert 0 < figures["val_elbo_gap"] and 0 < figures["val_ess"] <= 1
    other = make(max_updates=10)
    fit(other, BitData(interval=5))
    for name, value in other.state_dict().items():
        assert torch.equal(value, module.state_dict()[name]), name


def full_options():
    return {
        "objective": SubTrajectoryBalance(decay=0.8),
        "timing": AdaptiveThreshold(Anneal(20.0, 0.2, updates=20)),
        "epsilon": Anneal(0.2, 0.0, updates=20),
        "sleep": 0.5,
        "average_decay": 0.9,
        "max_updates": 30,
        "metadata": {"words": ["a", "b"]},
    }


@pytest.mark.slow
def test_checkpoints_are_plain_data_and_make_the_module_again(tmp_path):
    module = make(**full_options())
    fit(module, BitData(interval=10), SaveEachEpoch(tmp_path))
    path = tmp_path / "30.ckpt"
    checkpoint = torch.load(path, weights_only=True)
    assert checkpoint["hyper_parameters"]["objective"]["init_args"] == {"decay": 0.8}
    assert checkpoint["state_dict"]["loss_average"] == module.loss_average != 0
    again = GFlowNetEM.load_from_checkpoint(path, weights_only=True)
    assert again.timing.threshold(10) == module.timing.threshold(10)
    assert again.metadata == {"words": ["a", "b"]} and int(again.updates) == 30
    assert again.average_loss() == module.average_loss()
    for name, value in module.state_dict().items():
        assert torch.equal(value, again.state_dict()[name])
    x = torch.tensor([0, 1])
    torch.manual_seed(5)
    drawn = module.posterior(x).sample(7)
    torch.manual_seed(5)
    assert torch.equal(again.posterior(x).sample(7), drawn)


@pytest.mark.slow
@pytest.mark.parametrize("held", [(), (0, 1)], ids=["no-validation", "validation"])
def test_a_resumed_run_is_the_uninterrupted_one_bit_for_bit(tmp_path, held):
    whole = make(**full_options())
    callback = SaveEachEpoch(tmp_path)
    fit(whole, BitData(batch_size=3, interval=10, held=held), callback)
    assert len({m for _, m, _ in callback.history}) > 2  # both verdicts, both parts
    for start in (10, 20):
        torch.manual_seed(999)  # whatever the process drew before
        resumed = GFlowNetEM.load_from_checkpoint(tmp_path / f"{start}.ckpt")
        again = SaveEachEpoch()
        data = BitData(batch_size=3, interval=10, held=held)
        fit(resumed, data, again, resume=tmp_path / f"{start}.ckpt")
        assert again.history == callback.history[start:]
        for name, value in whole.state_dict().items():
            assert torch.equal(value, resumed.state_dict()[name]), name


@pytest.mark.parametrize(
    "objective", [TrajectoryBalance(), ReverseKL(), DetailedBalance(), SubTrajectoryBalance()]
)
def test_batches_of_structures_without_steps_do_no_harm(objective):
    module = make(objective=objective, max_updates=3)
    fit(module, BitData(interval=3, kinds=(2, 2, 2)))
    assert all(torch.isfinite(p).all() for p in module.parameters())
    assert int(module.m_updates) == 3


class OpinionatedPolicy(BitPolicy):
    """With a part that only the auxiliary loss trains."""

    def __init__(self):
        super().__init__()
        self.opinion = torch.nn.Parameter(torch.zeros(()))

    def auxiliary_loss(self, context):
        return (self.opinion - 1).square().expand(len(context))


@pytest.mark.slow
def test_auxiliary_loss_trains_the_policy():
    module = GFlowNetEM(BitModel(), BitSpace(), OpinionatedPolicy(), policy_lr=0.02, max_updates=80)
    fit(module, BitData(interval=80))
    assert abs(module.policy.opinion.item() - 1) < 0.1


@pytest.mark.parametrize("ordered", [True, False])
def test_a_collapsed_sampler_is_told_by_samples_that_stray(ordered):
    """Its own samples agree with each other: gap and effective samples look perfect."""
    module = make(ordered=ordered, scale=0.0)
    x = torch.tensor([1] * 50)
    torch.manual_seed(0)
    posterior = module.posterior(x)
    z, weights = posterior.log_weights(16)
    assert posterior.missed(weights, 16).mean().abs() < 0.5
    with torch.no_grad():  # every bit is 0
        module.policy.network[-1].weight.zero_()
        bias = module.policy.network[-1].bias.zero_()
        bias[1 : 2 * module.policy.places : 2] = -20.0
    posterior = module.posterior(x)
    z, weights = posterior.log_weights(16)
    assert (weights - weights.mean()).abs().max() < 1e-3  # as if it were exact
    assert z.sum() == 0
    assert posterior.missed(weights, 16).mean() > 1.0

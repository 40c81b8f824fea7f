import copy

import pytest
import pytorch_lightning as pl
import torch
from toy import BitData, BitModel, BitPolicy, BitSpace, strings
from toy_training import fit, make

from gfnem.batch import Batch, Draws
from gfnem.enumeration import enumerate_trajectories
from gfnem.lightning import GFlowNetEM
from gfnem.objectives import (
    DetailedBalance,
    ForwardKL,
    ReverseKL,
    SubTrajectoryBalance,
    TrajectoryBalance,
    VarGrad,
)
from gfnem.offers import NotOffered
from gfnem.phases import M_STEPS
from gfnem.rates import Rates
from gfnem.recipes import RECIPES, fitting
from gfnem.running.trained import CLOCK
from gfnem.sampling import Exploration
from gfnem.schedules import AdaptiveThreshold, Alternating, Anneal, EveryUpdate
from gfnem.sources import ModelSamples
from gfnem.target import Target

pytestmark = pytest.mark.filterwarnings("ignore:.*num_workers.*", "ignore:.*GPU.*")


class SaveEachEpoch(pl.Callback):
    """Checkpoints at the ends of epochs, and a record of what every update did."""

    def __init__(self, folder=None):
        self.folder, self.history = folder, []

    def on_train_batch_end(self, trainer, module, *_):
        self.history.append(
            (int(module.e_updates), int(module.m_updates), module.em.clock.average())
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


def same(one, other):
    return torch.equal(one, other) if isinstance(one, torch.Tensor) else one == other


# -------------------------------------------------------------------- numbers


def test_numbers_below_the_normal_range_count_as_zero_in_updates_alone():
    def counts() -> bool:
        return bool(torch.tensor([1e-39]) * 1 > 0)

    em = make(samples=4).em
    x = torch.tensor([0, 1])
    assert counts()
    for _, loss in em.update(x):
        assert not counts()
        loss.backward()
        assert not counts()
    assert counts()
    update = em.update(x)
    next(update)
    with pytest.raises(KeyError):  # what goes wrong in the middle
        update.throw(KeyError("gone"))
    assert counts()


# -------------------------------------------------------------------- learning


@pytest.mark.slow
@pytest.mark.parametrize(
    "objective",
    [VarGrad(), DetailedBalance(forward_looking=True), SubTrajectoryBalance(forward_looking=True)],
)
def test_a_fixed_model_is_amortised_inference(objective):
    options = {"samples": 16, "max_updates": 150, "reward_temperature": 2.0}
    rates = {"policy": 0.02}
    module = make(fixed=True, objective=objective, epsilon=0.05, rates=rates, **options)
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
    module = make(samples=8, rates={"policy": 0.02, "model": 0.05}, max_updates=150)
    fit(module, BitData(interval=150, kinds=kinds))
    best = 0.75 * torch.tensor(0.75).log() + 0.25 * torch.tensor(0.25).log()
    reached = module.model.log_marginal(torch.tensor(kinds)).mean().detach()
    assert best - 0.02 < reached <= best + 1e-6
    assert distance(module) < 0.1


@pytest.mark.slow
@pytest.mark.parametrize(
    ("recipe", "settings"),
    [
        ("wake_sleep", {"samples": 8}),
        ("reverse_kl", {"samples": 8}),
        ("iw", {"samples": 8}),
        ("exact", {}),
        ("exact_sampling", {"samples": 8}),
        ("mcmc", {"samples": 8, "steps": 20}),
    ],
)
def test_every_rival_recipe_learns_the_model(recipe, settings):
    """With rates alike they reach nearly what any model can reach on data of two kinds."""
    kinds = (0,) * 6 + (1,) * 2
    rates = {"policy": 0.02, "model": 0.05}
    module = make(recipe=recipe, rates=rates, max_updates=150, **settings)
    fit(module, BitData(interval=150, kinds=kinds))
    best = 0.75 * torch.tensor(0.75).log() + 0.25 * torch.tensor(0.25).log()
    reached = module.model.log_marginal(torch.tensor(kinds)).mean().detach()
    assert best - 0.05 < reached <= best + 1e-6
    assert int(module.m_updates) == 150
    assert int(module.e_updates) == (150 if module.has_policy else 0)
    if module.has_policy:
        assert distance(module) < (0.25 if recipe == "wake_sleep" else 0.15)  # dreams alone: slower


@pytest.mark.slow
def test_refined_samples_count_equally_and_teach_the_model():
    kinds = (0,) * 6 + (1,) * 2
    rates = {"policy": 1e-9, "model": 0.1}
    module = make(refine=10, samples=8, rates=rates, max_updates=60)
    fit(module, BitData(interval=60, kinds=kinds))
    best = 0.75 * torch.tensor(0.75).log() + 0.25 * torch.tensor(0.25).log()
    reached = module.model.log_marginal(torch.tensor(kinds)).mean().detach()
    assert best - 0.05 < reached <= best + 1e-6


def phases_of(name, **settings):
    return RECIPES[name](**settings).phases()


def test_rivals_have_their_own_losses_and_draw_on_policy():
    e_step, m_step = phases_of("reverse_kl")
    assert isinstance(e_step.objective, ReverseKL) and m_step.m_step == "equal"
    assert e_step.source is m_step.source and e_step.source.on_policy
    e_step, m_step = phases_of("iw")
    assert isinstance(e_step.objective, ForwardKL) and m_step.m_step == "importance"
    e_step, m_step = phases_of("wake_sleep")
    assert isinstance(e_step.source, ModelSamples) and m_step.m_step == "equal"


def drawn(log_joint, log_path, z):
    """Draws whose scores are known, as phases see them."""
    found = Draws(Batch(make().em, torch.zeros(len(z), dtype=torch.long)), z)
    found._log_joint, found._log_path = log_joint, log_path
    return found


def test_best_m_step_takes_the_likeliest_sample():
    log_joint = torch.tensor([[-1.0, -3.0, -2.0], [-5.0, -6.0, -4.5]])
    z = torch.tensor([[[0, 0], [0, 1], [1, 0]], [[1, 1], [0, 0], [1, 0]]])
    picked, weight = M_STEPS["best"](drawn(log_joint, torch.zeros(2, 3), z))
    assert torch.equal(picked, z[[0, 1], [0, 2]][:, None]) and weight == 1


def test_one_drawn_by_the_weights():
    log_joint, log_path = torch.tensor([[-1.0, -3.0, -2.0]]), torch.tensor([[0.5, 1.0, -1.0]])
    z = torch.arange(3)[None, :, None].expand(20_000, -1, 2)
    many = (tensor.expand(20_000, -1) for tensor in (log_joint, log_path))
    picked, weight = M_STEPS["one"](drawn(*many, z))
    assert weight == 1 and picked.shape == (20_000, 1, 2)
    share = torch.bincount(picked[:, 0, 0], minlength=3) / 20_000
    torch.testing.assert_close(share, (log_joint + log_path).softmax(1)[0], atol=0.015, rtol=0)


@pytest.mark.parametrize("which", [0, 1], ids=["policy", "model"])
def test_learning_rates_follow_their_schedules(which):
    rates = []

    class Catch(pl.Callback):
        def on_train_batch_end(self, trainer, module, *_):
            rates.append(module.optimizers()[which].param_groups[0]["lr"])

    name = ("policy", "model")[which]
    module = make(rates={name: Anneal(0.1, 0.0, 4)}, max_updates=6)
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


@pytest.mark.slow
def test_exact_step_needs_no_sampler():
    module = make(recipe="exact", rates={"model": 0.05}, max_updates=60)
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
        make(recipe="exact")


def test_forward_looking_needs_partial_credit(monkeypatch):
    monkeypatch.setattr(BitModel, "partial_log_joint", Target.partial_log_joint)
    with pytest.raises(NotOffered, match="offers no partial_log_joint"):
        make(objective=DetailedBalance(True))


def m_step_gradient(m_step, samples=20_000, **options):
    """The model's gradient in a single update on x = (0, 1, 1, 2), and what it ought to be."""
    module = make(
        m_step=m_step, samples=samples, max_updates=1, rates={"clip": 1e9, "model": 0.0}, **options
    )
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
    got, exact, plain = m_step_gradient("importance", ordered=ordered, **exploration)
    assert (got - exact).norm() < 0.08 * exact.norm()
    assert (plain - exact).norm() > 0.3 * exact.norm()  # the weights are what does it


@pytest.mark.slow
def test_plain_m_step_follows_the_sampler():
    got, _, plain = m_step_gradient("equal")
    assert (got - plain).norm() < 0.05 * plain.norm()


@pytest.mark.slow
def test_sleep_phase_trains_the_policy_on_dreams():
    """With nothing but dreams to learn from (a flat reward), the policy learns the posterior."""
    options = {"samples": 2, "max_updates": 120, "reward_temperature": 1e6}
    data = {"batch_size": 48, "interval": 120, "kinds": (1,) * 48}
    awake, asleep = make(scale=1.5, fixed=True, rates={"policy": 0.01}, **options), None
    fit(awake, BitData(**data))
    rates = {"policy": 0.01, "clip": 100.0}
    asleep = make(scale=1.5, fixed=True, sleep=100.0, rates=rates, **options)
    fit(asleep, BitData(**data))
    assert distance(asleep) < 0.15 < 0.3 < distance(awake)


# -------------------------------------------------------------------- timing


@pytest.mark.slow
def test_adaptive_threshold_trains_the_model_only_below_it():
    level = Anneal(0.6, 0.3, updates=30)
    schedule = AdaptiveThreshold(level, average_decay=0.9)
    module = make(schedule=schedule, rates={"policy": 0.02}, max_updates=120)
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
        def forward(self, scores, log_reward, log_partial=None):
            loss = super().forward(scores, log_reward, log_partial)
            losses.append(float(loss.mean().detach()))
            return loss

    module = make(
        objective=Listens(), schedule=AdaptiveThreshold(1e9, average_decay=0.8), max_updates=12
    )
    callback = SaveEachEpoch()
    fit(module, BitData(interval=12), callback)
    for t, (_, _, average) in enumerate(callback.history):
        weights = [0.8 ** (t - s) for s in range(t + 1)]
        seen = losses[: t + 1]
        expected = sum(w * x for w, x in zip(weights, seen, strict=True)) / sum(weights)
        assert average == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize(
    ("schedule", "pattern"),
    [
        (Alternating(2, 3), 2 * ([(True, False)] * 2 + [(False, True)] * 3)),
        (EveryUpdate(e_every=5), 2 * ([(True, True)] + [(False, True)] * 4)),
        (EveryUpdate(m_every=5), 2 * ([(True, True)] + [(True, False)] * 4)),
    ],
    ids=["alternating", "rare-e", "rare-m"],
)
def test_an_update_touches_only_the_networks_whose_turn_it_is(schedule, pattern):
    module = make(schedule=schedule, max_updates=10)
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


@pytest.mark.parametrize(("m_step", "scored"), [("equal", 3), ("importance", 9)])
def test_samples_are_scored_where_somebody_asks(m_step, scored, monkeypatch):
    """Between E-steps a plain M-step takes its samples as they are."""
    module = make(schedule=EveryUpdate(e_every=3), m_step=m_step, max_updates=9)
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
    module = make(max_m_updates=7, schedule=Alternating(2, 2))
    fit(module, BitData(interval=interval))
    assert int(module.m_updates) == 7 and int(module.updates) == 15


@pytest.mark.parametrize(
    ("recipe", "owner", "hook"),
    [
        ("exact", BitModel, "log_marginal"),
        ("exact_sampling", BitModel, "sample_posterior"),
        ("wake_sleep", BitModel, "sample"),
        ("mcmc", BitSpace, "moves"),
    ],
)
def test_what_a_recipe_needs_is_checked_beforehand(monkeypatch, recipe, owner, hook):
    module = make(recipe=recipe)
    base = next(c for c in owner.__mro__[1:] if hook in vars(c))
    monkeypatch.setattr(owner, hook, vars(base)[hook])
    with pytest.raises(NotOffered, match=f"{owner.__name__} offers no {hook}"):
        make(recipe=recipe)
    offered = fitting(module.model, module.space, module.policy)
    assert offered == [name for name in RECIPES if name not in (recipe, "eb_gfn")]


def test_a_setting_that_a_recipe_does_not_use_is_refused():
    with pytest.raises(TypeError, match="samples"):
        make(recipe="exact", samples=3)


def test_mistaken_options_are_refused():
    with pytest.raises(ValueError, match=r"m_step is one of .*, not 'heavy'"):
        make(m_step="heavy")


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
        assert same(value, module.state_dict()[name]), name


def full_options():
    return {
        "objective": SubTrajectoryBalance(decay=0.8),
        "schedule": AdaptiveThreshold(Anneal(20.0, 0.2, updates=20), average_decay=0.9),
        "epsilon": Anneal(0.2, 0.0, updates=20),
        "sleep": 0.5,
        "max_updates": 30,
        "metadata": {"words": ["a", "b"]},
    }


@pytest.mark.slow
def test_checkpoints_are_plain_data_and_make_the_module_again(tmp_path):
    module = make(**full_options())
    fit(module, BitData(interval=10), SaveEachEpoch(tmp_path))
    path = tmp_path / "30.ckpt"
    checkpoint = torch.load(path, weights_only=True)
    settings = checkpoint["hyper_parameters"]["recipe"]["init_args"]
    assert settings["objective"]["init_args"] == {"decay": 0.8}
    assert checkpoint["state_dict"][CLOCK]["updates"] == 30
    again = GFlowNetEM.load_from_checkpoint(path, weights_only=True)
    assert again.em.schedule.threshold(again.em.clock) == module.em.schedule.threshold(
        module.em.clock
    )
    assert again.metadata == {"words": ["a", "b"]} and int(again.updates) == 30
    assert again.em.clock.average() == module.em.clock.average() != 0
    for name, value in module.state_dict().items():
        assert same(value, again.state_dict()[name])
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
            assert same(value, resumed.state_dict()[name]), name


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
    module = GFlowNetEM(
        BitModel(), BitSpace(), OpinionatedPolicy(), rates=Rates(policy=0.02), max_updates=80
    )
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

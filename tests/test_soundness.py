"""Nothing silently wrong in training: numbers, Trainers, signals, files."""

import fcntl
import io
import re
import sys
import warnings

import pytest
import pytorch_lightning as pl
import torch
from commands import SMALL, TINY, call, printed, refused
from toy import BitData, BitPolicy, BitSpace
from toy_training import fit, make

from gfnem import GFlowNetEM
from gfnem.errors import UserError
from gfnem.objectives import ForwardKL, ReverseKL, VarGrad
from gfnem.running.trained import CLOCK
from gfnem.schedules import AdaptiveThreshold, Anneal
from gfnem.target import EnergyModel, Target

pytestmark = pytest.mark.filterwarnings("ignore:.*num_workers.*", "ignore:.*GPU.*")


# ------------------------------------------------------------------ settings, in Python too


@pytest.mark.parametrize(
    "setting",
    [
        {"rates": {"clip": 0.0}},
        {"rates": {"clip": -1.0}},
        {"reward_temperature": 0.0},
        {"temperature": Anneal(1.5, 0.0, 3)},
        {"epsilon": 2.0},
        {"epsilon": -0.1},
        {"rates": {"policy": -1.0}},
        {"rates": {"model": float("nan")}},
        {"rates": {"model_betas": (0.9, 1.0)}},
        {"samples": 0},
        {"sleep": -1.0},
        {"max_updates": 0},
    ],
    ids=lambda setting: "-".join(setting),
)
def test_numbers_out_of_range_are_refused_by_name(setting):
    (name,) = setting.get("rates", setting)
    with pytest.raises(ValueError, match=f"^{name} .* is needed"):
        make(**setting)


def test_numbers_within_parts_given_as_plain_data_are_refused_too():
    anneal = {"class_path": "gfnem.Anneal", "init_args": dict(start=1, end=-1, updates=3)}
    spec = {"class_path": "gfnem.recipes.gflownet", "init_args": {"temperature": anneal}}
    with pytest.raises(UserError, match=r"temperature .* is needed"):
        make(recipe=spec)
    with pytest.raises(ValueError, match=r"average_decay 1.0: .* is needed"):
        AdaptiveThreshold(1.0, average_decay=1.0)


@pytest.mark.slow
@pytest.mark.parametrize(
    "flag", ["--rates.clip=-1", "--recipe.epsilon=2", "--recipe.reward_temperature=0"]
)
def test_a_refused_number_leaves_no_folder(capsys, tmp_path, flag):
    part, name = flag.removeprefix("--").split("=")[0].split(".")
    assert re.search(
        f"(?i){part}.*{name}", refused(capsys, "train", *TINY, "--out", tmp_path / "run", flag)
    )
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("objective", [ReverseKL, ForwardKL])
@pytest.mark.parametrize(
    "stray",
    [{"epsilon": 0.1}, {"temperature": Anneal(2.0, 1.0, 5)}],
    ids=["epsilon", "temperature"],
)
def test_on_policy_objectives_refuse_samples_that_stray(objective, stray):
    with pytest.raises(ValueError, match="right on the policy's own samples alone"):
        make(objective=objective(), **stray)
    assert make(objective=VarGrad(), **stray)
    assert make(objective=objective(), temperature=1.0)


class Energy(EnergyModel):
    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))

    def log_joint(self, x, z):
        return self.weight * z.float().sum(-1)


def test_an_energy_is_not_trained_without_its_negative_phase():
    with pytest.raises(
        ValueError, match="Energy is an EnergyModel: training it takes a negative phase"
    ):
        GFlowNetEM(Energy(), BitSpace(), BitPolicy())
    frozen = Energy().requires_grad_(False)
    assert GFlowNetEM(frozen, BitSpace(), BitPolicy()).model is frozen


# ------------------------------------------------------------------ what is not finite


class Explodes(VarGrad):
    """A loss that is not finite in the updates named."""

    def __init__(self, when=()):
        super().__init__()
        self.when, self.calls = set(when), 0

    def forward(self, *arguments):
        self.calls += 1
        loss = super().forward(*arguments)
        return loss * float("nan") if self.calls - 1 in self.when else loss


def test_a_loss_that_is_not_finite_stays_out_of_the_average():
    averages = {}
    for name, when in (("never", ()), ("third", (2,))):
        module = make(
            objective=Explodes(when),
            schedule=AdaptiveThreshold(100.0),
            max_updates=6,
            rates={"policy": 0.0},
        )
        fit(module, BitData(interval=6))
        averages[name] = module.em.clock.average()
        assert int(module.m_updates) == 6  # the M-step is still due
    assert averages["third"] == averages["third"] and averages["third"] > 0


@pytest.mark.slow
def test_a_policy_that_never_has_a_finite_gradient_is_reported():
    module = make(objective=Explodes(range(100)), max_updates=60)
    with pytest.raises(UserError, match=r"no finite gradient of the policy .*rates\.policy"):
        fit(module, BitData(interval=60))
    assert int(module.updates) < 25


# ------------------------------------------------------------------ any Trainer


class Counted(BitData):
    """Remembers the number of every batch it made."""

    def training_batch(self, update, rank=0, ranks=1):
        self.made = [*getattr(self, "made", []), update]
        return super().training_batch(update, rank, ranks)


def run(module, data=None, loader=None, **options):
    options = {"max_epochs": -1, "accelerator": "cpu", "devices": 1, **options}
    quiet = dict(
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer = pl.Trainer(**quiet, **options)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer.fit(module, loader, datamodule=data)
    return trainer


@pytest.mark.slow
def test_the_stream_follows_the_count_of_updates_in_any_trainer():
    data = Counted(interval=10, batch_size=2)
    run(make(max_updates=25), data)
    assert data.made == list(range(25))


def test_overfitting_one_batch_sees_one_batch():
    data = Counted(interval=10, batch_size=2)
    run(make(max_updates=8), data, overfit_batches=1)
    assert set(data.made) == {0} and len(data.made) >= 8


@pytest.mark.slow
def test_max_updates_holds_with_a_loader_of_ones_own():
    module = make(max_updates=20)
    loader = torch.utils.data.DataLoader([torch.tensor([0, 1])] * 50, batch_size=None)
    run(module, loader=loader)
    assert int(module.updates) == 20
    run(module, loader=loader)  # it has had them all
    assert int(module.updates) == 20


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"gradient_clip_val": 1.0}, "use Rates(clip=...)"),
        ({"max_steps": 7}, "use max_updates"),
        ({"accumulate_grad_batches": 2}, "use larger batches"),
        ({"precision": "bf16-true"}, "use bf16-mixed"),
    ],
    ids=str,
)
def test_trainers_that_cannot_mean_what_they_say(options, says):
    with pytest.raises(
        Exception, match="^GFlowNetEM: .*" + says.replace("(", r"\(").replace(")", r"\)")
    ):
        run(make(max_updates=2), BitData(interval=2), **options)


class HeldOut(BitData):
    def validation_batches(self):
        return [torch.tensor([0, 1]), torch.tensor([1, 1, 0])]


def test_trainer_test_and_predict():
    data, module = HeldOut(interval=3, batch_size=2), make(max_updates=3)
    trainer = run(module, data)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        (figures,) = trainer.test(module, datamodule=data, verbose=False)
        drawn = trainer.predict(module, datamodule=data)
    assert figures["test_nll"] == pytest.approx(
        float(trainer.validate(module, datamodule=data, verbose=False)[0]["val_nll"])
    )
    assert len(drawn) == len(data.validation_batches()) and drawn[0].shape[1] == 1


def test_scaled_gradients_are_clipped_as_if_they_were_not():
    """16-mixed multiplies the loss: the step must not depend on by how much."""
    moved = []
    for scale in (1.0, 2.0**10):
        module = make(max_updates=1, rates={"clip": 0.5, "policy": 0.1, "model": 0.1})
        plugin = pl.plugins.MixedPrecision(
            "16-mixed", "cpu", torch.amp.GradScaler("cpu", init_scale=scale)
        )
        plugin.autocast_context_manager = lambda: torch.autocast("cpu", enabled=False)
        module.configure_optimizers = lambda module=module: [
            torch.optim.SGD(module.policy.parameters(), lr=1.0),
            torch.optim.SGD(module.model.parameters(), lr=1.0),
        ]
        run(module, BitData(interval=1), plugins=[plugin])
        moved.append(torch.cat([p.detach().flatten() for p in module.parameters()]))
    torch.testing.assert_close(moved[0], moved[1], atol=1e-4, rtol=1e-4)


# ------------------------------------------------------------------ run folders


@pytest.mark.slow
def test_a_second_run_in_a_folder_is_refused_while_the_first_trains(capsys, tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    with open(folder / ".lock", "a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        line = refused(capsys, "train", *TINY, "--out", folder)
    assert "another process is training in this folder" in line
    assert [path.name for path in folder.iterdir()] == [".lock"]


@pytest.mark.slow
def test_a_resumed_run_needs_the_data_it_was_trained_with(capsys, tmp_path):
    text = tmp_path / "text.txt"
    words = ["cat", "dog", "bird"] * 20
    text.write_text("".join(f"the {word} sees a {word} here\n" for word in words))
    settings = [*SMALL, "--data", text, "--max-updates=5", "--dataset.interval=5"]
    printed(capsys, "train", *settings, "--out", tmp_path / "run")
    again = ["train", "--resume", tmp_path / "run", "--max-updates=10"]
    assert "is not what this run was trained with" in refused(capsys, *again, "--seed=5")
    # as many words, but other ones
    text.write_text(text.read_text().replace("bird", "fish"))
    assert "the vocabulary is not what" in refused(capsys, *again)
    text.write_text(text.read_text().replace("fish", "bird") + "the cat sees a dog here\n")
    assert "is not what this run was trained with" in refused(capsys, *again)
    text.write_text("".join(f"the {word} sees a {word} here\n" for word in words))
    assert "going on after update 5" in printed(capsys, *again)


def test_points_and_images_have_fingerprints_too():
    from gfnem.images.data import Images
    from gfnem.mixtures.data import Petals

    for one, twin, other in (
        [Petals(seed=seed, points=50) for seed in (0, 0, 1)],
        [Images(threshold=threshold) for threshold in (0.5, 0.5, 0.3)],
    ):
        assert one.fingerprint() == twin.fingerprint() != {}
        assert one.fingerprint() != other.fingerprint()


@pytest.mark.slow
def test_the_best_checkpoint_is_kept_and_used(capsys, tmp_path):
    """Held-out NLL rises again at a rate far too high; the run stops and says so."""
    settings = [*TINY, "--max-updates=100", "--rates.model=0.3", "--dataset.interval=2"]
    out = printed(capsys, "train", *settings, "--patience=3", "--out", tmp_path / "run")
    assert "stopped: no lower held-out NLL in 3 validations" in out
    rows = [line.split(",") for line in (tmp_path / "run/metrics.csv").read_text().splitlines()]
    nll = [float(row[rows[0].index("val_nll")]) for row in rows[1:]]
    updates = [int(row[0]) for row in rows[1:]]
    best = min(range(len(nll)), key=nll.__getitem__)
    assert best == len(nll) - 4
    assert f"best.ckpt is from update {updates[best]} (held-out NLL {nll[best]:.3f})" in out
    kept = torch.load(tmp_path / "run/best.ckpt", weights_only=True)
    assert int(kept["state_dict"][CLOCK]["updates"]) == updates[best]
    from gfnem.running.runs import load_run

    last = load_run(tmp_path / "run/last.ckpt").model.state_dict()
    default = load_run(tmp_path / "run").model.state_dict()
    assert any(not torch.equal(value, last[name]) for name, value in default.items())


class Full(io.StringIO):
    """A standard output on a full disk."""

    def write(self, text):
        raise OSError(28, "No space left on device")


@pytest.mark.slow
def test_training_goes_on_without_a_reader(capsys, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "stdout", Full())
    assert call("train", *TINY, "--out", tmp_path / "run") == 0
    assert (tmp_path / "run/last.ckpt").exists()


@pytest.mark.slow
def test_a_disk_that_fills_up_costs_one_line(capsys, tmp_path, monkeypatch):
    def full(trainer, path, *_):
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(pl.Trainer, "save_checkpoint", full)
    line = refused(capsys, "train", *TINY, "--out", tmp_path / "run")
    assert "cannot write last.ckpt (No space left on device); make room and start again" in line
    assert not (tmp_path / "run").exists()  # there was nothing to go on with yet


def test_exact_em_is_refused_before_training_where_it_is_intractable(capsys, tmp_path, monkeypatch):
    from gfnem.parsing import NeuralPCFG

    monkeypatch.setattr(NeuralPCFG, "log_marginal", Target.log_marginal)
    run = tmp_path / "run"
    line = refused(capsys, "train", *TINY, "--recipe=exact", "--out", run)
    assert "NeuralPCFG offers no log_marginal" in line and not run.exists()

"""One training run, from settings to a run folder."""

from __future__ import annotations

import importlib.util
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
import yaml
from pytorch_lightning.utilities.exceptions import MisconfigurationException

from gfnem.component import build
from gfnem.data import DataModule
from gfnem.em import GFlowNetEM
from gfnem.errors import UserError
from gfnem.esteps import E_STEPS
from gfnem.files import absolute, write_atomically
from gfnem.objectives import Objective, ReverseKL, VarGrad
from gfnem.policy import Policy
from gfnem.progress import TrainingProgress
from gfnem.run_folder import RunFolder
from gfnem.runs import CHECKPOINT, CONFIG, CURVES, METRICS, read_checkpoint
from gfnem.schedules import Timing
from gfnem.space import LatentSpace
from gfnem.target import GenerativeModel, Target


def train(settings: dict[str, Any], before: Callable[[], None] = lambda: None) -> Path:
    """Trains as the settings say and returns the run folder.

    Args:
        settings: the parsed command line (see `gfnem train --help`), nested plain data.
        before: called once imports are done and before training starts.

    Raises:
        UserError: if data or settings are unusable, or the folder already holds a run.
    """
    folder, checkpoint = _folder(settings)
    if settings.get("shapes") is not None:
        settings = _with_shapes(settings)
    before()
    if not 0 <= settings["seed"] < 2**32:
        raise UserError(f"--seed {settings['seed']}: a number from 0 to 4294967295 is wanted")
    pl.seed_everything(settings["seed"], verbose=False)
    data, module = assemble(settings)
    already = _updates_done(checkpoint, module) if checkpoint else 0
    trainer = _trainer(settings, folder)
    if summary := data.summary():
        print(summary, flush=True)
    if module.side is not None:
        print(module.side.prepare(module.model), flush=True)
    print(_describe(module), flush=True)
    # only now, so that unusable data or settings leave no folder behind
    _make(folder, fresh=not (settings.get("resume") or settings.get("out")))
    kept = {k: v for k, v in settings.items() if k not in ("config", "resume", "out")}
    write_atomically(folder / CONFIG, yaml.safe_dump(_plain(kept), sort_keys=False))
    if settings.get("resume"):
        print(f"going on after update {already}" if already else "starting again at update 0")
    if already and already >= module.max_updates:
        print(f"{folder} has had its {already} updates already; ask for more with --max-updates")
    else:
        _fit(trainer, module, data, checkpoint, folder)
    files = data.draw(module.eval(), folder)
    written = [name for name in (CHECKPOINT, CONFIG, METRICS, CURVES) if (folder / name).exists()]
    print(f"done: {folder} holds {', '.join([*written, *files])}")
    return folder


def _trainer(settings: dict[str, Any], folder: Path) -> pl.Trainer:
    on_cpu = settings["accelerator"] == "cpu" or not torch.cuda.is_available()
    try:
        return pl.Trainer(
            accelerator=settings["accelerator"],
            devices=settings["devices"],
            precision=settings["precision"],
            max_epochs=-1,
            reload_dataloaders_every_n_epochs=1,
            num_sanity_val_steps=0,
            use_distributed_sampler=False,
            # a resumed run must repeat what it would have done
            deterministic=True if on_cpu else None,
            logger=_logger(folder),
            callbacks=[RunFolder(folder), TrainingProgress()],
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
    except (ValueError, RuntimeError, TypeError, MisconfigurationException) as error:
        raise UserError(f"accelerator, devices or precision: {error}") from error


def _fit(
    trainer: pl.Trainer,
    module: GFlowNetEM,
    data: DataModule,
    checkpoint: Path | None,
    folder: Path,
) -> None:
    """Trains; an interruption comes out as `KeyboardInterrupt` that says how to go on."""
    on_interrupt = signal.getsignal(signal.SIGINT)
    try:
        trainer.fit(module, datamodule=data, ckpt_path=checkpoint, weights_only=True)
        interrupted = trainer.interrupted
    except SystemExit:  # how Lightning ends on a signal
        interrupted = True
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGINT, on_interrupt)  # Lightning leaves it ignored
    if interrupted:
        raise KeyboardInterrupt(f"(go on with: gfnem train --resume {folder})")


def _updates_done(checkpoint: Path, module: GFlowNetEM) -> int:
    """How far a run is; its weights are tried on, for an error in words if they do not fit."""
    state = read_checkpoint(checkpoint)["state_dict"]
    try:
        module.load_state_dict(state)
        return int(state["updates"])
    except (RuntimeError, KeyError, AttributeError) as error:
        raise UserError(
            f"{checkpoint}: its weights do not fit; have data or settings changed since?"
        ) from error


def assemble(settings: dict[str, Any]) -> tuple[DataModule, GFlowNetEM]:
    """Builds data and training module; data tells the model, and both tell space and policy."""
    data = build_data(settings)
    facts = data.facts()
    model: Target = build(settings["model"], Target, **facts)
    facts = {**facts, **model.facts()}
    components = (
        model,
        build(settings["space"], LatentSpace, **facts),
        build(settings["policy"], Policy, **facts),
        build(settings["objective"], Objective),
        build(settings["timing"], Timing),
    )
    em = dict(settings["em"])
    if settings.get("e_step") is not None:
        em["e_step"] = settings["e_step"]
    try:
        module = GFlowNetEM(
            *components,
            **{name: value for name, value in em.items() if value is not None},
            max_updates=settings["max_updates"],
            max_m_updates=settings["max_m_updates"],
            metadata=data.metadata(),
        )
    except (TypeError, ValueError) as error:
        raise UserError(f"em: {error}") from error
    _check(module)
    if module.has_policy:
        _check_policy(module, data)
    return data, module


def _with_shapes(settings: dict[str, Any]) -> dict[str, Any]:
    """The settings with `--shapes` as their `em.side`; what that says besides is kept.

    By default shapes come first: a young sampler's trees would teach the grammar otherwise.
    """
    side = settings["em"].get("side")
    if side is None:
        half = max(1, settings["max_updates"] // 2)
        weight = {"start": 10.0, "end": 1.0, "updates": half, "shape": "exponential"}
        weight = {"class_path": "gfnem.schedules.Anneal", "init_args": weight}
        side = {"class_path": "gfnem.parsing.TreebankShapes", "init_args": {"weight": weight}}
    side = {**side, "init_args": {**(side.get("init_args") or {}), "treebank": settings["shapes"]}}
    return {**settings, "em": {**settings["em"], "side": side}}


def build_data(settings: dict[str, Any]) -> DataModule:
    """Reads the data of a run; `data`, `valid` and `seed` of the run are the dataset's too.

    Raises:
        UserError: if the data is unusable.
    """
    dataset = settings["dataset"]
    arguments = dict(dataset.get("init_args") or {})
    for flag, name in (("data", "path"), ("valid", "valid")):
        if settings.get(flag) is not None:
            arguments[name] = settings[flag]
    return build({**dataset, "init_args": arguments}, DataModule, seed=settings.get("seed"))


def _check(module: GFlowNetEM) -> None:
    """Finds settings that contradict each other now rather than in the first update."""
    model, name = type(module.model), type(module.model).__name__
    if module.samples < 1 or module.eval_samples < 1:
        raise UserError("em: samples and eval_samples must be at least 1")
    if module.max_m_updates is not None and module.max_m_updates < 1:
        raise UserError(f"--max-m-updates {module.max_m_updates}: at least 1 is needed")
    _check_e_step(module)
    if not module.has_policy:
        return
    objective = type(module.objective).__name__
    if module.samples < 2 and isinstance(module.objective, (VarGrad, ReverseKL)):
        raise UserError(f"em: samples 1: {objective} compares samples of one x; use 2 or more")
    if module.objective.forward_looking and model.partial_log_joint is Target.partial_log_joint:
        raise UserError(f"objective: {name} offers no partial log joint to look forward with")
    if module.sleep and not _can_sample(model):
        raise UserError(f"em: sleep {module.sleep}: {name} cannot sample, so it cannot dream")


def _check_e_step(module: GFlowNetEM) -> None:
    """Whether the model and the space offer what `em.e_step` asks of them."""
    model, name = type(module.model), type(module.model).__name__
    lacks = {
        "exact": ("exact log marginal", model.log_marginal is Target.log_marginal),
        "exact-sampling": (
            "exact posterior samples",
            model.sample_posterior is Target.sample_posterior,
        ),
        "mcmc": (f"local moves in {type(module.space).__name__}", module.space.moves() is None),
        "wake-sleep": ("samples to dream of", not _can_sample(model)),
    }
    what, missing = lacks.get(module.e_step, ("", False))
    if missing:
        others = [e for e in E_STEPS if not lacks.get(e, ("", False))[1]]
        raise UserError(
            f"em: e_step {module.e_step}: {name} has no {what}; it can be trained with "
            f"{', '.join(others)}"
        )


def _can_sample(model: type[Target]) -> bool:
    return getattr(model, "sample", GenerativeModel.sample) is not GenerativeModel.sample


def _check_policy(module: GFlowNetEM, data: DataModule) -> None:
    """Tries on one observation whether the policy gives what the objective needs."""
    objective, policy = module.objective, module.policy
    if not (objective.needs_flow or objective.needs_log_z):
        return
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        x = data.batch([0])
        context = policy.encode(x, module.model)
        trajectories = policy.sample(context, x, module.space, 1)
        scores = policy.score(context, module.space, trajectories, flows=objective.needs_flow)
    for needed, value, what in (
        (objective.needs_flow, scores.log_flow, "flows of states"),
        (objective.needs_log_z, scores.log_z, "log Z(x)"),
    ):
        if needed and value is None:
            names = f"{type(objective).__name__} needs {what}, which {type(policy).__name__}"
            raise UserError(f"objective: {names} does not offer")


def _folder(settings: dict[str, Any]) -> tuple[Path, Path | None]:
    """The run folder, and the checkpoint to start from if it is resumed and has one."""
    if settings.get("resume"):
        if settings.get("out"):
            raise UserError("--out makes a new run and --resume goes on with one: give either")
        folder = Path(settings["resume"])
        checkpoint = folder / CHECKPOINT
        return folder, checkpoint if checkpoint.exists() else None
    if settings.get("out"):
        folder = Path(settings["out"])
        if (folder / CONFIG).exists():
            raise UserError(f"{folder} already holds a run; choose another --out, or --resume it")
    else:
        numbers = (Path("runs") / str(number) for number in range(1, 10**6))
        folder = next(path for path in numbers if not path.exists())
    return folder, None


def _make(folder: Path, fresh: bool) -> None:
    """Makes the folder; a `fresh` one must not have been there. Sweeps what a killed run left."""
    try:
        folder.mkdir(parents=True, exist_ok=not fresh)
        for path in folder.glob(".*.tmp"):
            path.unlink()
    except OSError as error:
        raise UserError(f"{folder}: cannot make this folder ({error.strerror})") from error


def _logger(folder: Path) -> Any:
    if importlib.util.find_spec("tensorboard") is None:
        return False
    from pytorch_lightning.loggers import TensorBoardLogger

    return TensorBoardLogger(folder, name="", version="tensorboard")


def _describe(module: GFlowNetEM) -> str:
    def size(part: torch.nn.Module) -> str:
        return f"{sum(p.numel() for p in part.parameters()):,} parameters"

    text = f"model {type(module.model).__name__} ({size(module.model)})"
    if module.has_policy:
        text += f", policy {type(module.policy).__name__} ({size(module.policy)})"
    return text


#: settings that may name a file, or a folder or file: a run can be resumed from another folder
_FILES = ("grammar", "prior", "source")
_PLACES = ("data", "path", "shapes", "treebank", "valid")


def _plain(value: Any, name: str = "") -> Any:
    """Settings as plain data; paths that exist are made absolute."""
    if isinstance(value, dict):
        return {key: _plain(entry, key) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(entry) for entry in value]
    if isinstance(value, str) and name in (*_FILES, *_PLACES):
        return absolute(value, folders=name in _PLACES)
    return value

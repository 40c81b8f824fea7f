"""One training run, from settings to a run folder."""

from __future__ import annotations

import importlib.util
import json
import logging
import math
import os
import re
import sys
import time
import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
import yaml
from lightning_fabric.utilities.exceptions import MisconfigurationException
from pytorch_lightning.strategies import DDPStrategy

from gfnem.component import build, class_of
from gfnem.data import DataModule
from gfnem.errors import Interrupted, UserError, too_large
from gfnem.files import absolute, write_atomically
from gfnem.lightning import GFlowNetEM
from gfnem.offers import NotOffered
from gfnem.policy import Policy
from gfnem.rates import Rates
from gfnem.recipes import Recipe, fitting
from gfnem.reward import Reward, rewarded
from gfnem.running.devices import check as check_device
from gfnem.running.misfits import misfit
from gfnem.running.processes import (
    Helpers,
    own_rank,
    shape_of_world,
    started_elsewhere,
    watch_parent,
    world_size,
)
from gfnem.running.progress import TrainingProgress
from gfnem.running.run_folder import RunFolder, held
from gfnem.running.runs import BEST, CHECKPOINT, CONFIG, CURVES, METRICS, read_checkpoint
from gfnem.running.signals import heeding_signals
from gfnem.running.trained import CLOCK
from gfnem.running.tryout import try_out
from gfnem.schedules import Schedule, over
from gfnem.space import LatentSpace
from gfnem.target import Target
from gfnem.world import WORLDS, World, declared, find, reference

_OUT_OF_MEMORY = (
    "out of memory ({}): try fewer recipe.samples, a smaller dataset.batch_size, a smaller model "
    "or shorter sentences"
)


def train(
    settings: dict[str, Any],
    before: Callable[[], None] = lambda: None,
    usable: Callable[[DataModule], None] = lambda data: None,
) -> Path:
    """Trains as the settings say and returns the run folder.

    Args:
        settings: the parsed command line (see `gfnem train --help`), nested plain data.
        before: called once imports are done and before training starts.
        usable: called with the data once settings have proved usable, before anything is written.

    Raises:
        UserError: if data or settings are unusable, or the folder already holds a run.
        Interrupted: if a signal ended it; what was done is saved.
    """
    devices, nodes = shape_of_world(settings["devices"], settings["num_nodes"])
    leads = own_rank() == 0  # the others neither write nor speak
    folder, checkpoint = folder_of(settings, leads)
    wanted = settings  # as other processes are told
    world = world_of(settings)
    settings = over(world.expand(settings), settings["max_updates"])
    before()
    check_device(settings["accelerator"], devices, settings["precision"])
    pl.seed_everything(settings["seed"], verbose=False)
    data, module = assemble(settings)
    already = _updates_done(checkpoint, module) if checkpoint else 0
    record = RunFolder(folder, settings["patience"], settings)
    trainer = _trainer(settings, record, devices, nodes)
    told = {**wanted, "config": None}
    finished = bool(already) and already >= (module.max_updates or math.inf)
    if not leads:
        if not finished:
            with _helpers(told, devices, nodes):
                _fit(trainer, module, data, checkpoint, folder)
        return folder
    if summary := data.summary():
        print(summary, flush=True)
    if module.reward is not None:
        print(module.reward.summary(), flush=True)
    for line in module.em.prepare():
        print(line, flush=True)
    print(_describe(module), flush=True)
    # only now, so that unusable data or settings leave no folder behind
    with held(folder, fresh=not (settings.get("resume") or settings.get("out"))):
        if not settings.get("resume") and (folder / CONFIG).exists():
            raise UserError(f"{folder} already holds a run; choose another --out, or --resume it")
        usable(data)
        if not finished:
            write_settings(folder, settings)
        if settings.get("resume"):
            print(f"going on after update {already}" if already else "starting again at update 0")
        if finished:
            print(f"{folder} has had its {already} updates already; ask for more: --max-updates")
        else:
            if not settings.get("resume"):
                told["out"] = str(folder)
            with _helpers(told, devices, nodes):
                _fit(trainer, module, data, checkpoint, folder)
        _sum_up(module, world, data, folder, record)
    return folder


def _helpers(settings: dict[str, Any], devices: int, nodes: int) -> AbstractContextManager:
    """The other processes of this machine, where there are to be some and nobody starts them."""
    if devices == 1 or started_elsewhere():
        return nullcontext()
    return Helpers(settings, devices, nodes)


def quietly() -> None:
    """Silences what Lightning says of itself; its warnings are about choices we made."""
    for name in ("pytorch_lightning", "lightning", "lightning_fabric"):
        logging.getLogger(name).setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module="pytorch_lightning")


def train_beside() -> None:
    """What the processes do that `Helpers` starts: the same run, without a word."""
    settings = json.loads(sys.stdin.read())
    watch_parent()
    warnings.filterwarnings("ignore")  # the first process warns
    code = 0
    try:
        train(settings, quietly)
    except Interrupted as interrupt:
        code = interrupt.code
    except UserError as error:
        code = 2
        if world_size() == 1:  # else it has happened to all, and the first process says so
            print(f"gfnem: error: process {own_rank()}: {error}", file=sys.stderr, flush=True)
    os._exit(code)


def _sum_up(
    module: GFlowNetEM, world: World, data: DataModule, folder: Path, record: RunFolder
) -> None:
    """Draws what was learned, and says what is in the folder."""
    if record.out_of_patience:
        print(f"stopped: no lower held-out NLL in {record.patience} validations")
    best = record.best
    if best is not None and best["update"] < int(module.updates):
        module.load_state_dict(read_checkpoint(folder / BEST)["state_dict"])
        print(
            f"{BEST} is from update {best['update']:.0f} (held-out NLL {best['nll']:.3f}); parse, "
            "evaluate and generate use it"
        )
    files = world.draw(module.eval(), data, folder)
    names = (BEST, CHECKPOINT, CONFIG, METRICS, CURVES)
    written = [name for name in names if (folder / name).exists()]
    print(f"done: {folder} holds {', '.join([*written, *files])}")


def _trainer(settings: dict[str, Any], record: RunFolder, devices: int, nodes: int) -> pl.Trainer:
    on_cpu = settings["accelerator"] == "cpu" or not torch.cuda.is_available()
    several = devices * nodes > 1
    try:
        return pl.Trainer(
            accelerator=settings["accelerator"],
            devices=devices,
            num_nodes=nodes,
            strategy=DDPStrategy(broadcast_buffers=False) if several else "auto",
            precision=settings["precision"],
            max_epochs=-1,
            reload_dataloaders_every_n_epochs=1,
            num_sanity_val_steps=0,
            use_distributed_sampler=False,
            # a resumed run must repeat what it would have done
            deterministic=True if on_cpu else None,
            logger=_logger(record.folder),
            callbacks=[record, TrainingProgress()],
            enable_progress_bar=False,
            enable_model_summary=False,
        )
    except (ValueError, RuntimeError, TypeError, ImportError, MisconfigurationException) as error:
        raise UserError(f"accelerator, devices or precision: {error}") from error


def _fit(
    trainer: pl.Trainer,
    module: GFlowNetEM,
    data: DataModule,
    checkpoint: Path | None,
    folder: Path,
) -> None:
    """Trains; a signal to stop saves after the update it comes in, and raises `Interrupted`."""
    how = f"(go on with: gfnem train --resume {folder})"
    with heeding_signals(module) as heard:
        try:
            trainer.fit(module, datamodule=data, ckpt_path=checkpoint, weights_only=True)
        except SystemExit as end:  # how Lightning ends on a second signal
            raise Interrupted(how) from end
        except MisconfigurationException as error:
            raise UserError(str(error)) from error
        except (RuntimeError, MemoryError, IndexError, ValueError) as error:
            if (why := too_large(error)) is not None:
                raise UserError(_OUT_OF_MEMORY.format(why)) from error
            module.check_gradients(1)  # without numbers anything may fail
            if world_size() == 1 or not re.search("(?i)gloo|nccl|connection|peer", str(error)):
                raise
            time.sleep(3)  # whoever watches the processes knows which one it was
            raise UserError("another process of this run has ended; go on with --resume") from error
    if heard and module.stopping:
        raise Interrupted(how, 128 + heard[0])
    if module.stopping:
        raise Interrupted(how)


def _updates_done(checkpoint: Path, module: GFlowNetEM) -> int:
    """How far a run is; its weights are tried on, for an error in words if they do not fit."""
    content = read_checkpoint(checkpoint)
    then = (content["hyper_parameters"].get("metadata") or {}).get("data", {})
    for name, digest in module.metadata["data"].items():
        if name in then and then[name] != digest:
            raise UserError(
                f"{checkpoint}: the {name.replace('_', ' ')} is not what this run was trained with "
                "(other data, another --seed, or other dataset settings); a resumed run needs the "
                "same, or start a new run"
            )
    try:
        module.load_state_dict(content["state_dict"])
        return int(content["state_dict"][CLOCK]["updates"])
    except (RuntimeError, KeyError, AttributeError) as error:
        raise UserError(
            f"{checkpoint}: its weights do not fit; have data or settings changed since, or is it "
            "from an older version?"
        ) from error


def assemble(settings: dict[str, Any]) -> tuple[DataModule, GFlowNetEM]:
    """Builds data and training module; data tells the model, and both tell space and policy."""
    data = build_data(settings)
    world = world_of(settings)
    if data.world is not None and world.name in declared(WORLDS) and data.world != world.name:
        raise UserError(
            f"dataset: {type(data).__name__} is of the world {data.world}, not {world.name}"
        )
    try:
        return data, _module(settings, data, world)
    except Exception as error:
        if isinstance(error, UserError) or not (why := misfit(settings, world)):
            raise
        raise UserError(why) from error


def _module(settings: dict[str, Any], data: DataModule, world: World) -> GFlowNetEM:
    facts = data.facts()
    model: Target = build(settings["model"], Target, **facts)
    facts = {**facts, **model.facts()}
    components = (
        model,
        build(settings["space"], LatentSpace, **facts),
        build(settings["policy"], Policy, **facts),
        build(settings["recipe"], Recipe),
        build(settings["schedule"], Schedule),
        build(settings["rates"], Rates),
        build(settings.get("reward"), Reward, **facts),
    )
    model, space, policy, *_, reward = components
    model.prepare(data)
    if reward is not None:
        reward.prepare(data)
    try:
        module = GFlowNetEM(
            *components,
            eval_samples=settings["eval_samples"],
            record=settings.get("record", True),
            max_updates=settings["max_updates"],
            max_m_updates=settings["max_m_updates"],
            metadata={**data.metadata(), "data": data.fingerprint(), "world": reference(world)},
        )
    except NotOffered as error:
        others = ", ".join(fitting(rewarded(model, reward), space, policy)) or "no shipped recipe"
        raise UserError(f"recipe: {error}; it can be trained with {others}") from error
    except (TypeError, ValueError) as error:
        raise UserError(f"recipe: {error}") from error
    first = data.batch(range(min(4, len(data.sizes()))))
    try_out(module.target, module.space, module.policy if module.has_policy else None, first)
    try:
        module.em.try_out(data.batch([0]))
    except NotOffered as error:
        raise UserError(f"recipe: {error}") from error
    except (RuntimeError, MemoryError) as error:
        if (why := too_large(error)) is None:
            raise
        raise UserError(_OUT_OF_MEMORY.format(why)) from error
    return module


def world_of(settings: dict[str, Any]) -> World:
    """The world that settings name; that of their dataset if they name none.

    Raises:
        UserError: if it cannot be found, or the dataset's class cannot.
    """
    if settings.get("world") is not None:
        return find(settings["world"])
    return find(class_of(settings["dataset"], DataModule).world)


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


def folder_of(settings: dict[str, Any], leads: bool) -> tuple[Path, Path | None]:
    """The run folder, and the checkpoint to start from if it is resumed and has one."""
    if settings.get("resume"):
        if settings.get("out") and leads:
            raise UserError("--out makes a new run and --resume goes on with one: give either")
        folder = Path(settings["resume"])
        checkpoint = folder / CHECKPOINT
        return folder, checkpoint if checkpoint.exists() else None
    if settings.get("out"):
        folder = Path(settings["out"])
        if leads and (folder / CONFIG).exists():
            raise UserError(f"{folder} already holds a run; choose another --out, or --resume it")
    else:
        numbers = (Path("runs") / str(number) for number in range(1, 10**6))
        folder = next(path for path in numbers if not path.exists())
    return folder, None


def write_settings(folder: Path, settings: dict[str, Any]) -> None:
    """Keeps what a run is made of in its folder."""
    kept = {k: v for k, v in settings.items() if k not in ("config", "resume", "out")}
    write_atomically(folder / CONFIG, yaml.safe_dump(_plain(kept), sort_keys=False))


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
_FILES = ("grammar", "prior")
_PLACES = ("brackets", "cache", "data", "path", "text", "treebank", "valid")


def _plain(value: Any, name: str = "") -> Any:
    """Settings as plain data; paths that exist are made absolute."""
    if isinstance(value, dict):
        return {key: _plain(entry, key) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(entry) for entry in value]
    if isinstance(value, str) and name in (*_FILES, *_PLACES):
        return absolute(value, folders=name in _PLACES)
    return value

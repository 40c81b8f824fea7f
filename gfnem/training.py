"""One training run, from settings to a run folder."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
import yaml

from gfnem.component import build
from gfnem.data import DataModule
from gfnem.em import GFlowNetEM
from gfnem.errors import UserError
from gfnem.files import write_atomically
from gfnem.objectives import Objective
from gfnem.policy import Policy
from gfnem.progress import TrainingProgress
from gfnem.runs import CHECKPOINT, CONFIG, CURVES, METRICS, RunFolder, read_checkpoint
from gfnem.schedules import Timing
from gfnem.space import LatentSpace
from gfnem.target import Target


def train(settings: dict[str, Any], before: Callable[[], None] = lambda: None) -> Path:
    """Trains as the settings say and returns the run folder.

    Args:
        settings: the parsed command line (see `gfnem train --help`), nested plain data.
        before: called once imports are done and before training starts.

    Raises:
        UserError: if data or settings are unusable, or the folder already holds a run.
    """
    folder, checkpoint = _folder(settings)
    before()
    pl.seed_everything(settings["seed"], verbose=False)
    data, module = assemble(settings)
    if summary := data.summary():
        print(summary, flush=True)
    print(_describe(module), flush=True)
    kept = {k: v for k, v in settings.items() if k not in ("config", "resume", "out")}
    write_atomically(folder / CONFIG, yaml.safe_dump(_plain(kept), sort_keys=False))
    on_cpu = settings["accelerator"] == "cpu" or not torch.cuda.is_available()
    run = RunFolder(folder)
    trainer = pl.Trainer(
        accelerator=settings["accelerator"],
        devices=settings["devices"],
        precision=settings["precision"],
        max_epochs=-1,
        reload_dataloaders_every_n_epochs=1,
        num_sanity_val_steps=0,
        use_distributed_sampler=False,
        deterministic=True if on_cpu else None,  # a resumed run must repeat what it would have done
        logger=_logger(folder),
        callbacks=[run, TrainingProgress()],
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    already = int(read_checkpoint(checkpoint)["state_dict"]["updates"]) if checkpoint else 0
    if already and already >= module.max_updates:
        print(f"{folder} has had its {already} updates already; ask for more with --max-updates")
    else:
        trainer.fit(module, datamodule=data, ckpt_path=checkpoint, weights_only=True)
        if trainer.interrupted:
            raise KeyboardInterrupt
    files = data.draw(module.eval(), folder)
    written = [CHECKPOINT, CONFIG, METRICS, CURVES, *files]
    print(f"done: {folder} holds {', '.join(written)}")
    return folder


def assemble(settings: dict[str, Any]) -> tuple[DataModule, GFlowNetEM]:
    """Builds data and training module; data tells the model, and both tell space and policy."""
    dataset = settings["dataset"]
    arguments = dict(dataset.get("init_args") or {})
    for flag, name in (("data", "path"), ("valid", "valid")):
        if settings.get(flag) is not None:
            arguments[name] = settings[flag]
    data: DataModule = build({**dataset, "init_args": arguments}, DataModule)
    facts = data.facts()
    model: Target = build(settings["model"], Target, **facts)
    facts = {**facts, **model.facts()}
    module = GFlowNetEM(
        model,
        build(settings["space"], LatentSpace, **facts),
        build(settings["policy"], Policy, **facts),
        build(settings["objective"], Objective),
        build(settings["timing"], Timing),
        **{name: value for name, value in settings["em"].items() if value is not None},
        max_updates=settings["max_updates"],
        max_m_updates=settings["max_m_updates"],
        metadata=data.metadata(),
    )
    return data, module


def _folder(settings: dict[str, Any]) -> tuple[Path, Path | None]:
    """The run folder, and the checkpoint to start from if it is resumed and has one."""
    if settings.get("resume"):
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
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{folder}: cannot make this folder ({error.strerror})") from error
    return folder, None


def _logger(folder: Path) -> Any:
    if importlib.util.find_spec("tensorboard") is None:
        return False
    from pytorch_lightning.loggers import TensorBoardLogger

    return TensorBoardLogger(folder, name="", version="tensorboard")


def _describe(module: GFlowNetEM) -> str:
    def size(part: torch.nn.Module) -> str:
        return f"{sum(p.numel() for p in part.parameters()):,} parameters"

    text = f"model {type(module.model).__name__} ({size(module.model)})"
    if module.e_step == "gflownet":
        text += f", policy {type(module.policy).__name__} ({size(module.policy)})"
    return text


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(entry) for entry in value]
    return value

"""Training from several random starts, of which the one with the lowest held-out NLL is kept."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

from gfnem.data import DataModule
from gfnem.errors import UserError
from gfnem.files import write_atomically
from gfnem.running.run_folder import held, twin
from gfnem.running.runs import BEST, CONFIG, LOCK, METRICS
from gfnem.running.training import folder_of, write_settings
from gfnem.running.training import train as train_once
from gfnem.schedules import over

#: in the run folder: how each start ended
TABLE = "restarts.csv"
_HOLD_OUT = "--restarts keeps the start with the lowest held-out NLL: hold data out"
_COLUMNS = ("restart", "seed", "max_updates", "update", "val_nll")


def train(settings: dict[str, Any], before: Callable[[], None] = lambda: None) -> Path:
    """Trains as the settings say, from `restarts` starts, and returns the run folder.

    Each start is a run of its own in `RUN/restart-1`, `RUN/restart-2`, ..., whose seeds follow one
    another; all have the same data and hold out the same. The files of the best one so far, by
    held-out NLL, are the run folder's. A run that is resumed goes on with the start that it was
    interrupted in.

    Args:
        settings: as for `training.train`.
        before: called once imports are done and before training starts.

    Raises:
        UserError: as `training.train`; if several processes share batches, or nothing is held out.
        Interrupted: if a signal ended it; what was done is saved.
    """
    count = settings.get("restarts") or 1
    if count == 1:
        return train_once(settings, before)
    if settings["devices"] * settings["num_nodes"] > 1:
        raise UserError("--restarts trains in one process: leave --devices and --num-nodes at 1")
    # a share of this run: schedules stay what they are when it goes on
    settings = over(settings, settings["max_updates"])
    resumed = bool(settings.get("resume"))
    folder, _ = folder_of(settings, leads=True)
    with held(folder, fresh=not (resumed or settings.get("out"))):
        done = {
            number: {**row, **_best(folder / f"restart-{number}")}  # it may have gone on by itself
            for number, row in _read(folder / TABLE).items()
            if (folder / f"restart-{number}" / METRICS).exists()
        }
        best = _keep_best(done, folder) if done else {}

        def usable(data: DataModule) -> None:
            if not data.validation_batches():
                raise UserError(_HOLD_OUT)
            write_settings(folder, settings)

        for number in range(1, count + 1):
            seed = settings["seed"] + number - 1
            print(f"restart {number} of {count}, seed {seed}", flush=True)
            place = folder / f"restart-{number}"
            if done.get(number, {}).get("max_updates", 0) < settings["max_updates"]:
                train_once(_alone(settings, place, seed), before, usable)
                row = {"restart": number, "seed": seed, "max_updates": settings["max_updates"]}
                done[number] = {**row, **_best(place)}
                best = _keep_best(done, folder)
        for row in done.values():
            chosen = ", kept" if row is best else ""
            print(
                f"restart {row['restart']:.0f}: held-out NLL {row['val_nll']:.3f} at update "
                f"{row['update']:.0f}{chosen}"
            )
    return folder


def _alone(settings: dict[str, Any], place: Path, seed: int) -> dict[str, Any]:
    """The settings of one start. Its data are those of the first: what is held out is the same."""
    dataset = settings["dataset"]
    told = dict(dataset.get("init_args") or {})
    if told.get("seed") is None:
        told["seed"] = settings["seed"]
    begun = (place / CONFIG).exists()
    return {
        **settings,
        "restarts": 1,
        "seed": seed,
        "dataset": {**dataset, "init_args": told},
        "out": None if begun else str(place),
        "resume": str(place) if begun else None,
    }


def _best(place: Path) -> dict[str, float]:
    """The update with the lowest held-out NLL, or bound on it."""
    with open(place / METRICS, newline="", encoding="utf-8") as stream:
        rows = [row for row in csv.DictReader(stream) if row.get("val_nll")]
    if not rows:
        raise UserError(_HOLD_OUT)
    best = min(rows, key=lambda row: _order(float(row["val_nll"])))
    return {"update": float(best["update"]), "val_nll": float(best["val_nll"])}


def _order(nll: float) -> float:
    return math.inf if math.isnan(nll) else nll


def _keep_best(done: dict[int, dict[str, float]], folder: Path) -> dict[str, float]:
    """Lists the starts, and gives the run folder the files of the best one, which is returned."""
    best = min(done.values(), key=lambda row: row["val_nll"])
    _publish(folder / f"restart-{best['restart']:.0f}", folder)
    write_atomically(folder / TABLE, _table(done))
    return best


def _publish(place: Path, folder: Path) -> None:
    """Gives the files of a start to the run folder, the best checkpoint last."""
    files = [path for path in place.iterdir() if path.is_file()]
    for path in sorted(files, key=lambda path: path.name == BEST):
        if path.name not in (CONFIG, LOCK):
            twin(path, folder / path.name)


def _read(table: Path) -> dict[int, dict[str, float]]:
    if not table.exists():
        return {}
    try:
        with open(table, newline="", encoding="utf-8") as stream:
            rows = [{name: float(row[name]) for name in _COLUMNS} for row in csv.DictReader(stream)]
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{table}: not a table of restarts; resume without it") from error
    return {int(row["restart"]): row for row in rows}


def _table(done: dict[int, dict[str, float]]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(_COLUMNS)
    for row in done.values():
        *whole, nll = (row[name] for name in _COLUMNS)
        writer.writerow([*(f"{value:.0f}" for value in whole), f"{nll:.6g}"])
    return text.getvalue()

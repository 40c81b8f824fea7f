"""Worlds: what one kind of data needs, from file to figure.

Those that are installed are found by entry points of the group `gfnem.worlds` and imported only
when one is named. A user's own is named by its import path, as `--world my_file.MyWorld`.
"""

from __future__ import annotations

import importlib
import re
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import entry_points
from pathlib import Path
from types import FunctionType
from typing import TYPE_CHECKING, Any

from gfnem.component import derived, imported, known, refuse_abstract
from gfnem.errors import UserError
from gfnem.settings import read_settings, shipped

if TYPE_CHECKING:
    import argparse

    from gfnem.data import DataModule
    from gfnem.page import Section
    from gfnem.running.run import Run

WORLDS = "gfnem.worlds"
VERBS = "gfnem.verbs"
#: the world of a run that says nothing of it
DEFAULT = "text"
#: the parts that a world must name
NEEDED = ("dataset", "model", "space", "policy")


@dataclass
class Observed:
    """A batch of observations.

    Attributes:
        x: what models and policies take, leading axis `(batch,)`.
        shown: each observation as plain data, the way a person gave it.
        without: observations that have no latent, which neither of both holds: by their places
            among all that were read with the batch, as plain data and why. Without any others `x`
            is None.
    """

    x: Any
    shown: list[Any]
    without: dict[int, tuple[Any, str]] = field(default_factory=dict, kw_only=True)


class World(ABC):
    """What one kind of data needs; only `read` and the parts of a run have no default.

    Attributes:
        about: what is observed and what is latent, in a line.
        data: what `--data` takes, in a line.
        parts: settings of a run where the user says nothing: `dataset`, `model`, `space` and
            `policy`, each a class, its import path or a spec with `class_path` and `init_args`;
            others as in a settings file.
        config: a file with such settings, or the name of a shipped one. `parts` go first.
        modules: whose classes are known by their bare names.
        told: constructor arguments that the data or the model tell, and never the user.
        formats: forms beside "json" in which `infer` and `sample` write, each with its name in
            words.
        name: under which the world was found.
    """

    about: str = ""
    data: str = ""
    parts: Mapping[str, Any] = {}
    config: str | Path | None = None
    modules: Sequence[str] = ()
    told: frozenset[str] = frozenset()
    formats: Mapping[str, str] = {}
    name: str = ""

    # ---------------------------------------------------------------- data in, records out

    @abstractmethod
    def read(self, run: Run, source: Any) -> Iterator[Observed]:
        """New observations in batches, read as they are asked for.

        Args:
            run: the trained run that they are for.
            source: a path as a `pathlib.Path` (`-` is standard input, where a world reads it), or
                plain data of this world from Python.

        Raises:
            UserError: naming file, line and cause, if the source is unusable.
        """

    def observed(self, run: Run, x: Any) -> Observed:
        """A batch that a model has drawn, with its observations as plain data."""
        from gfnem.batched import as_lists  # torch, which the list of worlds does without

        return Observed(x, as_lists(x, 1))

    def latents(self, run: Run, observed: Observed, z: Any) -> list[list[Any]]:
        """The latents `z`, leading axes `(batch, samples)`, as plain data.

        Tensors become lists, and a `Batched` a mapping for each latent.
        """
        from gfnem.batched import as_lists

        return as_lists(z, 2)

    def written(self, run: Run, record: Mapping[str, Any], form: str) -> str:
        """A record of `Run.infer` in one of `formats`, for standard output."""
        raise NotImplementedError

    def draws_written(self, run: Run, draws: Sequence[Mapping[str, Any]], form: str) -> str:
        """What `Run.sample` returns in one of `formats`: each draw as a record with one latent."""
        return "".join(self.written(run, {**draw, "latents": [draw]}, form) for draw in draws)

    def sample(self, run: Run, n: int) -> list[dict[str, Any]]:
        """What `Run.sample` returns: observations with their latents, drawn from the model.

        Args:
            run: the trained run.
            n: how many.

        Raises:
            UserError: if the model cannot sample.
        """
        name = type(run.model).__name__
        if not run.model.offers("sample"):
            raise UserError(f"{run.path}: {name} cannot sample")
        try:
            x, z = run.model.sample(n)
        except RuntimeError as error:
            raise UserError(f"{run.path}: {name}: {error}") from error
        observed = self.observed(run, x)
        latents = self.latents(run, observed, z)
        log_joint = run.model.log_joint(x, z)[:, 0].tolist()
        return [
            {"observation": shown, "latent": latent[0], "log_joint": value}
            for shown, latent, value in zip(observed.shown, latents, log_joint, strict=True)
        ]

    def likely(self, run: Run, x: Any) -> Sequence[Any]:
        """Latents to consider beside the sampler's draws, such as the most probable of all.

        Args:
            run: the trained run.
            x: a batch of observations.

        Returns:
            Batches of latents, leading axes `(batch, samples)`.
        """
        return ()

    # ---------------------------------------------------------------- figures and pictures

    def held_out(self, data: DataModule) -> Iterable[Any]:
        """The batches that a run is evaluated on where no data are named."""
        return data.validation_batches()

    def scores(self, run: Run, data: DataModule, source: str | None) -> dict[str, Any]:
        """Figures beyond NLL, ELBO gap and effective sample size.

        Args:
            run: the trained run.
            data: what it was trained on.
            source: the path of other data to evaluate on; None for what was held out.
        """
        return data.evaluate(run, source)

    def evaluate(
        self, run: Run, source: str | None = None, samples: int = 64, **flags: Any
    ) -> dict[str, Any]:
        """The figures of `gfnem evaluate`; keyword arguments are its flags.

        Args:
            run: the trained run.
            source: the path of data to evaluate on; None for what was held out.
            samples: importance samples for each observation.
            flags: those of this world alone; `batches` and `scores` are given them.
        """
        from gfnem.running.run import measured

        data = run.data()
        batches = self.batches(run, data, source, **flags)
        return {**measured(run, batches, samples), **self.scores(run, data, source, **flags)}

    def batches(self, run: Run, data: DataModule, source: str | None) -> Iterable[Any]:
        """The observations that `evaluate` is about, batch after batch.

        Args:
            run: the trained run.
            data: its data.
            source: as for `evaluate`.
        """
        if source is None:
            return self.held_out(data)
        read = self.read(run, Path(source))
        return (observed.x for observed in read if observed.x is not None)

    def table(self, run: Run, figures: Mapping[str, Any]) -> str:
        """The figures for a person."""
        lines = []
        for name, value in figures.items():
            value = f"{value:.4f}" if isinstance(value, float) else value
            lines.append(f"{name:32} {value}\n")
        return "".join(lines)

    def draw(self, run: Any, data: DataModule, folder: Path) -> list[str]:
        """Draws what was learned into `folder`; returns the names of the files written."""
        return data.draw(run, folder)

    def report(self, run: Run, data: DataModule | None, samples: int) -> Sequence[Section]:
        """Sections of a run's web page: what was learned, examples, how good it is.

        Args:
            run: the trained run.
            data: what it was trained on; None where that is not to be had any more.
            samples: importance samples for each observation.
        """
        from gfnem.report import general

        return general(run, data, samples)

    # ---------------------------------------------------------------- command line and Python

    def flags(self, verb: str, parser: argparse.ArgumentParser) -> None:
        """Adds the flags that `train` or `evaluate` has in this world alone.

        Those of `train` are turned into settings by `expand`; those of `evaluate` are arguments of
        the method of that name, which hands them to `batches` and `scores`.
        """
        return

    def expand(self, settings: dict[str, Any]) -> dict[str, Any]:
        """The settings of a run with this world's own flags turned into settings of its parts.

        Raises:
            UserError: if they contradict each other.
        """
        return settings

    def run_class(self) -> type[Run]:
        """What `gfnem.load` returns: a subclass of `Run` where this world adds methods."""
        from gfnem.running.run import Run

        return Run

    # ---------------------------------------------------------------- what all worlds share

    def defaults(self, given: Collection[str] = ()) -> dict[str, Any]:
        """The settings of a run where the user says nothing, as in a settings file.

        Args:
            given: names of settings, such as `data`, that the user does say something of.

        Raises:
            UserError: if a part is missing.
        """
        content: dict[str, Any] = {}
        if self.config is not None:
            content = read_settings(shipped(str(self.config)) or self.config)
        content |= {name: spec_of(part) for name, part in self.parts.items()}
        content |= {name: spec_of(content[name]) for name in NEEDED if name in content}
        if lacking := [name for name in NEEDED if name not in content]:
            raise UserError(
                f"{self.name}: its parts lack {', '.join(lacking)}: a world names a class "
                f"for each of {', '.join(NEEDED)}"
            )
        return content

    def datasets(self) -> dict[str, type]:
        """The datasets of this world, by their bare names."""
        from gfnem.data import DataModule

        self.import_classes()
        listed = known(DataModule)
        return {
            cls.__name__: cls
            for cls in derived(DataModule)
            if cls.__module__ in self.modules and cls.__name__ in listed
        }

    def starts_from(self, dataset: str) -> bool:
        """Makes a dataset of this world, by its bare name, the default; whether there is one."""
        cls = self.datasets().get(dataset)
        if cls is not None:
            self.parts = {**self.parts, "dataset": cls}
        return cls is not None

    def import_classes(self) -> None:
        """Imports the modules whose classes are known by bare names."""
        for module in self.modules:
            importlib.import_module(module)


class Unnamed(World):
    """The world of a dataset that belongs to none: it can be trained and evaluated."""

    def read(self, run: Run, source: Any) -> Iterator[Observed]:
        """Refuses: nobody says how."""
        raise UserError(
            f"{run.path}: how new data are read is not known, since this run was trained without a "
            "world; name one in training, with --world my_file.MyWorld"
        )


def spec_of(part: Any) -> Any:
    """A class, a function, or an import path as a spec; anything else as it is."""
    if isinstance(part, (type, FunctionType)):
        part = f"{part.__module__}.{part.__qualname__}"
    return {"class_path": part} if isinstance(part, str) else part


# -------------------------------------------------------------------------- finding them


def declared(group: str) -> dict[str, str]:
    """The entry points of a group: `{name: "module:attribute"}`, in order of their names."""
    found = {point.name: point.value for point in entry_points(group=group)}
    # a checkout is used without being installed, or was installed when it had fewer
    project = Path(__file__).parents[1] / "pyproject.toml"
    if project.is_file():
        text = project.read_text(encoding="utf-8")
        header = re.escape(f'[project.entry-points."{group}"]')
        if table := re.search(rf"^{header}\n((?:.+\n)*)", text, re.MULTILINE):
            found |= dict(re.findall(r'^"?([\w-]+)"? = "([^"]+)"', table[1], re.MULTILINE))
    return dict(sorted(found.items()))


def find(reference: str | Mapping[str, Any] | None) -> World:
    """The world of a name, or of an import path; a dataset's that belongs to none if None.

    Args:
        reference: the name of an installed world, alone or with a dataset of it, as in
            `energies.Points`; the import path of a class, or that as `{"class_path": path}`, which
            is how runs remember it.

    Raises:
        UserError: if there is none, or it lacks what a world must have.
    """
    if reference is None:
        return Unnamed()
    if isinstance(reference, Mapping):
        reference = reference.get("class_path")
    worlds = declared(WORLDS)
    path = worlds.get(reference, reference) if isinstance(reference, str) else None
    name, _, dataset = str(path).partition(".")
    if name in worlds and (world := find(name)).starts_from(dataset):
        return world
    if path is None or "." not in path:
        raise UserError(
            f"there is no world {reference!r}; there are {', '.join(worlds)}, and yours as "
            "my_file.MyWorld"
        )
    try:
        cls = imported(path)
    except UserError as error:
        if name in worlds:
            there = ", ".join(sorted(find(name).datasets())) or "none by name"
            raise UserError(f"world {name} has no dataset {dataset}; it has {there}") from error
        raise UserError(f"world {reference}: {error}") from error
    if not (isinstance(cls, type) and issubclass(cls, World)):
        raise UserError(f"{path} is not a World")
    refuse_abstract(cls, path)
    world = cls()
    world.name = str(reference)
    return world


def reference(world: World) -> str | dict[str, str] | None:
    """How a checkpoint remembers a world, for `find`; None for `Unnamed`."""
    if "." in world.name:  # a class path, which nobody but the user may have imported
        return {"class_path": world.name}
    return world.name or None
